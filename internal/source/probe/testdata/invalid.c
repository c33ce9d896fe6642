/* Frees what it must not, and goes on: the allocator is told not to mind.
 * Nothing is allocated before the first line is read. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

void *volatile sink;
enum { MANY = 10000 };
static char in_data[256] __attribute__((aligned(16))), in_many[64 * (MANY + 1)] __attribute__((aligned(16)));

/* What looks like a small block to glibc, with another one behind it. */
NOINLINE static void *fake_at(char *at) {
  memset(at, 0, 128);
  ((size_t *)at)[1] = 0x41;
  ((size_t *)at)[9] = 0x41;
  return at + 16;
}
static void *fake(void) { return fake_at(in_data); }

NOINLINE static void *make(size_t n) {
  void *p = malloc(n);
  sink = p;
  return p;
}
NOINLINE static void give_back(void *p) {
  free(p);
  sink = 0;
}
NOINLINE static void again(void *p) {
  free(p);
  sink = in_data;
}
NOINLINE static void resize(void *p) { sink = realloc(p, 10); }

static int line(char *to, size_t room) {
  size_t n = 0;
  while (n + 1 < room && read(0, to + n, 1) == 1 && to[n] != '\n') n++;
  to[n] = 0;
  return n > 0;
}

static void say(const char *text) {
  if (write(1, text, strlen(text)) < 0) _exit(3);
}

/* In a child, which the allocator may abort. */
static void child(void (*f)(void)) {
  pid_t pid = fork();
  if (pid == 0) {
    f();
    _exit(0);
  }
  waitpid(pid, 0, 0);
}

static void twice_in_child(void) {
  void *p = make(40);
  give_back(p);
  again(p);
}

int main(void) {
  char text[100];
  say("ready\n");
  while (line(text, sizeof text)) {
    if (!strcmp(text, "double")) {
      /* Blocks of their own mapping: the second free of one would be a fault;
       * a small one is caught by the thread cache, unless it is changed. */
      size_t *p = make(40);
      give_back(p);
      p[1] = 0; /* the key of glibc's thread cache */
      again(p);
      sink = malloc(40);
      sink = malloc(40); /* the same block once more */
    } else if (!strcmp(text, "reused")) {
      void *p = make(72), *q;
      give_back(p);
      q = make(72);
      give_back(q); /* the same address, handed out since */
    } else if (!strcmp(text, "wild")) {
      give_back(fake());
    } else if (!strcmp(text, "many")) {
      for (int i = 0; i < MANY; i++) give_back(fake_at(in_many + 64 * i));
    } else if (!strcmp(text, "resize")) {
      resize(fake());
    } else if (!strcmp(text, "fork")) {
      child(twice_in_child);
    } else if (!strcmp(text, "fine")) {
      for (int i = 0; i < 2000; i++) {
        char *p = make(1 + i % 5000);
        p = realloc(p, 1 + (i * 7) % 9000);
        p = realloc(p, 30);
        errno = 77;
        if (i % 3)
          free(p);
        else
          sink = realloc(p, 0);
        if (i % 3 && errno != 77) return 4;
        p = strdup("some words");
        free(p);
        void *q = 0;
        if (posix_memalign(&q, 64, 100)) return 5;
        if (malloc_usable_size(q) < 100) return 6;
        free(q);
        FILE *f = fopen("/dev/null", "r");
        fclose(f);
        free(NULL);
      }
    } else if (!strcmp(text, "quit")) {
      return 0;
    }
    say("ok\n");
  }
  return 0;
}
