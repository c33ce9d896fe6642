// openers.c opens a descriptor in each way, in a function of its own, and says
// which number each got. It begins when a line comes, and ends at the next.
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define OP(name, ...)                                                                                                  \
  __attribute__((noinline)) static void name(void) {                                                                   \
    int fd = (__VA_ARGS__);                                                                                            \
    if (fd >= 0) printf("%d %s\n", fd, __func__);                                                                      \
  }

static sigset_t set;
static int listening;

OP(op_open, syscall(SYS_open, "/dev/null", O_RDONLY))
OP(op_openat, open("/dev/null", O_RDONLY))
OP(op_creat, syscall(SYS_creat, "/dev/null", 0600))
OP(op_openat2, syscall(SYS_openat2, AT_FDCWD, "/dev/null", (unsigned long[3]){O_RDONLY}, 24))
OP(op_socket, socket(AF_INET, SOCK_STREAM, 0))
OP(op_dup, dup(0))
OP(op_dup2, dup2(0, 500))
OP(op_dup3, dup3(0, 501, O_CLOEXEC))
OP(op_fcntl, fcntl(0, F_DUPFD, 600))
OP(op_fcntl_cloexec, fcntl(0, F_DUPFD_CLOEXEC, 600))
OP(op_epoll_create1, epoll_create1(0))
OP(op_epoll_create, syscall(SYS_epoll_create, 1))
OP(op_eventfd2, eventfd(0, 0))
OP(op_timerfd_create, timerfd_create(CLOCK_MONOTONIC, 0))
OP(op_signalfd4, signalfd(-1, &set, 0))
OP(op_inotify_init1, inotify_init1(0))
OP(op_memfd_create, memfd_create("x", 0))
OP(op_pidfd_open, syscall(SYS_pidfd_open, getpid(), 0))
OP(op_userfaultfd, syscall(SYS_userfaultfd, 0))
OP(op_io_uring_setup, syscall(SYS_io_uring_setup, 4, calloc(1, 256)))

__attribute__((noinline)) static void op_pipe2(void) {
  int p[2];
  if (pipe2(p, 0) == 0) printf("%d op_pipe2\n%d op_pipe2\n", p[0], p[1]);
}

__attribute__((noinline)) static void op_socketpair(void) {
  int p[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0) printf("%d op_socketpair\n%d op_socketpair\n", p[0], p[1]);
}

__attribute__((noinline)) static void op_accept4(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  listening = socket(AF_INET, SOCK_STREAM, 0);
  int s = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listening, (void *)&a, sizeof a) || listen(listening, 1) || getsockname(listening, (void *)&a, &n)) exit(1);
  if (connect(s, (void *)&a, sizeof a)) exit(1);
  int c = accept4(listening, 0, 0, 0);
  printf("%d op_accept4\n%d op_accept4\n%d op_accept4\n", listening, s, c);
}

__attribute__((noinline)) static void closes(void) {
  int a = dup(0), b = dup(0), c = dup(0);
  close(a);
  if (syscall(SYS_close_range, b, c, 0)) exit(1);
}

__attribute__((noinline)) static int deep(int n) {
  volatile char room[200];
  room[n] = n;
  if (n == 0) {
    int fd = dup(0);
    printf("%d deep\n", fd);
    return fd;
  }
  return deep(n - 1) + room[n];
}

int main(void) {
  char line[16];
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  if (!fgets(line, sizeof line, stdin)) return 1;
  op_open(), op_openat(), op_creat(), op_openat2(), op_socket(), op_dup(), op_dup2(), op_dup3(), op_fcntl();
  op_fcntl_cloexec(), op_epoll_create1(), op_epoll_create(), op_eventfd2(), op_timerfd_create(), op_signalfd4();
  op_inotify_init1(), op_memfd_create(), op_pidfd_open(), op_userfaultfd(), op_io_uring_setup();
  op_pipe2(), op_socketpair(), op_accept4();
  closes();
  for (int i = 0; i < 3; i++) deep(60);
  puts("done");
  if (!fgets(line, sizeof line, stdin)) return 1;
  return 0;
}
