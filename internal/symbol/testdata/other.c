#include "other.h"

#include <stdio.h>

static inline __attribute__((always_inline)) int shout(int n) { return printf("%d\n", n); }

int twice(int n) { return shout(n) + n; }

char *thrice(const char *s) {
  char *once = joined(s, s);
  char *all = joined(once, s);
  free(once);
  return all;
}
