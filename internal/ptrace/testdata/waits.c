/* A thread for each system call that can block. None of them may return
 * before the test ends: a call that returns is reported with its name, result
 * and errno. All signals are blocked in these threads.
 *
 * Commands: "check" answers "ok N" (N calls still wait) or "bad ..."; "tids"
 * answers a line "NAME TID" for each thread, then "end". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char dir[200];
static pid_t helper; /* holds locks, is waited for */

static int empty_pipe(void) {
  int p[2];
  if (pipe(p)) exit(9);
  return p[0];
}
static int full_pipe(void) {
  int p[2];
  if (pipe2(p, O_NONBLOCK)) exit(9);
  char page[4096] = {0};
  while (write(p[1], page, sizeof page) > 0) {
  }
  fcntl(p[1], F_SETFL, 0);
  return p[1];
}
static int quiet_socket(int option) {
  int s[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) exit(9);
  struct timeval t = {600, 0};
  if (option) setsockopt(s[0], SOL_SOCKET, option, &t, sizeof t);
  return s[0];
}
static int full_socket(int option) {
  int s = quiet_socket(option);
  char page[4096] = {0};
  while (send(s, page, sizeof page, MSG_DONTWAIT) > 0) {
  }
  return s;
}
static int listener(int option) {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval t = {600, 0};
  if (option) setsockopt(s, SOL_SOCKET, option, &t, sizeof t);
  if (bind(s, (void *)&a, sizeof a) || listen(s, 5)) exit(9);
  return s;
}
static int epoll(void) {
  int e = epoll_create1(0);
  struct epoll_event ev = {.events = EPOLLIN};
  epoll_ctl(e, EPOLL_CTL_ADD, empty_pipe(), &ev);
  return e;
}

#define CALL(name) static long do_##name(void)
static const struct timespec long_time = {600, 0};
static struct timespec soon(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_sec += 600;
  return t;
}

