/* One deed for each line on stdin, answered with one line. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int held = -1; /* a descriptor between two deeds */
static volatile int queued, sum, woken, wrong;

static void say(const char *what, long n) { printf("%s %ld\n", what, n); }

static void count(int sig, siginfo_t *si, void *ctx) {
  (void)ctx;
  if (sig < SIGRTMIN || si->si_code != SI_QUEUE) wrong++;
  __atomic_add_fetch(&queued, 1, __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&sum, si->si_value.sival_int, __ATOMIC_SEQ_CST);
}

/* A closed connection: epoll forgets it, and the peer sees its end. */
static void closing(void) {
  int s[2], e = epoll_create1(0);
  struct epoll_event ev = {.events = EPOLLIN}, got;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, s) || epoll_ctl(e, EPOLL_CTL_ADD, s[0], &ev)) return say("errno", errno);
  if (write(s[1], "x", 1) != 1 || epoll_wait(e, &got, 1, 0) != 1) return say("no event", 0);
  close(s[0]);
  if (epoll_wait(e, &got, 1, 0) != 0) return say("stale event", 0);
  signal(SIGPIPE, SIG_IGN);
  if (write(s[1], "x", 1) != -1 || errno != EPIPE) return say("peer sees no end", errno);
  close(s[1]);
  close(e);
  int p[2];
  char c;
  if (pipe(p)) return say("errno", errno);
  close(p[1]);
  if (read(p[0], &c, 1) != 0) return say("pipe has no end", errno);
  close(p[0]);
  say("ok", 0);
}

static void *in_vfork(void *arg) {
  pid_t pid = vfork();
  if (pid == 0) {
    char c;
    if (read(held, &c, 1) < 0) _exit(1); /* until the test lets go */
    _exit(0);
  }
  waitpid(pid, 0, 0);
  __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
  return arg;
}

static void *in_pause(void *arg) {
  *(volatile pid_t *)arg = syscall(SYS_gettid);
  for (;;) {
    pause();
    __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
  }
  return 0;
}
static void *in_sigsuspend(void *arg) {
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &all, 0);
  *(volatile pid_t *)arg = syscall(SYS_gettid);
  for (;;) {
    sigsuspend(&none);
    __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
  }
  return 0;
}
static void *in_epoll(void *arg) {
  int e = epoll_create1(0);
  struct epoll_event ev;
  *(volatile pid_t *)arg = syscall(SYS_gettid);
  for (;;) {
    if (epoll_wait(e, &ev, 1, -1) != -1 || errno != EINTR) wrong++;
    __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
  }
  return 0;
}
static void *in_all_wait(void *arg) {
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  *(volatile pid_t *)arg = syscall(SYS_gettid);
  for (;;)
    if (waitpid(-1, 0, __WALL) < 0) break;
  return 0;
}
static long thread(void *(*f)(void *)) {
  static volatile pid_t tid;
  pthread_t t;
  tid = 0;
  if (pthread_create(&t, 0, f, (void *)&tid)) return -1;
  while (!tid && f != in_vfork) usleep(1000);
  return tid;
}

