/* Calls at every depth of inlining, for a comparison with addr2line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "other.h"

struct conn {
  char *name;
  struct conn *next;
};

static struct conn *all;
int counter_of_calls = 3;
static char scratch[4096];
char big_table[1 << 16];

static inline char *copy(const char *s) {
  char *p = malloc(strlen(s) + 1);
  if (!p) abort();
  return strcpy(p, s);
}

static inline __attribute__((always_inline)) struct conn *fresh(const char *name) {
  struct conn *c = calloc(1, sizeof *c);
  c->name = copy(name);
  {
    struct conn *old = all;
    c->next = old;
    all = c;
  }
  return c;
}

static inline __attribute__((always_inline)) struct conn *pair(const char *a, const char *b) {
  fresh(a);
  return fresh(b);
}

__attribute__((noinline)) static struct conn *open_all(int n) {
  struct conn *last = 0;
  for (int i = 0; i < n; i++) {
    snprintf(scratch, sizeof scratch, "c%d", i);
    last = i % 2 ? pair(scratch, "odd") : fresh(scratch);
  }
  return last;
}

__attribute__((noinline)) void unlikely_path(int n) {
  if (__builtin_expect(n > 100, 0)) {
    fprintf(stderr, "too many: %d\n", n);
    abort();
  }
  counter_of_calls += n;
  big_table[n] = (char)twice(n);
}

__attribute__((noinline)) int named(int n) { return open_all(n)->name[0] + counter_of_calls; }
int also_named(int n) __attribute__((alias("named")));
static int local_alias(int n) __attribute__((alias("named"), used));

int main(int argc, char **argv) {
  unlikely_path(argc);
  printf("%d %s\n", named(argc + 2) + also_named(2), thrice(argv[0]));
  return 0;
}
