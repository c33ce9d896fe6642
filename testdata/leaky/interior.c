/* Blocks that stay reachable through pointers into their middle only: a
 * member, the last byte. The lost ones have none. */
#include "fixture.h"

struct record {
  uint64_t header[4];
  struct {
    uint64_t next, previous;
  } links;
  char data[100];
};

enum { MAX = 4096 };
static void *members[MAX];
static int nmembers;

static size_t offset(int i) {
  static const size_t offsets[] = {__builtin_offsetof(struct record, links), 8,
                                   __builtin_offsetof(struct record, data) + 1, sizeof(struct record) - 1};
  return offsets[i % 4];
}

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(sizeof(struct record)); /* want memory 152 */
    fill(p, sizeof(struct record));
    lose(p, sizeof(struct record));
  }
}

static void keep(long n) {
  for (; n > 0 && nmembers < MAX; n--, nmembers++) {
    char *p = (char *)malloc(sizeof(struct record));
    fill(p, sizeof(struct record));
    note(KEPT, p, sizeof(struct record));
    members[nmembers] = p + offset(nmembers);
  }
}

static void release(long n) {
  for (; n > 0 && nmembers > 0; n--) {
    nmembers--;
    char *p = (char *)members[nmembers] - offset(nmembers);
    members[nmembers] = NULL;
    note(FREED, p, sizeof(struct record));
    free(p);
  }
}

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, release, NULL};
  return serve(&p);
}
