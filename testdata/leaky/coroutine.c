/* Coroutines (ucontext) on stacks from malloc and from mmap. A suspended one
 * holds the only pointers to some blocks, on its stack and in its saved
 * registers. A thread switches between coroutines that allocate all the time:
 * malloc is called on stacks that no thread library knows. */
#include "fixture.h"

#include <pthread.h>
#include <time.h>
#include <ucontext.h>

enum { STACK = 32 << 10, SIZE = 160, MAX = 200 };

struct coroutine {
  ucontext_t context, caller;
  char *stack;
  size_t size;
  int mapped, finish;
};

static struct coroutine *suspended[MAX];
static int nsuspended;
static const char *volatile violation;
static volatile int stop;
static volatile long switches;

static NOINLINE void *make(void) {
  void *p = malloc(SIZE); /* want memory 160 */
  fill(p, SIZE);
  return p;
}

static struct coroutine *start(void (*body)(void), size_t size, int mapped) {
  struct coroutine *c = (struct coroutine *)calloc(1, sizeof *c);
  c->size = size;
  c->mapped = mapped;
  c->stack = mapped ? (char *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                    : (char *)malloc(size);
  if (!c->stack || c->stack == MAP_FAILED) fixture_die("stack");
  getcontext(&c->context);
  c->context.uc_stack.ss_sp = c->stack;
  c->context.uc_stack.ss_size = size;
  c->context.uc_link = &c->caller;
  makecontext(&c->context, body, 0);
  return c;
}

static void finish(struct coroutine *c) {
  if (c->mapped)
    munmap(c->stack, c->size);
  else
    free(c->stack);
  free(c);
}

static struct coroutine *current; /* of the main thread */

/* Keeps two blocks on its own stack until it is resumed. */
static void holder(void) {
  struct coroutine *self = current;
  void *volatile blocks[2] = {make(), make()};
  note(KEPT, blocks[0], SIZE);
  note(KEPT, blocks[1], SIZE);
  swapcontext(&self->context, &self->caller);
  for (int i = 0; i < 2; i++) {
    note(FREED, blocks[i], SIZE);
    free(blocks[i]);
  }
}

static void keep(long n) {
  for (; n > 0 && nsuspended < MAX; n--) {
    current = start(holder, STACK, nsuspended % 2);
    suspended[nsuspended++] = current;
    swapcontext(&current->caller, &current->context);
  }
}

static void release(long n) {
  for (; n > 0 && nsuspended > 0; n--) {
    current = suspended[--nsuspended];
    suspended[nsuspended] = NULL;
    swapcontext(&current->caller, &current->context);
    finish(current);
    current = NULL;
  }
}

/* Loses a block on a coroutine's stack, where the unwinder finds no thread. */
static void loser(void) {
  void *p = make();
  lose(p, SIZE);
  scrub();
}

static void leak(long n) {
  while (n-- > 0) {
    current = start(loser, 4 * STACK, 1); /* scrub takes 48 KiB */
    swapcontext(&current->caller, &current->context);
    finish(current);
  }
  current = NULL;
}

static __thread struct coroutine *running;

static void allocator(void) {
  struct coroutine *self = running;
  for (unsigned i = 0; !self->finish; i++) {
    size_t size = 1 + (i * 97) % 2000;
    unsigned char *p = (unsigned char *)malloc(size);
    memset(p, (int)i, size);
    swapcontext(&self->context, &self->caller);
    if (p[0] != (unsigned char)i || p[size - 1] != (unsigned char)i) violation = "a coroutine's block changed";
    free(p);
  }
}

static void *switch_always(void *arg) {
  struct coroutine *all[6];
  struct timespec rest = {0, 300000};
  for (int i = 0; i < 6; i++) all[i] = start(allocator, STACK, i % 2);
  while (!stop) {
    for (int i = 0; i < 6; i++) {
      running = all[i];
      swapcontext(&running->caller, &running->context);
      switches++;
    }
    nanosleep(&rest, NULL);
  }
  for (int i = 0; i < 6; i++) {
    running = all[i];
    running->finish = 1;
    swapcontext(&running->caller, &running->context);
    finish(running);
  }
  return arg;
}

static void other(const char *line) {
  char answer[200];
  if (strcmp(line, "check") != 0)
    snprintf(answer, sizeof answer, "violation: unknown command\n");
  else if (violation)
    snprintf(answer, sizeof answer, "violation: %s\n", violation);
  else
    snprintf(answer, sizeof answer, "ok %ld switches\n", switches);
  say(answer);
}

int main(void) {
  fixture_init();
  pthread_t t;
  if (pthread_create(&t, NULL, switch_always, NULL)) fixture_die("thread");
  static const struct program p = {leak, keep, release, other};
  int status = serve(&p);
  stop = 1;
  pthread_join(t, NULL);
  return status;
}
