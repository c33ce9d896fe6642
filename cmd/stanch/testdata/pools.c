/* An allocator of a program's own: 100 blocks of 48 bytes, of which every fifth
 * is not given back. */
#include <stddef.h>

static char arena[1 << 20];
static size_t used;
static void *unused;

__attribute__((noinline)) void *pool_get(size_t size) {
  void *p = unused;
  if (p) {
    unused = *(void **)p;
  } else {
    p = arena + used;
    used += (size + 15) & ~(size_t)15;
  }
  return p;
}

__attribute__((noinline)) void pool_put(void *p) {
  *(void **)p = unused;
  unused = p;
}

__attribute__((noinline)) static void work(int i) {
  void *p = pool_get(48);
  if (i % 5) pool_put(p);
}

int main(void) {
  for (int i = 0; i < 100; i++) work(i);
  return 0;
}
