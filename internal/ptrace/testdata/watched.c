/* Makes system calls by itself, past libc, so that only a tracer of the kernel's
 * kind sees them. Each argument is one thing to do. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long raw_open(void) {
  long fd = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) _exit(90);
  return fd;
}

static void raw_close(long fd) {
  if (syscall(SYS_close, fd)) _exit(91);
}

static void pairs(int n) {
  for (int i = 0; i < n; i++) raw_close(raw_open());
}

static void *worker(void *n) {
  pairs(*(int *)n);
  return NULL;
}

static void threads(int n) {
  pthread_t t[4];
  for (int i = 0; i < 4; i++)
    if (pthread_create(&t[i], NULL, worker, &n)) _exit(92);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}

static void waited(pid_t p) {
  int status;
  if (p < 0 || waitpid(p, &status, 0) != p || status) _exit(93);
}

static void forks(int n) {
  for (int i = 0; i < n; i++) {
    pid_t p = fork();
    if (p == 0) {
      pairs(10);
      _exit(0);
    }
    waited(p);
  }
}

static void spawns(int n, char *self) {
  for (int i = 0; i < n; i++) {
    pid_t p;
    if (posix_spawn(&p, self, NULL, NULL, (char *[]){self, "pairs=10", NULL}, environ)) _exit(94);
    waited(p);
  }
}

/* A filter of its own: socket fails, all else is allowed. */
static void filter(void) {
  struct sock_filter f[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog p = {sizeof f / sizeof *f, f};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p)) _exit(95);
  if (socket(AF_UNIX, SOCK_STREAM, 0) != -1 || errno != EPERM) _exit(96);
}

static void on_alarm(int sig) { (void)sig; }

/* accept waits, is broken off by a handler without SA_RESTART, then by one with
 * it while a connection comes. */
static void accepts(void) {
  struct sigaction sa = {.sa_handler = on_alarm};
  struct itimerspec once = {.it_value.tv_nsec = 20000000};
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  socklen_t len = sizeof(sa_family_t);
  timer_t timer;
  int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);
  sigaction(SIGALRM, &sa, NULL);
  if (l < 0 || c < 0 || bind(l, (struct sockaddr *)&a, len) || listen(l, 5)) _exit(97);
  len = sizeof a;
  if (getsockname(l, (struct sockaddr *)&a, &len) || timer_create(CLOCK_MONOTONIC, NULL, &timer)) _exit(98);
  timer_settime(timer, 0, &once, NULL);
  if (accept(l, NULL, NULL) != -1 || errno != EINTR) _exit(99);
  sa.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &sa, NULL);
  timer_settime(timer, 0, &once, NULL);
  pid_t p = fork();
  if (p == 0) {
    nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
    _exit(connect(c, (struct sockaddr *)&a, len) ? 1 : 0);
  }
  int got = accept(l, NULL, NULL);
  if (got < 0) _exit(100);
  waited(p);
  raw_close(got);
  raw_close(c);
  raw_close(l);
}

/* accept waits for ever. */
static void waits(void) {
  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (l < 0 || bind(l, (struct sockaddr *)&a, sizeof(sa_family_t)) || listen(l, 5)) _exit(103);
  accept(l, NULL, NULL);
  _exit(104);
}

/* Two children that never end. */
static void tree(void) {
  for (int i = 0; i < 2; i++)
    if (fork() == 0)
      for (;;) pairs(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    char *what = argv[i], *eq = strchr(what, '=');
    int n = eq ? atoi(eq + 1) : 1;
    if (eq) *eq = 0;
    if (!strcmp(what, "pairs"))
      pairs(n);
    else if (!strcmp(what, "threads"))
      threads(n);
    else if (!strcmp(what, "forks"))
      forks(n);
    else if (!strcmp(what, "spawns"))
      spawns(n, argv[0]);
    else if (!strcmp(what, "filter"))
      filter();
    else if (!strcmp(what, "waits"))
      waits();
    else if (!strcmp(what, "tree"))
      tree();
    else if (!strcmp(what, "accepts"))
      accepts();
    else if (!strcmp(what, "leak"))
      for (int j = 0; j < n; j++) raw_open();
    else if (!strcmp(what, "ready")) {
      puts("ready");
      fflush(stdout);
    } else if (!strcmp(what, "time")) {
      double t = now();
      pairs(n);
      fprintf(stderr, "%.0f ns per pair\n", (now() - t) / n);
    } else if (!strcmp(what, "idle")) {
      double t = now();
      for (int j = 0; j < n; j++) syscall(SYS_getppid);
      fprintf(stderr, "%.0f ns per getppid\n", (now() - t) / n);
    } else if (!strcmp(what, "wait"))
      for (;;) pause();
    else if (!strcmp(what, "exec")) {
      execv(argv[0], (char *[]){argv[0], "pairs=5", NULL});
      _exit(101);
    } else
      _exit(102);
  }
  return 0;
}
