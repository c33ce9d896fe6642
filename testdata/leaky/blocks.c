/* A heap of many blocks, all reachable. Usage: blocks [-n blocks] [-s size]
 * [-t threads that allocate them] [-l]. A table holds the blocks, and each
 * points to the one made before it; with -l there is no table but one list
 * through all blocks in random order, the worst case for a mark. Then it
 * waits. */
#include "fixture.h"

#include <pthread.h>

static long blocks = 1000000, size = 100, threads = 4, listed;
static void **table; /* in a mapping */
static void *head;

static void *work(void *arg) {
  long me = (long)(intptr_t)arg, n = blocks / threads;
  void **mine = table + me * n, *previous = NULL;
  for (long i = 0; i < n; i++) {
    void **p = (void **)malloc((size_t)size);
    if (!p) fixture_die("malloc");
    memset(p, 0x11, (size_t)size);
    p[0] = previous;
    mine[i] = previous = p;
  }
  return NULL;
}

/* Links all blocks in random order and forgets the table. */
static NOINLINE void make_list(void) {
  uint64_t random = 88172645463325252u;
  for (long i = blocks - 1; i > 0; i--) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    long k = (long)(random % (uint64_t)(i + 1));
    void *t = table[i];
    table[i] = table[k];
    table[k] = t;
  }
  for (long i = 0; i < blocks; i++) {
    *(void **)table[i] = head;
    head = table[i];
  }
  munmap(table, (size_t)blocks * sizeof *table);
}

int main(int argc, char **argv) {
  int option;
  while ((option = getopt(argc, argv, "n:s:t:l")) != -1) {
    switch (option) {
    case 'n': blocks = atol(optarg); break;
    case 's': size = atol(optarg); break;
    case 't': threads = atol(optarg); break;
    case 'l': listed = 1; break;
    default: return 2;
    }
  }
  if (size < 8 || threads < 1 || threads > 64 || blocks < threads) return 2;
  blocks -= blocks % threads;
  fixture_init();
  table =
      (void **)mmap(NULL, (size_t)blocks * sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (table == MAP_FAILED) fixture_die("mmap");
  pthread_t t[64];
  for (long i = 0; i < threads; i++)
    if (pthread_create(&t[i], NULL, work, (void *)(intptr_t)i)) fixture_die("thread");
  for (long i = 0; i < threads; i++) pthread_join(t[i], NULL);
  if (listed) make_list();
  static const struct program p = {NULL, NULL, NULL, NULL};
  return serve(&p);
}
