/* A program for stanch run: does what its arguments say, in their order.
 *
 *   lose N SIZE    loses N blocks of SIZE bytes
 *   keep N SIZE    keeps N blocks reachable
 *   chain N SIZE   loses a list of N blocks: one directly, the others with it
 *   unmapped SIZE  maps SIZE bytes and forgets where
 *   open N         opens N files and keeps them open
 *   say TEXT       writes a line, warn TEXT to standard error; copy: standard input
 *                  to standard output
 *   exit N, quick N (_exit), abort, crash, kill SIGNAL, return N (from main)
 *   fork, vfork, spawn, exec, daemon, thread: the rest of the arguments is done
 *     in a child, a vfork child that executes this program, a posix_spawn, this
 *     process executing the program anew, a daemon, a thread; who made it waits
 *     for it, but for a daemon, and ends with its exit code
 *   busy N         N threads allocate and free until the end
 *   closeall, undumpable, usr1 (raises SIGUSR1 with a handler), sleep MS */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct node {
  struct node *next;
};

static struct node *kept;
static void *volatile nowhere;
static volatile sig_atomic_t handled;

__attribute__((noinline)) static void lose(long n, size_t size) {
  for (long i = 0; i < n; i++) {
    nowhere = malloc(size); /* want memory */
    nowhere = NULL;
  }
}

__attribute__((noinline)) static void keep(long n, size_t size) {
  for (long i = 0; i < n; i++) {
    struct node *b = malloc(size);
    if (!b) abort();
    b->next = kept;
    kept = b;
  }
}

__attribute__((noinline)) static void chain(long n, size_t size) {
  struct node *head = NULL;
  for (long i = 0; i < n; i++) {
    struct node *b = malloc(size); /* want memory */
    if (!b) abort();
    b->next = head;
    head = b;
  }
  nowhere = head;
  nowhere = NULL;
}

/* What registers and dead stack frames still hold is not lost. */
__attribute__((noinline)) static void wipe(void) {
  volatile char room[4096];
  for (size_t i = 0; i < sizeof room; i++) room[i] = 0;
}

static void *churn(void *arg) {
  for (;;) {
    void *volatile p = malloc(64 + (size_t)(uintptr_t)arg);
    free(p);
  }
  return NULL;
}

static void on_usr1(int sig) {
  (void)sig;
  handled = 1;
}

static int ended(int status) {
  if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
  return WEXITSTATUS(status);
}

static int await(pid_t child) {
  int status;
  if (waitpid(child, &status, 0) != child) abort();
  return ended(status);
}

static int perform(char *self, char **args);

struct work {
  char *self, **args;
  int result;
};

static void *in_thread(void *arg) {
  struct work *w = arg;
  w->result = perform(w->self, w->args);
  return NULL;
}

/* self and the rest of the arguments, as a command line. */
static char **command(char *self, char **rest) {
  size_t n = 0;
  while (rest[n]) n++;
  char **argv = calloc(n + 2, sizeof *argv);
  if (!argv) abort();
  argv[0] = self;
  memcpy(argv + 1, rest, n * sizeof *rest);
  return argv;
}

static int elsewhere(const char *how, char *self, char **rest) {
  char **argv = command(self, rest);
  pid_t child = -1;
  int result = 0;
  if (strcmp(how, "exec") == 0) {
    execv("/proc/self/exe", argv);
    abort();
  } else if (strcmp(how, "vfork") == 0) {
    child = vfork();
    if (child == 0) {
      execv("/proc/self/exe", argv);
      _exit(99);
    }
    result = await(child);
  } else if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ) == 0) {
    result = await(child);
  } else {
    abort();
  }
  free(argv);
  return result;
}

static int forked(const char *how, char *self, char **rest) {
  pid_t child = fork();
  if (child != 0) return strcmp(how, "daemon") == 0 ? 0 : await(child);
  if (strcmp(how, "daemon") == 0) {
    setsid();
    if (fork() != 0) _exit(0);
  }
  exit(perform(self, rest));
}

static int threaded(char *self, char **rest) {
  struct work w = {self, rest, 0};
  pthread_t t;
  if (pthread_create(&t, NULL, in_thread, &w) || pthread_join(t, NULL)) abort();
  return w.result;
}

/* One word with its arguments; gives how many there were, 0 when it is none
 * of these. */
static int simple(char **args) {
  const char *word = args[0];
  long one = args[1] ? atol(args[1]) : 0, two = args[1] && args[2] ? atol(args[2]) : 0;
  if (strcmp(word, "lose") == 0) return lose(one, (size_t)two), 2;
  if (strcmp(word, "keep") == 0) return keep(one, (size_t)two), 2;
  if (strcmp(word, "chain") == 0) return chain(one, (size_t)two), 2;
  if (strcmp(word, "sleep") == 0) return usleep((useconds_t)one * 1000), 1;
  if (strcmp(word, "say") == 0) return printf("%s\n", args[1]), fflush(stdout), 1;
  if (strcmp(word, "warn") == 0) return fprintf(stderr, "%s\n", args[1]), 1;
  if (strcmp(word, "abort") == 0) abort();
  if (strcmp(word, "crash") == 0) return raise(SIGSEGV), 0;
  if (strcmp(word, "kill") == 0) return kill(getpid(), (int)one), 1;
  if (strcmp(word, "exit") == 0) exit((int)one);
  if (strcmp(word, "quick") == 0) _exit((int)one);
  if (strcmp(word, "unmapped") == 0) {
    nowhere = mmap(NULL, (size_t)one, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    nowhere = NULL;
    return 1;
  }
  if (strcmp(word, "open") == 0) {
    for (long i = 0; i < one; i++)
      if (open("/dev/null", O_RDONLY) < 0) abort();
    return 1;
  }
  if (strcmp(word, "busy") == 0) {
    pthread_t t;
    for (long i = 0; i < one; i++)
      if (pthread_create(&t, NULL, churn, (void *)(uintptr_t)(i * 16))) abort();
    return 1;
  }
  return -1;
}

static void plain(const char *word) {
  if (strcmp(word, "closeall") == 0) {
    for (int fd = 3; fd < 4096; fd++) close(fd);
  } else if (strcmp(word, "undumpable") == 0) {
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)) abort();
  } else if (strcmp(word, "usr1") == 0) {
    signal(SIGUSR1, on_usr1);
    raise(SIGUSR1);
    if (!handled) abort();
  } else if (strcmp(word, "copy") == 0) {
    for (int c; (c = getchar()) != EOF;) putchar(c);
    fflush(stdout);
  } else {
    fprintf(stderr, "runme: no such word: %s\n", word);
    exit(98);
  }
}

static int perform(char *self, char **args) {
  for (; *args; args++) {
    const char *word = *args;
    if (strcmp(word, "return") == 0) return atoi(args[1]);
    if (strcmp(word, "fork") == 0 || strcmp(word, "daemon") == 0) return forked(word, self, args + 1);
    if (strcmp(word, "thread") == 0) return threaded(self, args + 1);
    if (strcmp(word, "exec") == 0 || strcmp(word, "vfork") == 0 || strcmp(word, "spawn") == 0)
      return elsewhere(word, self, args + 1);
    int n = simple(args);
    if (n < 0)
      plain(word);
    else
      args += n;
    wipe();
  }
  return 0;
}

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void early(void) { lose(2, 77); }
#endif

int main(int argc, char **argv) { return argc > 1 ? perform(argv[0], argv + 1) : 0; }
