/* Eight threads with an arena each, which lose and keep blocks there. Kept
 * blocks have their only pointer in a table, in thread-local storage, under a
 * pthread key, on the thread's stack, or in a register of a thread that sleeps
 * ("register N" starts such threads). "ended N" loses a block in each of N
 * threads that end. */
#include "fixture.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>

enum { THREADS = 8, PLACES = 64, SIZE = 112 };
enum op { LEAK, KEEP, RELEASE };

static sem_t go[THREADS], done;
static enum op op;
static long count;
static pthread_key_t key;

/* One thread works at a time, so the shared table needs no lock. */
static __thread void *volatile local[PLACES]; /* or the stores are left out */
static __thread int nlocal;

struct chain {
  struct chain *next;
  char data[SIZE - sizeof(struct chain *)];
};

static NOINLINE void *make(void) {
  void *p = malloc(SIZE); /* want memory 112 */
  fill(p, SIZE);
  return p;
}

static NOINLINE void keep_somewhere(void **stack, int *nstack) {
  static long turns;
  long turn = turns++;
  if (turn % 4 == 0 && nlocal < PLACES) {
    note(KEPT, local[nlocal++] = make(), SIZE);
  } else if (turn % 4 == 1) {
    struct chain *c = (struct chain *)make();
    c->next = (struct chain *)pthread_getspecific(key);
    pthread_setspecific(key, c);
    note(KEPT, c, SIZE);
  } else if (turn % 4 == 2 && *nstack < PLACES) {
    note(KEPT, stack[(*nstack)++] = make(), SIZE);
  } else {
    hold(make(), SIZE);
  }
}

static void *work(void *arg) {
  int me = (int)(intptr_t)arg;
  void *volatile stack[PLACES] = {NULL};
  int nstack = 0;
  for (;;) {
    while (sem_wait(&go[me])) {
    }
    for (long i = 0; i < count; i++) {
      if (op == LEAK) lose(make(), SIZE);
      if (op == KEEP) keep_somewhere((void **)stack, &nstack);
      if (op == RELEASE) free_blocks(1);
    }
    scrub();
    sem_post(&done);
  }
  return NULL;
}

/* Shares n out among the threads. */
static void all(enum op what, long n) {
  op = what;
  for (long i = 0; i < THREADS; i++) {
    count = n / THREADS + (i < n % THREADS);
    if (count == 0) continue;
    sem_post(&go[i]);
    while (sem_wait(&done)) {
    }
  }
}

static void leak(long n) { all(LEAK, n); }
static void keep(long n) { all(KEEP, n); }
static void release(long n) { all(RELEASE, n); }

static void *lose_and_end(void *arg) {
  (void)arg;
  lose(make(), SIZE);
  scrub();
  return NULL;
}

static NOINLINE uint64_t make_hidden(void) {
  void *p = make();
  note(KEPT, p, SIZE);
  return (uint64_t)(uintptr_t)p ^ fixture_mask;
}

static void *sleep_with_register(void *arg) {
  sem_t *started = (sem_t *)arg;
  volatile uint64_t hidden = make_hidden();
  scrub();
  sem_post(started);
  scrub();
  uint64_t word = hidden, mask = fixture_mask;
  /* pause() for ever, with the pointer in r15 and nowhere else. */
  __asm__ volatile("movq %0, %%r15\n\txorq %1, %%r15\n\t"
                   "1: movl %2, %%eax\n\tsyscall\n\tjmp 1b" ::"r"(word),
                   "r"(mask), "i"(SYS_pause)
                   : "rax", "rcx", "r11", "r15", "memory");
  return NULL;
}

static void other(const char *line) {
  long n;
  if (sscanf(line, "ended %ld", &n) == 1) {
    while (n-- > 0) {
      pthread_t t;
      if (pthread_create(&t, NULL, lose_and_end, NULL) || pthread_join(t, NULL)) fixture_die("thread");
    }
  } else if (sscanf(line, "register %ld", &n) == 1) {
    while (n-- > 0) {
      pthread_t t;
      sem_t started;
      sem_init(&started, 0, 0);
      if (pthread_create(&t, NULL, sleep_with_register, &started)) fixture_die("thread");
      while (sem_wait(&started)) {
      }
    }
  } else {
    say("violation: unknown command\n");
    return;
  }
  say("ok\n");
}

int main(void) {
  fixture_init();
  sem_init(&done, 0, 0);
  pthread_key_create(&key, NULL);
  for (long i = 0; i < THREADS; i++) {
    pthread_t t;
    sem_init(&go[i], 0, 0);
    if (pthread_create(&t, NULL, work, (void *)(intptr_t)i)) fixture_die("thread");
  }
  static const struct program p = {leak, keep, release, other};
  return serve(&p);
}
