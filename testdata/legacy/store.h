/* The library that all programs here share: words and how often each came. */
#ifndef STORE_H
#define STORE_H

#include <stddef.h>

enum { NAME_SIZE = 32 };

struct item {
  char *name; /* of NAME_SIZE bytes */
  long count;
  struct item *next;
};

struct store {
  struct item *first;
  size_t items;
};

struct store *store_new(void);
void store_add(struct store *s, const char *name);
void store_free(struct store *s);

/* Stops the program when memory has run out. */
void *checked(void *p);

/* Ends the use of a block that the program forgets to free. Compiled with
 * -DCLEAN, it is freed. */
void forget(void *p);

#endif
