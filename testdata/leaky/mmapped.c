/* Blocks above the mmap threshold, each a mapping of its own; some aligned, so
 * that the block does not start right behind its chunk's header. Only some of
 * their pages are touched. */
#include "fixture.h"

#include <malloc.h>

enum { LARGE = 200 << 10, ALIGNED = 300 << 10, THRESHOLD = 128 << 10 };

static void touch(char *p, size_t size) {
  if (!p) fixture_die("allocate");
  memset(p, 0xa5, 64);
  memset(p + size - 64, 0xa5, 64);
}

static NOINLINE void lose_large(void) {
  char *p = (char *)malloc(LARGE); /* want memory 204800 */
  touch(p, LARGE);
  lose(p, LARGE);
}

static NOINLINE void lose_zeroed(void) {
  char *p = (char *)calloc(3, THRESHOLD); /* want memory 393216 */
  touch(p, 3 * THRESHOLD);
  lose(p, 3 * THRESHOLD);
}

static NOINLINE void lose_aligned(void) {
  char *p = (char *)aligned_alloc(64 << 10, ALIGNED); /* want memory 307200 */
  touch(p, ALIGNED);
  lose(p, ALIGNED);
}

static NOINLINE void lose_grown(void) {
  char *p = (char *)malloc(LARGE);
  touch(p, LARGE);
  p = (char *)realloc(p, 4 * LARGE); /* want memory 819200 */
  touch(p, 4 * LARGE);
  lose(p, 4 * LARGE);
}

static void leak(long n) {
  static void (*const kinds[])(void) = {lose_large, lose_zeroed, lose_aligned, lose_grown};
  static unsigned long turn;
  while (n-- > 0) kinds[turn++ % 4]();
}

static void keep(long n) {
  while (n-- > 0) {
    char *p = (char *)malloc(LARGE + 4096 * (n % 3));
    touch(p, LARGE);
    hold(p, LARGE + 4096 * (n % 3));
  }
}

int main(void) {
  fixture_init();
  /* A fixed threshold: free would else raise it to what was freed. */
  mallopt(M_MMAP_THRESHOLD, THRESHOLD);
  static const struct program p = {leak, keep, free_blocks, NULL};
  return serve(&p);
}
