/* Allocates where it is odd to: in children of vfork, in threads made by clone
 * itself, in threads that end at once, while signals come, in realloc that
 * moves and that fails. Each command ends with
 * nothing held but what it says: "ok BLOCKS". */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

void *volatile sink;

static int line(char *to, size_t room) {
  size_t n = 0;
  while (n + 1 < room && read(0, to + n, 1) == 1 && to[n] != '\n') n++;
  to[n] = 0;
  return n > 0;
}

static void say(const char *text) {
  if (write(1, text, strlen(text)) < 0) _exit(3);
}

static void *ends(void *arg) {
  char *p = malloc(500);
  p = realloc(p, 5000);
  free(p);
  return arg ? malloc(77) : 0;
}

/* A thread without a library's help: it shares fs with its maker, who waits. */
static int bare(void *arg) {
  *(void **)arg = malloc(321);
  free(malloc(99));
  return 0;
}

static volatile sig_atomic_t ticks;
static void handler(int sig) {
  (void)sig;
  int was = errno;
  ticks++;
  /* Only reads and writes of its own: what it interrupts may be malloc. */
  errno = was;
}

int main(void) {
  char text[100];
  say("ready\n");
  while (line(text, sizeof text)) {
    const char *volatile answer = "ok 0\n";
    if (!strcmp(text, "vfork")) {
      void *volatile p = malloc(100);
      for (volatile int i = 0; i < 20; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
          /* What it does to memory, it does to its parent's. */
          void *q = malloc(60);
          free(q);
          if (i == 0) execl("/bin/true", "true", (char *)0);
          _exit(0);
        }
        waitpid(pid, 0, 0);
      }
      free(p);
    } else if (!strcmp(text, "clone")) {
      size_t size = 256 << 10;
      char *stack = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      for (int i = 0; i < 20; i++) {
        void *p = 0;
        int pid = clone(bare, stack + size, CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, &p);
        waitpid(pid, 0, __WALL);
        if (!p) return 4;
        free(p);
      }
      sink = malloc(321);
      answer = "ok 1\n";
    } else if (!strcmp(text, "threads")) {
      for (int i = 0; i < 200; i++) {
        pthread_t t;
        void *p;
        pthread_create(&t, 0, ends, text);
        pthread_join(t, &p);
        free(p);
      }
    } else if (!strcmp(text, "signals")) {
      struct sigaction a = {.sa_handler = handler};
      struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
      sigaction(SIGALRM, &a, 0);
      setitimer(ITIMER_REAL, &often, 0);
      while (ticks < 300) {
        void *p = malloc(40), *q = calloc(3, 700);
        p = realloc(p, 900);
        free(p);
        free(q);
      }
      setitimer(ITIMER_REAL, &never, 0);
    } else if (!strcmp(text, "realloc")) {
      char *p = malloc(100);
      for (int i = 0; i < 500; i++) {
        errno = 0;
        volatile size_t huge = SIZE_MAX / 4;
        if (realloc(p, huge) != 0 || errno != ENOMEM) return 5;
        p = realloc(p, 100 + (size_t)(i * 7919 % 100000));
      }
      if (malloc(SIZE_MAX / 4) != 0 || errno != ENOMEM) return 6;
      sink = p;
      answer = "ok 1\n";
    } else if (!strcmp(text, "fork")) {
      for (int i = 0; i < 20; i++) {
        void *p = malloc(50);
        pid_t pid = fork();
        if (pid == 0) {
          free(p);
          sink = malloc(70);
          if (i % 2) execl("/bin/true", "true", (char *)0);
          exit(0);
        }
        free(p);
        waitpid(pid, 0, 0);
      }
    } else if (!strcmp(text, "quit")) {
      return 0;
    }
    say(answer);
  }
  return 0;
}
