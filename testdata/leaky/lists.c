/* Singly linked lists of nodes with payloads, lost by losing their heads. */
#include "fixture.h"

struct node {
  struct node *next;
  char *text;
  uint64_t number[4];
};

enum { LENGTH = 10, TEXT = 120 };

static NOINLINE struct node *make(void) {
  struct node *head = NULL;
  for (uint64_t i = 0; i < LENGTH; i++) {
    struct node *n = (struct node *)malloc(sizeof *n); /* want memory 48 */
    fill(n, sizeof *n);
    n->text = (char *)malloc(TEXT); /* want memory 120 */
    fill(n->text, TEXT);
    n->next = head;
    head = n;
  }
  return head;
}

static NOINLINE void forget(struct node *head) {
#ifdef CLEAN
  while (head) {
    struct node *n = head;
    head = n->next;
    lose(n->text, TEXT);
    lose(n, sizeof *n);
  }
#else
  note(LOST, head, sizeof *head);
  note(INDIRECT, head->text, TEXT);
  for (struct node *n = head->next; n; n = n->next) {
    note(INDIRECT, n, sizeof *n);
    note(INDIRECT, n->text, TEXT);
  }
#endif
}

static struct node *kept;

static void leak(long n) {
  while (n-- > 0) forget(make());
}

static void keep(long n) {
  while (n-- > 0) {
    struct node *head = make(), *last = head;
    for (struct node *i = head; i; i = i->next) {
      note(KEPT, i, sizeof *i);
      note(KEPT, i->text, TEXT);
      last = i;
    }
    last->next = kept;
    kept = head;
  }
}

static void release(long n) {
  n *= LENGTH;
  while (n-- > 0 && kept) {
    struct node *i = kept;
    kept = i->next;
    note(FREED, i->text, TEXT);
    free(i->text);
    note(FREED, i, sizeof *i);
    free(i);
  }
}

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, release, NULL};
  return serve(&p);
}
