/* A main arena whose memory is not one piece. "foreign N" moves the break by N
 * bytes behind malloc's back, as an own allocator would, and keeps a block by a
 * pointer there; "blocked" puts a mapping behind the break, so that malloc must
 * go on elsewhere. */
#include "fixture.h"

enum { SIZE = 1500 };

static NOINLINE void *make(void) {
  void *p = malloc(SIZE);
  fill(p, SIZE);
  return p;
}

static void leak(long n) {
  while (n-- > 0) {
    void *p = make();
    lose(p, SIZE);
    keep_blocks(1, 700);
  }
}

static void keep(long n) { keep_blocks(n, SIZE); }

static NOINLINE void foreign(long bytes) {
  char *mine = (char *)sbrk(bytes);
  if (mine == (char *)-1) fixture_die("sbrk");
  void **place = (void **)(((uintptr_t)mine + 15) & ~(uintptr_t)15);
  void *p = make();
  *place = p;
  note(KEPT, p, SIZE);
}

static NOINLINE void block(void) {
  uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~(uintptr_t)4095;
  if (mmap((void *)end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
    fixture_die("mmap");
}

static void other(const char *line) {
  long n;
  if (sscanf(line, "foreign %ld", &n) == 1) {
    foreign(n);
  } else if (strcmp(line, "blocked") == 0) {
    block();
  } else {
    say("violation: unknown command\n");
    return;
  }
  say("ok\n");
}

int main(void) {
  fixture_init();
  static const struct program p = {leak, keep, free_blocks, other};
  return serve(&p);
}
