/* Blocks of several sizes, each lost alone. */
#include "fixture.h"

static NOINLINE void lose_small(void) {
  void *p = malloc(64); /* want memory 64 */
  fill(p, 64);
  lose(p, 64);
}

static NOINLINE void lose_request(void) {
  void *p = calloc(1, 400); /* want memory 400 */
  fill(p, 400);
  lose(p, 400);
}

static NOINLINE void lose_page(void) {
  void *p = malloc(5000); /* want memory 5000 */
  fill(p, 5000);
  lose(p, 5000);
}

static NOINLINE void lose_name(void) {
  char *p = strdup("a string of thirty-one letters"); /* want memory 31 */
  if (!p) fixture_die("strdup");
  lose(p, 31);
}

/* One of each in turn, with kept and freed neighbours between them, as the
 * heap of a real program has. */
static void leak(long n) {
  static void (*const kinds[])(void) = {lose_small, lose_request, lose_page, lose_name};
  static unsigned long turn;
  while (n-- > 0) {
    kinds[turn % 4]();
    if (turn % 8 == 3) keep_blocks(1, 64);
    if (turn % 16 == 5) {
      keep_blocks(3, 200);
      free_blocks(3);
    }
    turn++;
  }
}

static void keep(long n) { keep_blocks(n, 64); }

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, free_blocks, NULL};
  return serve(&p);
}
