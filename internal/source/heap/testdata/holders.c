/* Blocks that variables of different kinds hold, and what is lost in knots.
 * "knots N" loses, N times: a ring of three with a tail of two, two rings that
 * one block leads into, and a block that two lost ones share. */
#include "fixture.h"

#include <pthread.h>

struct node {
  struct node *left, *right;
  char data[48];
};

/* As in epoll_event, the pointers are at multiples of four: 200 bytes each. */
volatile struct __attribute__((packed)) {
  int number;
  void *block;
} packed[100];

struct node *volatile list_of_nodes;          /* holds a chain of 64 bytes */
void *volatile table_of_blocks[1000];         /* holds 3000 bytes each */
static __thread void *volatile local_block;   /* holds 5000 bytes */

static NOINLINE struct node *node(struct node *left, struct node *right) {
  struct node *n = (struct node *)malloc(sizeof *n);
  fill(n, sizeof *n);
  n->left = left;
  n->right = right;
  return n;
}

static void keep(long n) {
  for (long i = 0; i < n; i++) {
    list_of_nodes = node(list_of_nodes, NULL);
    note(KEPT, list_of_nodes, sizeof(struct node));
    if (i < 1000) {
      void *p = malloc(3000);
      fill(p, 3000);
      note(KEPT, p, 3000);
      table_of_blocks[i] = p;
    }
  }
  local_block = malloc(5000);
  fill(local_block, 5000);
  note(KEPT, local_block, 5000);
}

static NOINLINE void all(enum fate first, struct node **nodes, int n) {
  for (int i = 0; i < n; i++)
    note(i == 0 ? first : INDIRECT, nodes[i], sizeof(struct node));
}

static void leak(long n) {
  while (n-- > 0) {
    /* A ring a -> b -> c -> a, and c -> d -> e. Any of a, b, c may lead. */
    struct node *e = node(NULL, NULL), *d = node(e, NULL), *c = node(NULL, d),
                *b = node(c, NULL), *a = node(b, NULL);
    c->left = a;
    struct node *ring[] = {a, b, c, d, e};
    for (int i = 0; i < 3; i++) note(LOST, ring[i], sizeof *a);
    all(INDIRECT, ring + 3, 2);
    /* h leads into two rings, f and g. */
    struct node *f = node(NULL, NULL), *g = node(NULL, NULL), *h = node(f, g);
    f->left = f->right = node(f, NULL);
    g->left = node(g, g);
    struct node *two[] = {h, f, f->left, g, g->left};
    all(LOST, two, 5);
    /* i and j share k. */
    struct node *k = node(NULL, NULL), *i = node(k, NULL), *j = node(k, k);
    struct node *shared[] = {i, k};
    all(LOST, shared, 2);
    note(LOST, j, sizeof *j);
  }
}

/* Keeps a block in memory that a child does not get. */
static NOINLINE void hold_unforked(int advice) {
  void **page = (void **)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED || madvise(page, 4096, advice)) fixture_die("madvise");
  page[7] = malloc(900);
  fill(page[7], 900);
  note(KEPT, page[7], 900);
}

static void other(const char *line) {
  long n;
  if (strcmp(line, "unforked") == 0) {
    hold_unforked(MADV_DONTFORK);
    hold_unforked(MADV_WIPEONFORK);
    say("ok\n");
    return;
  }
  if (sscanf(line, "packed %ld", &n) != 1 || n > 100) {
    say("violation: unknown command\n");
    return;
  }
  for (long i = 0; i < n; i++) {
    packed[i].block = malloc(200);
    fill(packed[i].block, 200);
    note(KEPT, packed[i].block, 200);
  }
  say("ok\n");
}

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, NULL, other};
  return serve(&p);
}
