// holder has one of everything that package proc looks at, says where, and
// waits until its standard input ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static char data[] = "initialized data of holder";
static const char text[] = "read-only data of holder";
static char bss[64];

static void *wait_for_ever(void *arg) {
  for (;;) pause();
  return arg;
}

static void say_fd(const char *name, int fd) {
  if (fd >= 0) printf("fd %s %d\n", name, fd);
}

int main(void) {
  int pair[2];
  say_fd("eventpoll", epoll_create1(EPOLL_CLOEXEC));
  int event = eventfd(0, 0);
  say_fd("eventfd", event);
  int epoll = epoll_create1(0);
  struct epoll_event watch = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdef};
  epoll_ctl(epoll, EPOLL_CTL_ADD, event, &watch);
  say_fd("watching", epoll);
  say_fd("timerfd", timerfd_create(CLOCK_MONOTONIC, 0));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  say_fd("signalfd", signalfd(-1, &set, 0));
  say_fd("inotify", inotify_init());
  say_fd("pidfd", (int)syscall(SYS_pidfd_open, getpid(), 0));
  say_fd("memfd", memfd_create("holder", 0));
  if (pipe(pair) == 0) say_fd("pipe", pair[0]);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) say_fd("socket", pair[0]);
  say_fd("file", open("/proc/self/exe", O_RDONLY));
  say_fd("net", open("/proc/self/ns/net", O_RDONLY));
  struct io_uring_params params = {0};
  say_fd("io_uring", (int)syscall(SYS_io_uring_setup, 4, &params));
  int fault = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  if (fault >= 0) {
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK};
    if (ioctl(fault, UFFDIO_API, &api) == 0) say_fd("userfaultfd", fault);
  }

  struct sigevent tick = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
  tick.sigev_value.sival_ptr = bss;
  timer_t timer;
  timer_create(CLOCK_MONOTONIC, &tick, &timer);

  pthread_t thread;
  pthread_create(&thread, NULL, wait_for_ever, NULL);

  char *heap = malloc(64);
  strcpy(heap, "a heap block of holder");
  strcpy(bss, "zeroed data of holder");
  char *big = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(big, 0x5a, 4 << 20);
  madvise(big, 1 << 20, MADV_DONTFORK);
  char *hidden = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(hidden, 0x5b, 1 << 20);
  madvise(hidden, 1 << 20, MADV_DONTDUMP);
  char stack[64] = "a stack variable of holder";

  printf("at data %p\nat text %p\nat bss %p\nat heap %p\nat big %p\nat hidden %p\nat stack %p\nat main %p\n",
         (void *)data, (void *)text, (void *)bss, (void *)heap, (void *)big, (void *)hidden, (void *)stack,
         (void *)main);
  puts("ready");
  fflush(stdout);
  while (getchar() != EOF) continue;
  return 0;
}
