/* Rings of nodes that point to each other, lost as a whole. Which node of a
 * lost ring counts as the direct loss is the finder's choice: the list names
 * the first one made. Every second ring has a tail that only it points to. */
#include "fixture.h"

struct node {
  struct node *next, *previous;
  char *tail;
  uint64_t number[3];
};

enum { LENGTH = 5, TAIL = 300 };

static NOINLINE struct node *make(int tailed) {
  struct node *first = NULL, *last = NULL;
  for (int i = 0; i < LENGTH; i++) {
    struct node *n = (struct node *)malloc(sizeof *n); /* want memory 48 */
    fill(n, sizeof *n);
    n->tail = NULL;
    if (!first) {
      first = n;
    } else {
      last->next = n;
      n->previous = last;
    }
    last = n;
  }
  last->next = first;
  first->previous = last;
  if (tailed) {
    last->tail = (char *)malloc(TAIL); /* want memory 300 */
    fill(last->tail, TAIL);
  }
  return first;
}

static NOINLINE void forget(struct node *first) {
  struct node *n = first;
  do {
    struct node *next = n->next;
#ifdef CLEAN
    if (n->tail) lose(n->tail, TAIL);
    lose(n, sizeof *n);
#else
    note(n == first ? LOST : INDIRECT, n, sizeof *n);
    if (n->tail) note(INDIRECT, n->tail, TAIL);
#endif
    n = next;
  } while (n != first);
}

static struct node *kept[1000];
static int nkept;

static void leak(long n) {
  while (n-- > 0) forget(make(n % 2 == 0));
}

static void keep(long n) {
  while (n-- > 0 && nkept < 1000) {
    struct node *first = kept[nkept++] = make(1), *i = first;
    do {
      note(KEPT, i, sizeof *i);
      if (i->tail) note(KEPT, i->tail, TAIL);
      i = i->next;
    } while (i != first);
  }
}

static void release(long n) {
  while (n-- > 0 && nkept > 0) {
    struct node *first = kept[--nkept], *i = first;
    kept[nkept] = NULL;
    do {
      struct node *next = i->next;
      if (i->tail) {
        note(FREED, i->tail, TAIL);
        free(i->tail);
      }
      note(FREED, i, sizeof *i);
      free(i);
      i = next;
    } while (i != first);
  }
}

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, release, NULL};
  return serve(&p);
}
