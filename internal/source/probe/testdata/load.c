/* Four threads that allocate all the time in every way and know each byte of
 * each block. "check" answers "ok N operations" once every thread has done a
 * thousand more, or the first violation. "rest" and "work" switch the load. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, BLOCKS = 300 };

static const char *volatile violation;
static volatile int resting;
static volatile unsigned long done[THREADS];

struct block {
  unsigned char *p;
  size_t size;
  unsigned char fill;
};

static unsigned next(unsigned *seed) { return *seed = *seed * 1664525u + 1013904223u; }

static void expect(int ok, const char *what) {
  if (!ok && !violation) violation = what;
}

static void whole(const struct block *b) {
  for (size_t i = 0; i < b->size; i += 61) expect(b->p[i] == b->fill, "a block changed");
  if (b->size) expect(b->p[b->size - 1] == b->fill, "the end of a block changed");
  expect(malloc_usable_size(b->p) >= b->size, "malloc_usable_size");
}

static size_t some(unsigned *seed) {
  unsigned r = next(seed) >> 8;
  switch (r & 15) {
  case 0: return r % 200000;
  case 1: return r % 8000;
  case 2: return 0;
  default: return r % 600;
  }
}

static void once(struct block *b, unsigned *seed) {
  size_t n = some(seed);
  errno = 4711;
  if (!b->p) {
    void *p = 0;
    switch (next(seed) >> 28) {
    case 0: expect(posix_memalign(&p, 64, n) == 0, "posix_memalign"); break;
    case 1: p = aligned_alloc(32, (n + 31) & ~31ul); break;
    case 2: p = memalign(256, n); break;
    case 3:
    case 4:
      p = calloc(n, 1);
      for (size_t i = 0; p && i < n; i += 61) expect(((char *)p)[i] == 0, "calloc");
      break;
    case 5: p = realloc(0, n); break;
    case 6: p = reallocarray(0, n, 1); break;
    default: p = malloc(n);
    }
    expect(p != 0, "no memory");
    expect(errno == 4711, "errno");
    b->p = p;
  } else {
    whole(b);
    switch (next(seed) >> 29) {
    case 0:
    case 1:
    case 2: {
      size_t keep = n < b->size ? n : b->size;
      if (n == 0) n = 1;
      unsigned char *p = realloc(b->p, n);
      expect(p != 0, "realloc");
      for (size_t i = 0; i < keep; i += 61) expect(p[i] == b->fill, "realloc lost bytes");
      b->p = p;
      break;
    }
    case 3:
      /* A realloc that fails keeps its block. */
      expect(realloc(b->p, (size_t)1 << 61) == 0 && errno == ENOMEM, "realloc of 2^61 bytes");
      whole(b);
      return;
    default:
      free(b->p);
      expect(errno == 4711, "errno after free");
      b->p = 0;
      return;
    }
  }
  b->size = n;
  b->fill = (unsigned char)next(seed);
  memset(b->p, b->fill, n);
}

static void *work(void *arg) {
  unsigned long me = (unsigned long)(uintptr_t)arg;
  unsigned seed = (unsigned)me * 77 + 1;
  struct block blocks[BLOCKS] = {{0, 0, 0}};
  for (;;) {
    while (resting) usleep(1000);
    once(&blocks[(next(&seed) >> 8) % BLOCKS], &seed);
    done[me]++;
  }
  return 0;
}

int main(void) {
  char line[100];
  pthread_t t;
  setvbuf(stdout, 0, _IOLBF, 0);
  for (unsigned long i = 0; i < THREADS; i++) pthread_create(&t, 0, work, (void *)(uintptr_t)i);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    if (!strncmp(line, "quit", 4)) return violation != 0;
    if (!strncmp(line, "rest", 4)) resting = 1;
    if (!strncmp(line, "work", 4)) resting = 0;
    if (!strncmp(line, "check", 5)) {
      unsigned long from[THREADS], sum = 0;
      for (int i = 0; i < THREADS; i++) from[i] = done[i];
      for (int i = 0; i < THREADS; i++)
        while (done[i] < from[i] + 1000 && !violation) usleep(1000);
      for (int i = 0; i < THREADS; i++) sum += done[i];
      if (violation)
        printf("violation: %s\n", violation);
      else
        printf("ok %lu operations\n", sum);
      continue;
    }
    puts("ok");
  }
  return 0;
}