/* A filter that does `action` at system call nr, and allows all else. */
static void filter(long nr, unsigned action) {
  struct sock_filter f[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xc000003e, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog p = {sizeof f / sizeof *f, f};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  say("filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &p));
}

/* The reader that a fork waits for. */
static void *read_events(void *arg) {
  struct uffd_msg m;
  *(volatile pid_t *)arg = syscall(SYS_gettid);
  while (read(held, &m, sizeof m) == sizeof m)
    if (m.event == UFFD_EVENT_FORK) {
      close(m.arg.fork.ufd);
      __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
    }
  return 0;
}
static void userfault(void) {
  int u = syscall(SYS_userfaultfd, O_CLOEXEC);
  struct uffdio_api a = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK};
  if (u < 0 || ioctl(u, UFFDIO_API, &a)) return say("errno", errno);
  char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct uffdio_register r = {.range = {(uintptr_t)p, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(u, UFFDIO_REGISTER, &r)) return say("errno", errno);
  held = u;
  thread(read_events);
  say("ok", u);
}

/* A read from an empty pipe that a worker thread of the kernel waits in. */
static struct io_uring_params ring;
static char *cq;
static void uring(void) {
  int p[2], r = syscall(SYS_io_uring_setup, 4, &ring);
  if (r < 0 || pipe(p)) return say("errno", errno);
  size_t n = ring.sq_off.array + ring.sq_entries * 4,
         m = ring.cq_off.cqes + ring.cq_entries * sizeof(struct io_uring_cqe);
  char *sq = mmap(0, n > m ? n : m, PROT_READ | PROT_WRITE, MAP_SHARED, r, IORING_OFF_SQ_RING);
  struct io_uring_sqe *e = mmap(0, ring.sq_entries * sizeof *e, PROT_READ | PROT_WRITE, MAP_SHARED, r, IORING_OFF_SQES);
  static char c;
  memset(e, 0, sizeof *e);
  e->opcode = IORING_OP_READ;
  e->flags = IOSQE_ASYNC;
  e->fd = p[0];
  e->addr = (uintptr_t)&c;
  e->len = 1;
  e->off = -1;
  cq = sq; /* one mapping since Linux 5.4 */
  ++*(volatile unsigned *)(sq + ring.sq_off.tail);
  if (syscall(SYS_io_uring_enter, r, 1, 0, 0, 0, 0) != 1) return say("errno", errno);
  say("pipe", p[1]);
}
static void completion(void) {
  struct io_uring_cqe *e = (void *)(cq + ring.cq_off.cqes);
  while (*(volatile unsigned *)(cq + ring.cq_off.tail) == 0) usleep(1000);
  say("result", e->res);
}

static void mappings(void) {
  char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char *n = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  strcpy(p, "not forked");
  strcpy(s, "shared");
  strcpy(n + 8192, "private");
  madvise(p, 4096, MADV_DONTFORK);
  printf("%lx %lx %lx\n", (long)p, (long)s, (long)n);
}

int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IOLBF, 0);
  struct sigaction sa = {.sa_sigaction = count, .sa_flags = SA_SIGINFO | SA_RESTART};
  for (int s = SIGRTMIN; s < SIGRTMIN + 8; s++) sigaction(s, &sa, 0);
  if (argc < 2)
    puts("ready");
  else
    puts(argv[1]);
  char line[300];
  while (fgets(line, sizeof line, stdin)) {
    char word[40] = "", arg[200] = "";
    unsigned long a = 0, b = 0;
    sscanf(line, "%39s %199s", word, arg);
    sscanf(line, "%*s %lu %lu", &a, &b);
    if (!strcmp(word, "check")) {
      if (wrong)
        puts("bad");
      else
        printf("ok %d %d %d\n", queued, sum, woken);
    } else if (!strcmp(word, "closing"))
      closing();
    else if (!strcmp(word, "flock")) {
      held = open(arg, O_RDWR | O_CREAT, 0600);
      say("flock", flock(held, LOCK_EX));
    } else if (!strcmp(word, "posix")) {
      struct flock l = {.l_type = F_WRLCK};
      held = open(arg, O_RDWR | O_CREAT, 0600);
      say("posix", fcntl(held, F_SETLK, &l));
    } else if (!strcmp(word, "listen")) {
      struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
      socklen_t n = sizeof in;
      held = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (bind(held, (void *)&in, n) || listen(held, 1) || getsockname(held, (void *)&in, &n)) exit(9);
      say("port", ntohs(in.sin_port));
    } else if (!strcmp(word, "close"))
      say("close", close(held));
    else if (!strcmp(word, "vfork")) {
      int p[2];
      if (pipe(p)) exit(9);
      held = p[0];
      thread(in_vfork);
      say("pipe", p[1]);
    } else if (!strcmp(word, "write"))
      say("write", write(a, "x", 1));
    else if (!strcmp(word, "pause"))
      say("tid", thread(in_pause));
    else if (!strcmp(word, "sigsuspend"))
      say("tid", thread(in_sigsuspend));
    else if (!strcmp(word, "epoll"))
      say("tid", thread(in_epoll));
    else if (!strcmp(word, "waitall"))
      say("tid", thread(in_all_wait));
    else if (!strcmp(word, "filter"))
      filter(a, b);
    else if (!strcmp(word, "strict")) {
      say("strict", 0);
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    } else if (!strcmp(word, "newpidns"))
      say("unshare", unshare(CLONE_NEWPID));
    else if (!strcmp(word, "uffd"))
      userfault();
    else if (!strcmp(word, "uring"))
      uring();
    else if (!strcmp(word, "completion"))
      completion();
    else if (!strcmp(word, "mappings"))
      mappings();
    else if (!strcmp(word, "exec"))
      execl("/proc/self/exe", argv[0], "again", (char *)0);
    else if (!strcmp(word, "limit"))
      say("waitpid", waitpid(-1, 0, WNOHANG));
    else
      break;
  }
  _exit(0);
}
