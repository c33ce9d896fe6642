/* Loses blocks of one size from one call site and churns others. Obeys lines
 * on stdin; see the test. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

void *volatile sink;
static volatile int kept;

NOINLINE static void *leaf(size_t n) {
  void *p = malloc(n);
  sink = p;
  return p;
}

/* A chain of frames without frame pointers that the compiler cannot flatten. */
NOINLINE static void *deep(int n, size_t size) {
  char pad[64];
  memset(pad, n, sizeof pad);
  void *p = n > 0 ? deep(n - 1, size) : leaf(size);
  kept += pad[n & 63];
  return p;
}

NOINLINE static void lose(int n) {
  for (int i = 0; i < n; i++) deep(15, 400);
  kept++;
}

NOINLINE static void churn(int n) {
  for (int i = 0; i < n; i++) {
    char *p = leaf(100 + i % 1000);
    p = realloc(p, 50 + i % 3000);
    sink = p;
    char *q = calloc(1 + i % 7, 40);
    sink = q;
    void *r = 0;
    if (posix_memalign(&r, 64, 200 + i % 100)) abort();
    sink = r;
    free(q);
    free(p);
    free(r);
    sink = aligned_alloc(32, 320);
    free(sink);
  }
  kept++;
}

int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    int n = 0;
    if (sscanf(line, "lose %d", &n) == 1)
      lose(n);
    else if (sscanf(line, "churn %d", &n) == 1)
      churn(n);
    else if (!strncmp(line, "quit", 4))
      return 0;
    puts("ok");
  }
  return 0;
}
