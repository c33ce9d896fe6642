/* A program with an allocator of its own on mapped memory. Heap blocks that
 * only objects in its pool point to are reachable; what is lost inside of the
 * pool nobody can see, and the list does not name it. */
#include "fixture.h"

struct object {
  struct object *next_free;
  void *payload; /* from malloc */
  uint64_t number[6];
};

enum { OBJECTS = 1 << 14, PAYLOAD = 72 };
static struct object *pool, *free_objects, *used[OBJECTS];
static int nused;

static NOINLINE struct object *take(void) {
  struct object *o = free_objects;
  if (!o) fixture_die("the pool is empty");
  free_objects = o->next_free;
  o->next_free = NULL;
  o->payload = malloc(PAYLOAD); /* want memory 72 */
  fill(o->payload, PAYLOAD);
  return o;
}

static NOINLINE void give(struct object *o) {
  o->payload = NULL;
  o->next_free = free_objects;
  free_objects = o;
}

static void leak(long n) {
  while (n-- > 0) {
    struct object *o = take();
    lose(o->payload, PAYLOAD);
    give(o);
  }
}

static void keep(long n) {
  while (n-- > 0) {
    struct object *o = used[nused++] = take();
    note(KEPT, o->payload, PAYLOAD);
  }
}

static void release(long n) {
  while (n-- > 0 && nused > 0) {
    struct object *o = used[--nused];
    used[nused] = NULL;
    note(FREED, o->payload, PAYLOAD);
    free(o->payload);
    give(o);
  }
}

int main(void) {
  fixture_init();
  pool =
      (struct object *)mmap(NULL, OBJECTS * sizeof *pool, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pool == MAP_FAILED) fixture_die("mmap");
  for (int i = OBJECTS - 1; i >= 0; i--) give(&pool[i]);
  static const struct program p = {leak, keep, release, NULL};
  return serve(&p);
}