CALL(epoll_wait) {
  struct epoll_event v;
  return epoll_wait(epoll(), &v, 1, -1);
}
CALL(epoll_wait_timed) {
  struct epoll_event v;
  return epoll_wait(epoll(), &v, 1, 600000);
}
CALL(epoll_pwait) {
  struct epoll_event v;
  sigset_t m;
  sigemptyset(&m);
  return epoll_pwait(epoll(), &v, 1, -1, &m);
}
CALL(epoll_pwait2) {
  struct epoll_event v;
  return syscall(SYS_epoll_pwait2, epoll(), &v, 1, &long_time, 0, 8);
}
CALL(poll) {
  struct pollfd p = {empty_pipe(), POLLIN, 0};
  return poll(&p, 1, -1);
}
CALL(poll_timed) {
  struct pollfd p = {empty_pipe(), POLLIN, 0};
  return poll(&p, 1, 600000);
}
CALL(ppoll) {
  struct pollfd p = {empty_pipe(), POLLIN, 0};
  sigset_t m;
  sigemptyset(&m);
  return ppoll(&p, 1, &long_time, &m);
}
CALL(select) {
  int f = empty_pipe();
  fd_set s;
  FD_ZERO(&s);
  FD_SET(f, &s);
  return select(f + 1, &s, 0, 0, 0);
}
CALL(select_timed) {
  int f = empty_pipe();
  fd_set s;
  FD_ZERO(&s);
  FD_SET(f, &s);
  struct timeval t = {600, 0};
  return select(f + 1, &s, 0, 0, &t);
}
CALL(pselect) {
  int f = empty_pipe();
  fd_set s;
  FD_ZERO(&s);
  FD_SET(f, &s);
  sigset_t m;
  sigemptyset(&m);
  return pselect(f + 1, &s, 0, 0, &long_time, &m);
}
CALL(read_pipe) {
  char c;
  return read(empty_pipe(), &c, 1);
}
CALL(write_pipe) {
  char c[4096] = {0};
  return write(full_pipe(), c, sizeof c);
}
CALL(read_socket) {
  char c;
  return read(quiet_socket(0), &c, 1);
}
CALL(read_socket_timed) {
  char c;
  return read(quiet_socket(SO_RCVTIMEO), &c, 1);
}
CALL(recv) {
  char c;
  return recv(quiet_socket(0), &c, 1, 0);
}
CALL(recv_timed) {
  char c;
  return recv(quiet_socket(SO_RCVTIMEO), &c, 1, 0);
}
CALL(recvmsg_timed) {
  char c;
  struct iovec v = {&c, 1};
  struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
  return recvmsg(quiet_socket(SO_RCVTIMEO), &h, 0);
}
CALL(recvmmsg_timed) {
  char c;
  struct iovec v = {&c, 1};
  struct mmsghdr h = {{.msg_iov = &v, .msg_iovlen = 1}, 0};
  return recvmmsg(quiet_socket(SO_RCVTIMEO), &h, 1, 0, 0);
}
CALL(send) {
  char c[4096] = {0};
  return send(full_socket(0), c, sizeof c, 0);
}
CALL(send_timed) {
  char c[4096] = {0};
  return send(full_socket(SO_SNDTIMEO), c, sizeof c, 0);
}
CALL(sendmsg_timed) {
  char c[4096] = {0};
  struct iovec v = {c, sizeof c};
  struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
  return sendmsg(full_socket(SO_SNDTIMEO), &h, 0);
}
CALL(accept) { return accept(listener(0), 0, 0); }
CALL(accept_timed) { return accept(listener(SO_RCVTIMEO), 0, 0); }
CALL(accept4_timed) { return accept4(listener(SO_RCVTIMEO), 0, 0, SOCK_CLOEXEC); }
static long connect_full(int option) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  static int nth;
  snprintf(a.sun_path + 1, 90, "stanch-%d-%d-%d", getpid(), option, __atomic_add_fetch(&nth, 1, __ATOMIC_SEQ_CST));
  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(l, (void *)&a, sizeof a) || listen(l, 0)) exit(9);
  connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, sizeof a);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  struct timeval t = {600, 0};
  if (option) setsockopt(s, SOL_SOCKET, option, &t, sizeof t);
  return connect(s, (void *)&a, sizeof a);
}
CALL(connect) { return connect_full(0); }
CALL(connect_timed) { return connect_full(SO_SNDTIMEO); }
CALL(cond_wait) {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&m);
  return pthread_cond_wait(&c, &m);
}
CALL(mutex_lock) {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&m);
  return pthread_mutex_lock(&m);
}
CALL(sem_wait) {
  sem_t s;
  sem_init(&s, 0, 0);
  return sem_wait(&s);
}
CALL(futex_timed) {
  uint32_t w = 0;
  return syscall(SYS_futex, &w, FUTEX_WAIT, 0, &long_time, 0, 0);
}
CALL(futex_pi) {
  uint32_t w = helper;
  return syscall(SYS_futex, &w, FUTEX_LOCK_PI, 0, 0, 0, 0);
}
CALL(futex_waitv) {
  uint32_t w = 0;
  struct {
    uint64_t val, uaddr;
    uint32_t flags, reserved;
  } v = {0, (uintptr_t)&w, 2, 0};
  return syscall(449, &v, 1, 0, 0, 0);
}
CALL(nanosleep) { return nanosleep(&long_time, 0); }
CALL(clock_nanosleep_until) {
  struct timespec t = soon();
  return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
}
CALL(sigwaitinfo) {
  sigset_t m;
  sigemptyset(&m);
  sigaddset(&m, SIGRTMAX);
  return sigwaitinfo(&m, 0);
}
CALL(sigtimedwait) {
  sigset_t m;
  sigemptyset(&m);
  sigaddset(&m, SIGRTMAX);
  return sigtimedwait(&m, 0, &long_time);
}
CALL(pause) { return pause(); }
CALL(sigsuspend) {
  sigset_t m;
  sigemptyset(&m);
  return sigsuspend(&m);
}
CALL(wait4) { return wait4(helper, 0, 0, 0); }
CALL(waitid) {
  siginfo_t i;
  return waitid(P_PID, helper, &i, WEXITED);
}
static int sems(void) {
  int s = semget(IPC_PRIVATE, 1, 0600);
  return s;
}
static int sem_id[2], msg_id[2];
CALL(semop) {
  struct sembuf b = {0, -1, 0};
  return semop(sem_id[0], &b, 1);
}
CALL(semtimedop) {
  struct sembuf b = {0, -1, 0};
  return semtimedop(sem_id[1], &b, 1, &long_time);
}
CALL(msgrcv) {
  struct {
    long t;
    char c[8];
  } m;
  return msgrcv(msg_id[0], &m, 8, 0, 0);
}
CALL(msgsnd) {
  struct {
    long t;
    char c[8000];
  } m = {1, {0}};
  while (msgsnd(msg_id[1], &m, 8000, IPC_NOWAIT) == 0) {
  }
  return msgsnd(msg_id[1], &m, 8000, 0);
}
CALL(io_getevents) {
  aio_context_t c = 0;
  struct io_event e;
  if (syscall(SYS_io_setup, 1, &c)) exit(9);
  return syscall(SYS_io_getevents, c, 1, 1, &e, 0);
}
CALL(io_uring_enter) {
  struct io_uring_params p = {0};
  int r = syscall(SYS_io_uring_setup, 4, &p);
  if (r < 0) return pause(); /* switched off by sysctl */
  return syscall(SYS_io_uring_enter, r, 0, 1, IORING_ENTER_GETEVENTS, 0, 0);
}
static int lockfile(const char *name) {
  char path[300];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return open(path, O_CREAT | O_RDWR, 0600);
}
CALL(flock) { return flock(lockfile("flock"), LOCK_EX); }
CALL(fcntl_lock) {
  struct flock l = {.l_type = F_WRLCK};
  return fcntl(lockfile("posix"), F_SETLKW, &l);
}
CALL(ofd_lock) {
  struct flock l = {.l_type = F_WRLCK};
  return fcntl(lockfile("posix"), F_OFD_SETLKW, &l);
}
CALL(mq_receive) {
  char name[40], c[8192];
  snprintf(name, sizeof name, "/stanch-%d", getpid());
  mqd_t q = mq_open(name, O_CREAT | O_RDWR, 0600, 0);
  if (q < 0) return pause();
  mq_unlink(name);
  return mq_receive(q, c, sizeof c, 0);
}
CALL(inotify) {
  char c[400];
  int i = inotify_init();
  inotify_add_watch(i, "/proc/self/exe", IN_ATTRIB);
  return read(i, c, sizeof c);
}
CALL(eventfd) {
  uint64_t v;
  return read(eventfd(0, 0), &v, 8);
}
CALL(timerfd) {
  uint64_t v;
  int t = timerfd_create(CLOCK_MONOTONIC, 0);
  struct itimerspec s = {{0, 0}, {600, 0}};
  timerfd_settime(t, 0, &s, 0);
  return read(t, &v, 8);
}
CALL(signalfd) {
  struct signalfd_siginfo v;
  sigset_t m;
  sigemptyset(&m);
  sigaddset(&m, SIGRTMAX);
  return read(signalfd(-1, &m, 0), &v, sizeof v);
}
CALL(open_fifo) {
  char path[300];
  snprintf(path, sizeof path, "%s/fifo", dir);
  mkfifo(path, 0600);
  return open(path, O_RDONLY);
}
CALL(splice) {
  int p[2];
  if (pipe(p)) exit(9);
  return splice(empty_pipe(), 0, p[1], 0, 100, 0);
}
CALL(sendfile_timed) {
  int f = open("/proc/self/exe", O_RDONLY);
  off_t o = 0;
  return sendfile(full_socket(SO_SNDTIMEO), f, &o, 100000);
}
CALL(flock_held) { return flock(lockfile("flock"), LOCK_SH); }

