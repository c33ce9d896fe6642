/* Opens more than it may, by itself and static, so that no library has unwind
 * data of its own. It closes what it opened; ranges and duplicates are among it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

__attribute__((noinline)) static int open_too_many(int n) {
  int failed = 0;
  for (int i = 0; i < n; i++)
    if (open("/dev/null", O_RDONLY) < 0 && errno == EMFILE) failed++;
  return failed;
}

__attribute__((noinline)) static int close_all(void) { return (int)syscall(SYS_close_range, 10, ~0U, 0); }

__attribute__((noinline)) static int kept_pair(void) {
  int p[2];
  int r = socketpair(AF_UNIX, SOCK_STREAM, 0, p);
  return r ? r : dup2(p[0], 20) - 20;
}

/* A child that shares the table opens two and closes one of its parent's; the
 * parent keeps a descriptor for it. */
__attribute__((noinline)) static int shared_table(void) {
  int pidfd = -1, status, mine = open("/dev/null", O_RDONLY);
  long p = syscall(SYS_clone, CLONE_FILES | CLONE_PIDFD | SIGCHLD, 0, &pidfd, 0, 0);
  if (p == 0) {
    int a = open("/dev/zero", O_RDONLY), b = dup(a);
    _exit(a < 0 || b < 0 || close(mine));
  }
  if (p < 0 || waitpid((pid_t)p, &status, 0) != p || status || pidfd < 0) return 1;
  return close(mine) != -1;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv) {
  struct rlimit limit = {30, 30};
  if (argc > 2 && !strcmp(argv[1], "time")) {
    int n = 20000;
    double from = now();
    for (int i = 0; i < n; i++) close(open("/dev/null", O_RDONLY));
    fprintf(stderr, "%s: %.0f ns for a pair\n", argv[2], (now() - from) / n);
    return 0;
  }
  if (argc > 1 && !strcmp(argv[1], "share")) return shared_table();
  if (setrlimit(RLIMIT_NOFILE, &limit)) return 1;
  if (open_too_many(40) < 10) return 2;
  if (close_all()) return 3;
  if (close(999) != -1 || close(-1) != -1) return 4;
  if (kept_pair()) return 5;
  pid_t p = vfork();
  if (p == 0) {
    close(20);
    execl("/bin/true", "true", (char *)0);
    _exit(6);
  }
  int status;
  if (p < 0 || waitpid(p, &status, 0) != p || status) return 7;
  return 0;
}
