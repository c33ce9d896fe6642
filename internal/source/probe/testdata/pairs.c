/* Measures malloc/free pairs. A line "run THREADS DEPTH SIZE MILLISECONDS"
 * answers "ns X": the median over slices of time of what one pair takes, per
 * thread, at the bottom of DEPTH frames. SIZE 0: 16 to 271 bytes. "hold N SIZE"
 * keeps blocks, "drop" frees them. "fill N SIZE" keeps N blocks, "random ROUNDS"
 * then frees and allocates one of them at random each time and answers "ns X" of
 * a pair, "empty" frees all. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))

void *volatile sink;

struct job {
  int depth;
  size_t size;
  int slices;
  double *ns; /* of each slice */
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

enum { PAIRS = 20000 };

NOINLINE static void pairs(const struct job *j, double *ns) {
  double t = now();
  for (int i = 0; i < PAIRS; i++) {
    void *p = malloc(j->size ? j->size : 16 + (size_t)(i & 255));
    sink = p;
    free(p);
  }
  *ns = (now() - t) / PAIRS;
}

NOINLINE static int down(int n, const struct job *j) {
  char pad[32];
  memset(pad, n, sizeof pad);
  if (n > 0) return down(n - 1, j) + pad[n & 31];
  for (int i = 0; i < j->slices; i++) pairs(j, &j->ns[i]);
  return pad[n & 31];
}

static void *work(void *arg) {
  struct job *j = arg;
  /* main, down x n, pairs: three more than n, or in a thread four. */
  down(j->depth > 3 ? j->depth - 4 : 0, j);
  return 0;
}

static void **many;
static size_t nmany, size_many;

NOINLINE static void fill(void) {
  for (size_t i = 0; i < nmany; i++) many[i] = malloc(size_many);
}

NOINLINE static double shuffle(long rounds) {
  unsigned long r = 88172645463325252ul;
  double t = now();
  for (long n = 0; n < rounds; n++) {
    r ^= r << 13;
    r ^= r >> 7;
    r ^= r << 17;
    size_t i = r % nmany;
    free(many[i]);
    many[i] = malloc(size_many);
  }
  return (now() - t) / (double)rounds;
}

static int order(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    int threads, depth, ms;
    size_t size;
    static void *held[1000];
    static int nheld;
    if (sscanf(line, "hold %d %zu", &depth, &size) == 2) {
      while (depth-- > 0 && nheld < 1000) held[nheld++] = malloc(size);
      puts("ok");
      continue;
    }
    if (sscanf(line, "fill %zu %zu", &nmany, &size_many) == 2) {
      many = mmap(0, nmany * sizeof *many, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      fill();
      puts("ok");
      continue;
    }
    if (sscanf(line, "random %d", &ms) == 1) {
      printf("ns %.2f\n", shuffle(ms));
      continue;
    }
    if (!strncmp(line, "empty", 5)) {
      for (size_t i = 0; i < nmany; i++) free(many[i]);
      puts("ok");
      continue;
    }
    if (!strncmp(line, "drop", 4)) {
      while (nheld > 0) free(held[--nheld]);
      puts("ok");
      continue;
    }
    if (sscanf(line, "run %d %d %zu %d", &threads, &depth, &size, &ms) != 4) {
      if (!strncmp(line, "quit", 4)) return 0;
      puts("ok");
      continue;
    }
    int slices = ms * 2; /* a slice is about half a millisecond */
    double *all = calloc((size_t)threads * (size_t)slices, sizeof *all);
    pthread_t t[64];
    struct job j[64];
    for (int i = 0; i < threads; i++) {
      j[i] = (struct job){depth, size, slices, all + (size_t)i * (size_t)slices};
      pthread_create(&t[i], 0, work, &j[i]);
    }
    for (int i = 0; i < threads; i++) pthread_join(t[i], 0);
    qsort(all, (size_t)threads * (size_t)slices, sizeof *all, order);
    printf("ns %.2f\n", all[(size_t)threads * (size_t)slices / 2]);
    free(all);
  }
  return 0;
}