static struct {
  const char *name;
  long (*call)(void);
  volatile pid_t tid;
} calls[] = {
#define C(n)                                                                                                           \
  { #n, do_##n, 0 }
    C(epoll_wait),     C(epoll_wait_timed),
    C(epoll_pwait),    C(epoll_pwait2),
    C(poll),           C(poll_timed),
    C(ppoll),          C(select),
    C(select_timed),   C(pselect),
    C(read_pipe),      C(write_pipe),
    C(read_socket),    C(read_socket_timed),
    C(recv),           C(recv_timed),
    C(recvmsg_timed),  C(recvmmsg_timed),
    C(send),           C(send_timed),
    C(sendmsg_timed),  C(accept),
    C(accept_timed),   C(accept4_timed),
    C(connect),        C(connect_timed),
    C(cond_wait),      C(mutex_lock),
    C(sem_wait),       C(futex_timed),
    C(futex_pi),       C(futex_waitv),
    C(nanosleep),      C(clock_nanosleep_until),
    C(sigwaitinfo),    C(sigtimedwait),
    C(pause),          C(sigsuspend),
    C(wait4),          C(waitid),
    C(semop),          C(semtimedop),
    C(msgrcv),         C(msgsnd),
    C(io_getevents),   C(io_uring_enter),
    C(flock),          C(fcntl_lock),
    C(ofd_lock),       C(mq_receive),
    C(inotify),        C(eventfd),
    C(timerfd),        C(signalfd),
    C(open_fifo),      C(splice),
    C(sendfile_timed), C(flock_held),
};
enum { N = sizeof calls / sizeof *calls };
static int waiting = N, tolerant, again;
static char bad[1000];

static void *wait_in(void *arg) {
  long i = (long)arg;
  prctl(PR_SET_NAME, calls[i].name);
  calls[i].tid = syscall(SYS_gettid);
  for (;;) {
    errno = 0;
    long r = calls[i].call();
    int e = errno;
    if (!tolerant || e != EINTR) {
      snprintf(bad, sizeof bad, "%s returned %ld: %s", calls[i].name, r, strerror(e));
      __atomic_sub_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
      return 0;
    }
    __atomic_add_fetch(&again, 1, __ATOMIC_SEQ_CST);
  }
}

/* The helper holds the locks that others wait for, until this program ends. */
static void hold(int ready) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct flock l = {.l_type = F_WRLCK};
  flock(lockfile("flock"), LOCK_EX);
  fcntl(lockfile("posix"), F_SETLK, &l);
  if (write(ready, "x", 1) != 1) _exit(1);
  for (;;) pause();
}

