/* An allocator of its own on top of malloc: the blocks of a pool begin where
 * malloc's do. "get N", "put N", "grow" and so on answer "ok". */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

struct cell {
  struct cell *next;
  char room[504];
};
static struct cell *spare;
static int chunks;

NOINLINE static void refill(void) {
  struct cell *all = malloc(64 * sizeof *all);
  for (int i = 0; i < 64; i++) {
    all[i].next = spare;
    spare = &all[i];
  }
  chunks++;
}

NOINLINE static void *pool_get(size_t size) {
  if (size > sizeof(struct cell)) return 0;
  if (!spare) refill();
  struct cell *c = spare;
  spare = c->next;
  return c;
}

NOINLINE static void pool_put(int level, void *p) {
  struct cell *c = p;
  c->next = spare;
  spare = c;
  if (level) chunks += 0 * level;
}

NOINLINE static void *pool_array(size_t n, size_t size) {
  void *p = pool_get(n * size);
  if (p) memset(p, 0, n * size);
  return p;
}

NOINLINE static void *pool_resize(void *p, size_t size) {
  void *q = pool_get(size);
  if (!q) return 0;
  memcpy(q, p, 8);
  pool_put(0, p);
  return q;
}

/* Arguments on the stack, and floating point ones behind a count in al. */
NOINLINE static void *pool_many(int a, size_t size, int c, int d, int e, int f, int g, int h, int i, int j) {
  if (a != 1 || c != 3 || d != 4 || e != 5 || f != 6 || g != 7 || h != 8 || i != 9 || j != 10) abort();
  return pool_get(size);
}
NOINLINE static void *pool_named(size_t size, const char *format, ...) {
  va_list v;
  va_start(v, format);
  double x = va_arg(v, double);
  va_end(v);
  if (x != 2.5) abort();
  return pool_get(size);
}

NOINLINE __attribute__((naked)) void tiny(void) { __asm__("ret"); }

static void *got[1000];
static int n;

int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    int count = 0;
    if (sscanf(line, "get %d", &count) == 1) {
      while (count-- > 0) got[n++] = pool_get(40);
    } else if (sscanf(line, "put %d", &count) == 1) {
      while (count-- > 0) pool_put(1, got[--n]);
    } else if (!strncmp(line, "array", 5)) {
      got[n++] = pool_array(7, 11);
    } else if (!strncmp(line, "resize", 6)) {
      got[n - 1] = pool_resize(got[n - 1], 99);
      if (pool_resize(got[n - 1], 5000) != 0) return 3;
    } else if (!strncmp(line, "many", 4)) {
      got[n++] = pool_many(1, 123, 3, 4, 5, 6, 7, 8, 9, 10);
    } else if (!strncmp(line, "named", 5)) {
      got[n++] = pool_named(124, "%g", 2.5);
    } else if (!strncmp(line, "quit", 4)) {
      return 0;
    }
    tiny();
    puts("ok");
  }
  return chunks < 0;
}
