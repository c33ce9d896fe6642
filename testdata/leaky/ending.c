/* A program that ends having lost, kept and misused exact amounts, as its
 * arguments say: it is looked at once, at its exit. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

struct node {
  struct node *volatile next;
  char pad[32];
};

static NOINLINE struct node *add(struct node *next) {
  struct node *n = malloc(sizeof *n);
  n->next = next;
  return n;
}

/* One block of 16 bytes leads to length blocks of 40. */
static NOINLINE void lose(int length) {
  struct node *volatile *head = malloc(16);
  *head = NULL;
  while (length-- > 0) *head = add(*head);
}

static char *volatile kept;

static NOINLINE void keep(void) { kept = malloc(100); }

static NOINLINE void *open_conn(void) { return malloc(48); }
static NOINLINE void close_conn(void *p) { free(p); }
static NOINLINE void cleanup(void *p) { free(p); }

static NOINLINE void map(void) { (void)!mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

static void *nothing(void *p) { return p; }

static NOINLINE void start(void) {
  pthread_t t;
  if (pthread_create(&t, NULL, nothing, NULL)) abort();
}

/* Stale pointers on the stack would keep what was lost. */
static NOINLINE void wipe(void) {
  volatile char stack[8192];
  for (size_t i = 0; i < sizeof stack; i++) stack[i] = 0;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "lose")) lose(4);
    if (!strcmp(argv[i], "keep")) keep();
    if (!strcmp(argv[i], "map")) map();
    if (!strcmp(argv[i], "start")) start();
    if (!strcmp(argv[i], "free")) {
      void *p = malloc(16);
      free(p);
    }
    if (!strcmp(argv[i], "twice")) {
      void *p = open_conn();
      close_conn(p);
      wipe();
      cleanup(p);
    }
    if (!strcmp(argv[i], "stray")) {
      static char place[64];
      cleanup(place + 16);
    }
    if (!strcmp(argv[i], "fork") && fork() == 0) continue;
    wipe();
  }
  while (wait(NULL) > 0) continue;
  wipe();
  return 0;
}
