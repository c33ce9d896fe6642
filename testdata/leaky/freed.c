/* Freed blocks in every place where glibc keeps them - thread cache, fast bins,
 * unsorted, small and large bins, merged into the top, unmapped - beside lost
 * and kept ones. Freed blocks still hold pointers to lost ones: a freed block
 * must keep nothing alive, and must not be called lost itself. */
#include "fixture.h"

struct group {
  size_t size;
  int count;
};

/* More than 7 of a size overflow the thread cache; above 1032 bytes blocks go
 * straight to the unsorted bin. */
static const struct group groups[] = {
    {24, 20},   {40, 20},  {104, 20}, {120, 20},  {200, 20},  {520, 20},
    {1000, 20}, {1200, 6}, {3000, 6}, {20000, 4}, {70000, 4}, {300000, 2},
};

static NOINLINE void round_of(const struct group *g) {
  void *freed[32];
  for (int i = 0; i < g->count; i++) {
    freed[i] = malloc(g->size);
    fill(freed[i], g->size);
    /* What separates them, lost or kept, keeps free from merging them. */
    if (i % 4 == 1) {
      void *lost = malloc(g->size + 8); /* want memory */
      fill(lost, g->size + 8);
      /* Behind the words that the allocator writes into a freed block. */
      if (g->size >= 64) memcpy((char *)freed[i] + 48, &lost, sizeof lost);
      lose(lost, g->size + 8);
    } else if (i % 2 == 0) {
      keep_blocks(1, 32);
    }
  }
  for (int i = 0; i < g->count; i++) {
    note(FREED, freed[i], g->size);
    free(freed[i]);
  }
}

static void leak(long n) {
  while (n-- > 0)
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) round_of(&groups[i]);
}

/* A large request sorts the unsorted bin into the small and large ones. */
static void keep(long n) { keep_blocks(n, 2000); }

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, free_blocks, NULL};
  return serve(&p);
}
