/* Many small blocks, for the time and memory a look takes.
 * Usage: many BLOCKS THREADS table|list|shuffled
 *
 * Each block of 100 bytes holds a pointer to another one of its thread; each
 * thread loses one block in a thousand. The first pointers are kept in a table
 * (each block by itself), or are the ends of lists in the order of allocation,
 * or of lists in random order. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 100, ONE_LOST_IN = 1000 };

struct block {
  struct block *next;
  uint64_t number;
  char rest[SIZE - 16];
};

static long blocks, threads;
static char mode;
/* volatile: nothing reads them but a scan */
static struct block *volatile heads[64];
static struct block **volatile tables[64];

static uint64_t random_number(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void *fill(void *arg) {
  long me = (long)(intptr_t)arg, n = blocks / threads, kept = 0;
  size_t bytes = (size_t)n * sizeof(struct block *);
  struct block **all = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) _exit(70);
  for (long i = 0; i < n; i++) {
    struct block *b = malloc(sizeof *b);
    if (!b) _exit(70);
    memset(b, 0x11, sizeof *b);
    b->next = NULL;
    b->number = (uint64_t)i;
    if (i % ONE_LOST_IN != ONE_LOST_IN - 1) all[kept++] = b;
  }
  if (mode == 's') {
    uint64_t state = 88172645463325252u + (uint64_t)me;
    for (long i = kept - 1; i > 0; i--) {
      long k = (long)(random_number(&state) % (uint64_t)(i + 1));
      struct block *b = all[i];
      all[i] = all[k];
      all[k] = b;
    }
  }
  for (long i = 0; i + 1 < kept; i++) all[i]->next = all[i + 1];
  heads[me] = all[0];
  if (mode == 't')
    tables[me] = all;
  else
    munmap(all, bytes);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  blocks = atol(argv[1]);
  threads = atol(argv[2]);
  mode = argv[3][0];
  if (threads < 1 || threads > 64) return 2;
  pthread_t t[64];
  for (long i = 1; i < threads; i++)
    if (pthread_create(&t[i], NULL, fill, (void *)(intptr_t)i)) return 70;
  fill((void *)0);
  for (long i = 1; i < threads; i++) pthread_join(t[i], NULL);
  if (write(1, "ready\n", 6) != 6) return 70;
  char c;
  while (read(0, &c, 1) > 0) {
  }
  return 0;
}
