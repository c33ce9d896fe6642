/* A program that fills its memory and writes to all of it, all the time, in
 * random order. Each page of each block holds words that must agree. "leak N"
 * loses blocks of 1000 bytes, "check" answers "ok" once every writer has moved
 * on. Usage: filler MEGABYTES THREADS */
enum { BLOCK = 64 << 10, PAGE = 4096, LOST_SIZE = 1000, MAX_THREADS = 256 };

#include "workers.h"

#include <pthread.h>

struct page {
  uint64_t a;
  uint64_t room[PAGE / 8 - 2];
  uint64_t b; /* ~a */
};

static char **blocks;
static long nblocks;

/* Each writer has its own share of the blocks. */
static void *work(void *arg) {
  long me = (long)(intptr_t)arg;
  unsigned seed = 31u + (unsigned)me;
  long mine = nblocks / nthreads;
  for (uint64_t n = 0;; n++) {
    if (mine > 0) {
      long i = me * mine + rand_r(&seed) % mine;
      struct page *p = (struct page *)(blocks[i] + 16) + rand_r(&seed) % (BLOCK / PAGE);
      if (p->b != ~p->a) broken = "a page has changed";
      p->a = n << 8;
      p->b = ~p->a;
    }
    if (n % 16 == 0) {
      struct timespec t = {0, mine > 0 ? 200000 : 20000000};
      nanosleep(&t, NULL);
    }
    atomic_fetch_add(&rounds[me], 1);
  }
  return NULL;
}

int main(int argc, char **argv) {
  static const struct program p = {leak, NULL, NULL, other};
  if (argc != 3) return 2;
  fixture_init();
  nblocks = atol(argv[1]) * ((1 << 20) / BLOCK);
  nthreads = atol(argv[2]);
  if (nthreads < 1 || nthreads > MAX_THREADS) return 2;
  blocks = (char **)calloc((size_t)nblocks + 1, sizeof *blocks);
  for (long i = 0; i < nblocks; i++) {
    blocks[i] = (char *)malloc(BLOCK + 16);
    if (!blocks[i]) fixture_die("malloc");
    for (long j = 0; j < BLOCK / PAGE; j++) {
      struct page *page = (struct page *)(blocks[i] + 16) + j;
      page->a = 0;
      page->b = ~(uint64_t)0;
    }
  }
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 << 10);
  for (long i = 0; i < nthreads; i++) {
    pthread_t t;
    if (pthread_create(&t, &small, work, (void *)(intptr_t)i)) fixture_die("thread");
  }
  return serve(&p);
}
