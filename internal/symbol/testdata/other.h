#ifndef OTHER_H
#define OTHER_H
#include <stdlib.h>
#include <string.h>
int twice(int n);
char *thrice(const char *s);
static inline char *joined(const char *a, const char *b) {
  char *p = malloc(strlen(a) + strlen(b) + 1);
  strcpy(p, a);
  return strcat(p, b);
}
#endif
