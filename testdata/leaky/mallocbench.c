/* What a pair of malloc and free costs, in CPU time of the thread that makes
 * it: threads allocate blocks of 16 to 512 bytes from one place, FRAMES calls
 * below the thread's first function, and free each 64 blocks later.
 * Usage: mallocbench [-t threads] [-f frames].
 *
 *   measure MS  ->  "ns X": nanoseconds per pair, over all threads, in the
 *                   next MS milliseconds */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

enum { MAX_THREADS = 64, RING = 64, BATCH = 1024 };

struct counter {
  uint64_t pairs, ns; /* written by its thread only */
} __attribute__((aligned(128)));

static struct counter counters[MAX_THREADS];
static long threads = 1, frames = 5;

static uint64_t thread_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static NOINLINE void allocate(char **ring, unsigned *random) {
  unsigned r = *random;
  for (int i = 0; i < BATCH; i++) {
    r = r * 1664525u + 1013904223u;
    char **slot = &ring[i % RING];
    free(*slot);
    char *p = (char *)malloc(16 + (r >> 16) % 497);
    *p = (char)r;
    *slot = p;
  }
  *random = r;
}

/* The asm after the call keeps it from becoming a jump. */
static NOINLINE void descend(long depth, char **ring, unsigned *random) {
  if (depth > 1)
    descend(depth - 1, ring, random);
  else
    allocate(ring, random);
  __asm__ volatile("");
}

static void *work(void *arg) {
  struct counter *c = (struct counter *)arg;
  char *ring[RING] = {NULL};
  unsigned random = (unsigned)(c - counters) * 77777u + 1;
  for (;;) {
    /* work, descend..., allocate: as many frames as were asked for. */
    descend(frames - 2, ring, &random);
    __atomic_store_n(&c->pairs, c->pairs + BATCH, __ATOMIC_RELAXED);
    __atomic_store_n(&c->ns, thread_ns(), __ATOMIC_RELAXED);
  }
  return NULL;
}

static void totals(uint64_t *pairs, uint64_t *ns) {
  *pairs = *ns = 0;
  for (long i = 0; i < threads; i++) {
    *pairs += __atomic_load_n(&counters[i].pairs, __ATOMIC_RELAXED);
    *ns += __atomic_load_n(&counters[i].ns, __ATOMIC_RELAXED);
  }
}

static void other(const char *line) {
  long ms;
  if (sscanf(line, "measure %ld", &ms) != 1) {
    say("violation: unknown command\n");
    return;
  }
  uint64_t pairs0, ns0, pairs1, ns1;
  char text[64];
  totals(&pairs0, &ns0);
  usleep((useconds_t)ms * 1000);
  totals(&pairs1, &ns1);
  double pairs = (double)(pairs1 - pairs0);
  snprintf(text, sizeof text, "ns %.2f\n", pairs > 0 ? (double)(ns1 - ns0) / pairs : -1.0);
  say(text);
}

int main(int argc, char **argv) {
  int option;
  while ((option = getopt(argc, argv, "t:f:")) != -1) {
    if (option == 't')
      threads = atol(optarg);
    else if (option == 'f')
      frames = atol(optarg);
    else
      return 2;
  }
  if (threads < 1 || threads > MAX_THREADS || frames < 3) {
    dprintf(2, "usage: mallocbench [-t 1..%d] [-f 3..]\n", MAX_THREADS);
    return 2;
  }
  fixture_init();
  for (long i = 0; i < threads; i++) {
    pthread_t t;
    if (pthread_create(&t, NULL, work, &counters[i])) fixture_die("thread");
  }
  static const struct program p = {NULL, NULL, NULL, other};
  return serve(&p);
}
