/* Threads that do nothing but allocate, resize and free, and lose nothing.
 * Usage: hammer THREADS */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PLACES = 3000, THREADS = 16, SHARED = 64 };

struct block {
  size_t size;
  struct block *inner; /* half of the blocks hold another one */
};

static struct block *volatile places[THREADS][PLACES];
static struct block *_Atomic shared[SHARED]; /* freed by another thread */

static uint64_t next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static size_t some_size(uint64_t r) {
  if (r % 1000 == 0) return 150000 + r % 100000;
  if (r % 50 == 0) return 2000 + r % 9000;
  return sizeof(struct block) + r % 600;
}

static void drop(struct block *b) {
  if (!b) return;
  struct block *inner = b->inner;
  free(b);
  free(inner);
}

static void *work(void *arg) {
  long me = (long)(intptr_t)arg;
  uint64_t state = 88172645463325252u + 977u * (uint64_t)me;
  for (;;) {
    uint64_t r = next(&state), i = r % PLACES, what = (r >> 32) % 16;
    struct block *b = places[me][i];
    if (!b) {
      size_t size = some_size(r >> 16);
      b = what == 0 ? memalign(64, size) : malloc(size);
      if (!b) _exit(70);
      b->size = size;
      b->inner = NULL;
      places[me][i] = b;
      if (what & 1) {
        struct block *inner = malloc(some_size(r >> 20));
        inner->size = 0;
        inner->inner = NULL;
        b->inner = inner;
      }
    } else if (what < 3) {
      size_t size = some_size(r >> 24);
      b = realloc(b, size);
      if (!b) _exit(70);
      places[me][i] = b;
      b->size = size;
    } else if (what == 3) {
      places[me][i] = NULL;
      drop(__atomic_exchange_n((struct block **)&shared[i % SHARED], b,
                               __ATOMIC_SEQ_CST));
    } else {
      places[me][i] = NULL;
      drop(b);
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  long threads = argc > 1 ? atol(argv[1]) : 1;
  if (threads < 1 || threads > THREADS) return 2;
  for (long i = 1; i < threads; i++) {
    pthread_t t;
    if (pthread_create(&t, NULL, work, (void *)(intptr_t)i)) return 70;
  }
  if (write(1, "ready\n", 6) != 6) return 70;
  work((void *)0);
}
