#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *checked(void *p) {
  if (!p) {
    perror("allocate");
    exit(70);
  }
  return p;
}

void forget(void *p) {
#ifdef CLEAN
  free(p);
#else
  (void)p;
#endif
}

struct store *store_new(void) {
  return checked(calloc(1, sizeof(struct store)));
}

/* Counts a word. The copy of one that is known already is forgotten. */
void store_add(struct store *s, const char *name) {
  char *copy = checked(malloc(NAME_SIZE)); /* want memory 32 */
  snprintf(copy, NAME_SIZE, "%s", name);
  for (struct item *i = s->first; i; i = i->next) {
    if (strcmp(i->name, copy) == 0) {
      i->count++;
      forget(copy);
      return;
    }
  }
  struct item *i = checked(malloc(sizeof *i));
  *i = (struct item){copy, 1, s->first};
  s->first = i;
  s->items++;
}

void store_free(struct store *s) {
  while (s->first) {
    struct item *i = s->first;
    s->first = i->next;
    free(i->name);
    free(i);
  }
  free(s);
}