/* blocked reports whether the thread has gone to sleep in its call. */
static int blocked(pid_t tid) {
  char path[60], line[400] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  FILE *f = fopen(path, "r");
  if (f && !fgets(line, sizeof line, f)) line[0] = 0;
  if (f) fclose(f);
  char *p = strrchr(line, ')');
  return p && p[2] == 'S';
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  snprintf(dir, sizeof dir, "%s", argv[1]);
  tolerant = argc > 2;
  setvbuf(stdout, 0, _IOLBF, 0);
  int ready[2];
  char line[100];
  if (pipe(ready)) return 9;
  if ((helper = fork()) == 0) hold(ready[1]);
  if (read(ready[0], line, 1) != 1) return 9;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, 0);
  for (int i = 0; i < 2; i++) {
    sem_id[i] = sems();
    msg_id[i] = msgget(IPC_PRIVATE, 0600);
  }
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 128 << 10);
  for (long i = 0; i < N; i++) {
    pthread_t t;
    if (pthread_create(&t, &small, wait_in, (void *)i)) return 9;
  }
  for (int i = 0; i < N;)
    if (calls[i].tid && blocked(calls[i].tid))
      i++;
    else
      usleep(1000);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    if (!strncmp(line, "check", 5)) {
      if (bad[0])
        printf("bad %s\n", bad);
      else
        printf("ok %d of %d wait, %d again\n", waiting, N, again);
    } else if (!strncmp(line, "tids", 4)) {
      for (int i = 0; i < N; i++) printf("%s %d\n", calls[i].name, calls[i].tid);
      puts("end");
    } else
      break;
  }
  for (int i = 0; i < 2; i++) {
    semctl(sem_id[i], 0, IPC_RMID);
    msgctl(msg_id[i], IPC_RMID, 0);
  }
  kill(helper, SIGKILL);
  _exit(bad[0] != 0);
}
