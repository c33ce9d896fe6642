/* Blocks that are reachable through tagged words only: type bits in the upper
 * 16 bits as interpreters box values in NaNs, and flags in the low 4. */
#include "fixture.h"

enum { MAX = 4096, SIZE = 80 };
static uint64_t words[MAX];
static int nwords;

static const uint64_t tags[] = {
    0xfff8000000000000u, /* a quiet NaN, as LuaJIT and SpiderMonkey box */
    0x0001000000000000u, /* a small type number */
    0x7ffc000000000003u, /* a NaN with flags in the low bits */
    0x0000000000000001u, /* a flag only, as in a red-black tree */
};

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(SIZE); /* want memory 80 */
    fill(p, SIZE);
    lose(p, SIZE);
  }
}

static void keep(long n) {
  for (; n > 0 && nwords < MAX; n--, nwords++) {
    void *p = malloc(SIZE);
    fill(p, SIZE);
    note(KEPT, p, SIZE);
    words[nwords] = (uint64_t)(uintptr_t)p | tags[nwords % 4];
  }
}

static void release(long n) {
  for (; n > 0 && nwords > 0; n--) {
    nwords--;
    void *p = (void *)(uintptr_t)(words[nwords] & ~tags[nwords % 4]);
    words[nwords] = 0;
    note(FREED, p, SIZE);
    free(p);
  }
}

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, release, NULL};
  return serve(&p);
}
