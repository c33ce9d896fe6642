/* Blocks that grew and shrank by realloc before they were lost: in place,
 * moved, from NULL, and to zero, which frees. */
#include "fixture.h"

static NOINLINE void lose_grown(void) {
  char *p = (char *)malloc(50), *neighbour = (char *)malloc(50);
  fill(p, 50);
  fill(neighbour, 50);
  hold(neighbour, 50);
  p = (char *)realloc(p, 700); /* want memory 700 */
  fill(p, 700);
  lose(p, 700);
}

static NOINLINE void lose_shrunk(void) {
  char *p = (char *)malloc(4000);
  fill(p, 4000);
  p = (char *)realloc(p, 90); /* want memory 90 */
  if (!p) fixture_die("realloc");
  lose(p, 90);
}

static NOINLINE void lose_from_null(void) {
  char *p = (char *)realloc(NULL, 260); /* want memory 260 */
  fill(p, 260);
  lose(p, 260);
}

static NOINLINE void lose_array(void) {
  int *p = (int *)reallocarray(NULL, 33, sizeof(int)); /* want memory 132 */
  fill(p, 132);
  lose(p, 132);
}

static NOINLINE void free_by_realloc(void) {
  /* volatile: gcc would warn of a size that is zero. */
  volatile size_t nothing = 0;
  char *p = (char *)malloc(610);
  fill(p, 610);
  note(FREED, p, 610);
  if (realloc(p, nothing)) fixture_die("realloc to zero");
}

static NOINLINE void survive_failure(void) {
  volatile size_t huge = (size_t)1 << 60;
  char *p = (char *)malloc(330);
  fill(p, 330);
  if (realloc(p, huge)) fixture_die("realloc of 2^60 bytes");
  hold(p, 330); /* a failed realloc leaves the block */
}

static void leak(long n) {
  static void (*const kinds[])(void) = {lose_grown, lose_shrunk, lose_from_null, lose_array};
  static unsigned long turn;
  while (n-- > 0) {
    kinds[turn % 4]();
    if (turn % 4 == 3) {
      free_by_realloc();
      survive_failure();
    }
    turn++;
  }
}

static void keep(long n) { keep_blocks(n, 500); }

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, free_blocks, NULL};
  return serve(&p);
}
