/* Aligned blocks from each of the functions that make them, large ones too. */
#include "fixture.h"

#include <malloc.h>

static NOINLINE void lose_posix(void) {
  void *p;
  if (posix_memalign(&p, 64, 192)) fixture_die("posix_memalign"); /* want memory 192 */
  fill(p, 192);
  lose(p, 192);
}

static NOINLINE void lose_c11(void) {
  void *p = aligned_alloc(4096, 8192); /* want memory 8192 */
  fill(p, 8192);
  lose(p, 8192);
}

static NOINLINE void lose_old(void) {
  void *p = memalign(256, 1000); /* want memory 1000 */
  fill(p, 1000);
  lose(p, 1000);
}

static NOINLINE void lose_page(void) {
  void *p = valloc(100); /* want memory 100 */
  fill(p, 100);
  lose(p, 100);
}

static NOINLINE void lose_mapped(void) {
  void *p = memalign(1 << 20, 512 << 10); /* want memory 524288 */
  if (!p) fixture_die("memalign");
  memset(p, 0xa5, 64);
  lose(p, 512 << 10);
}

static void leak(long n) {
  static void (*const kinds[])(void) = {lose_posix, lose_c11, lose_old, lose_page, lose_mapped};
  static unsigned long turn;
  while (n-- > 0) kinds[turn++ % 5]();
}

static void keep(long n) {
  while (n-- > 0) {
    void *p;
    if (posix_memalign(&p, 128, 640)) fixture_die("posix_memalign");
    fill(p, 640);
    hold(p, 640);
  }
}

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, free_blocks, NULL};
  return serve(&p);
}
