/* What a pair of malloc and free costs the thread that makes it, in CPU time and
 * by the clock: threads allocate blocks of 16 to 512 bytes from one place, FRAMES calls
 * below the thread's first function, and free each 64 blocks later, or with -l
 * the last one first: some blocks, then all of them in the opposite order.
 * Usage: mallocbench [-t threads] [-f frames] [-l].
 *
 *   measure MS  ->  "ns X wall Y" per pair, over all threads, in the next MS
 *                   milliseconds
 *   fill N      ->  "ok": frees what an earlier fill left and allocates N blocks
 *   random N    ->  "ns X wall Y" per pair: N times frees one of them, any, and
 *                   allocates another
 *
 * The main thread fills, so that -t 0 leaves it alone. */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

enum { MAX_THREADS = 64, RING = 64, BATCH = 1024, NEST = 16 };

struct counter {
  uint64_t pairs, ns; /* written by its thread only */
} __attribute__((aligned(128)));

static struct counter counters[MAX_THREADS];
static long threads = 1, frames = 5, last_first;
static char **held; /* what refill made */
static size_t nheld;
static unsigned held_random = 1;

static uint64_t ns_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned next(unsigned *random) { return *random = *random * 1664525u + 1013904223u; }

static char *one(unsigned *random) {
  unsigned r = next(random);
  char *p = (char *)malloc(16 + (r >> 16) % 497);
  if (!p) fixture_die("malloc");
  *p = (char)r;
  return p;
}

static NOINLINE void allocate(char **ring, unsigned *random) {
  for (int i = 0; i < BATCH; i++) {
    char **slot = &ring[i % RING];
    free(*slot);
    *slot = one(random);
  }
}

static NOINLINE void allocate_nested(char **ring, unsigned *random) {
  for (int i = 0; i < BATCH / NEST; i++) {
    for (int n = 0; n < NEST; n++) ring[n] = one(random);
    for (int n = NEST; n > 0; n--) free(ring[n - 1]);
  }
}

static NOINLINE void fill_held(char **blocks, unsigned *random) {
  for (size_t i = 0; i < nheld; i++) blocks[i] = one(random);
}

static NOINLINE void replace_held(char **blocks, unsigned *random) {
  for (int i = 0; i < BATCH; i++) {
    size_t any = ((uint64_t)next(random) * nheld) >> 32;
    free(blocks[any]);
    blocks[any] = one(random);
  }
}

typedef void (*job)(char **blocks, unsigned *random);

/* The asm after the call keeps it from becoming a jump. */
static NOINLINE void descend(long depth, job what, char **blocks, unsigned *random) {
  if (depth > 1)
    descend(depth - 1, what, blocks, random);
  else
    what(blocks, random);
  __asm__ volatile("");
}

static void *work(void *arg) {
  struct counter *c = (struct counter *)arg;
  char *ring[RING] = {NULL};
  unsigned random = (unsigned)(c - counters) * 77777u + 1;
  for (;;) {
    /* work, descend..., allocate: as many frames as were asked for. */
    descend(frames - 2, last_first ? allocate_nested : allocate, ring, &random);
    __atomic_store_n(&c->pairs, c->pairs + BATCH, __ATOMIC_RELAXED);
    __atomic_store_n(&c->ns, ns_of(CLOCK_THREAD_CPUTIME_ID), __ATOMIC_RELAXED);
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

static void say_ns(uint64_t pairs, uint64_t ns, uint64_t wall) {
  char text[64];
  if (pairs == 0) fixture_die("no pairs");
  snprintf(text, sizeof text, "ns %.2f wall %.2f\n", (double)ns / (double)pairs, (double)wall / (double)pairs);
  say(text);
}

static void measure(long ms) {
  uint64_t pairs0, ns0, pairs1, ns1, began = ns_of(CLOCK_MONOTONIC);
  totals(&pairs0, &ns0);
  do {
    usleep((useconds_t)ms * 1000);
    totals(&pairs1, &ns1);
  } while (pairs1 == pairs0);
  say_ns(pairs1 - pairs0, ns1 - ns0, (ns_of(CLOCK_MONOTONIC) - began) * (uint64_t)threads);
}

static NOINLINE void refill(size_t n) {
  for (size_t i = 0; i < nheld; i++) free(held[i]);
  if (held) munmap(held, nheld * sizeof *held);
  nheld = n;
  held = (char **)mmap(NULL, n * sizeof *held, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (held == MAP_FAILED) fixture_die("mmap");
  descend(frames - 2, fill_held, held, &held_random);
}

static NOINLINE void replace(long n) {
  uint64_t pairs = 0, began = ns_of(CLOCK_MONOTONIC), ns = ns_of(CLOCK_THREAD_CPUTIME_ID);
  for (; pairs < (uint64_t)n; pairs += BATCH) descend(frames - 2, replace_held, held, &held_random);
  say_ns(pairs, ns_of(CLOCK_THREAD_CPUTIME_ID) - ns, ns_of(CLOCK_MONOTONIC) - began);
}

static void other(const char *line) {
  long n;
  if (sscanf(line, "measure %ld", &n) == 1 && threads > 0) {
    measure(n);
  } else if (sscanf(line, "fill %ld", &n) == 1 && n > 0) {
    refill((size_t)n);
    say("ok\n");
  } else if (sscanf(line, "random %ld", &n) == 1 && n > 0 && nheld > 0) {
    replace(n);
  } else {
    say("violation: unknown command\n");
  }
}

int main(int argc, char **argv) {
  int option;
  while ((option = getopt(argc, argv, "t:f:l")) != -1) {
    if (option == 't')
      threads = atol(optarg);
    else if (option == 'f')
      frames = atol(optarg);
    else if (option == 'l')
      last_first = 1;
    else
      return 2;
  }
  if (threads < 0 || threads > MAX_THREADS || frames < 3) {
    dprintf(2, "usage: mallocbench [-t 0..%d] [-f 3..] [-l]\n", MAX_THREADS);
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
