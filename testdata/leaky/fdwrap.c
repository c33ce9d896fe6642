/* Opens descriptors by every wrapper of libc that there is, and closes them.
 *
 *   NAME        ->  "ok N...": the numbers that by_NAME opened
 *   close       ->  "ok": closes those again, each by its own means
 *   range       ->  "ok": closes them by close_range
 *   over        ->  "ok A B": dup2 onto B, open already, which becomes A
 *   refused     ->  "ok B": dup2 of nothing onto B, which stays
 *   cancel      ->  "ok": a thread is cancelled in accept, and its cleanup runs
 *   served N    ->  "ok N": accepts and closes that many connections
 *   spawn       ->  "ok": children close and replace their own descriptors
 *   raw         ->  "ok N": opened by a system call of its own
 *   rawclose    ->  "ok": the last of by_open_read is closed likewise
 *   threads N   ->  "ok": so many rounds of open and close in four threads
 *   pairs N     ->  "ok NS": nanoseconds that an open and its close take
 *   reads N     ->  "ok NS": nanoseconds that a read of one byte takes
 *   fork        ->  "ok PID": a child that waits
 *   exec        ->  executes itself again
 */
#include "fixture.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>

#ifdef __GLIBC__
#include <sys/pidfd.h>
#else /* musl has no such wrappers */
#define pidfd_open(pid, flags) ((int)syscall(SYS_pidfd_open, pid, flags))
#define pidfd_getfd(fd, num, flags) ((int)syscall(SYS_pidfd_getfd, fd, num, flags))
#define close_range(first, last, flags) ((int)syscall(SYS_close_range, first, last, flags))
#endif

extern char **environ;

static int fds[4], nfds;
static FILE *stream;
static DIR *directory;
static int piped; /* stream is of popen */
static int listener;
static struct sockaddr_in here;

static void opened(int fd) {
  if (fd < 0) fixture_die("open");
  fds[nfds++] = fd;
}

static void streams(FILE *f) {
  if (!f) fixture_die("stream");
  stream = f;
  fds[nfds++] = fileno(f);
}

static int caller(void) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&here, sizeof here)) fixture_die("connect");
  return fd;
}

static int passed[2];

static void pass(int fd) {
  char room[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
  struct iovec v = {&byte, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  if (sendmsg(passed[0], &m, 0) != 1) fixture_die("sendmsg");
}

static int taken(const struct msghdr *m) {
  int fd = -1;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(m)), sizeof fd);
  return fd;
}

#define WRAPPERS                                                                                                       \
  W(open_read, opened(open("/dev/null", O_RDONLY)))                                                                    \
  W(open_create, opened(open("/tmp", O_TMPFILE | O_RDWR, 0600)))                                                       \
  W(openat, opened(openat(AT_FDCWD, "/dev/null", O_RDWR)))                                                             \
  W(creat, opened(creat("/dev/null", 0600)))                                                                           \
  W(socket, opened(socket(AF_UNIX, SOCK_DGRAM, 0)))                                                                    \
  W(socketpair, if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) fixture_die("socketpair"); nfds = 2)                     \
  W(accept, int c = caller(); opened(accept(listener, 0, 0)); close(c))                                                \
  W(accept4, int c = caller(); opened(accept4(listener, 0, 0, SOCK_CLOEXEC)); close(c))                                \
  W(pipe, if (pipe(fds)) fixture_die("pipe"); nfds = 2)                                                                \
  W(pipe2, if (pipe2(fds, O_CLOEXEC)) fixture_die("pipe2"); nfds = 2)                                                  \
  W(dup, opened(dup(1)))                                                                                               \
  W(dup2, opened(dup2(1, 100)))                                                                                        \
  W(dup3, opened(dup3(1, 101, O_CLOEXEC)))                                                                             \
  W(fcntl, opened(fcntl(1, F_DUPFD, 50)))                                                                              \
  W(fcntl_cloexec, opened(fcntl(1, F_DUPFD_CLOEXEC, 50)))                                                              \
  W(epoll_create, opened(epoll_create(1)))                                                                             \
  W(epoll_create1, opened(epoll_create1(0)))                                                                           \
  W(eventfd, opened(eventfd(0, 0)))                                                                                    \
  W(timerfd_create, opened(timerfd_create(CLOCK_MONOTONIC, 0)))                                                        \
  W(signalfd, sigset_t s; sigemptyset(&s); opened(signalfd(-1, &s, 0)); signalfd(fds[0], &s, 0))                       \
  W(inotify_init, opened(inotify_init()))                                                                              \
  W(inotify_init1, opened(inotify_init1(IN_CLOEXEC)))                                                                  \
  W(fanotify_init, opened(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY)))                                                   \
  W(memfd_create, opened(memfd_create("m", 0)))                                                                        \
  W(pidfd_open, opened(pidfd_open(getpid(), 0)))                                                                       \
  W(pidfd_getfd, int p = pidfd_open(getpid(), 0); opened(pidfd_getfd(p, 1, 0)); close(p))                              \
  W(userfaultfd, opened((int)syscall(SYS_userfaultfd, 1)))                                                             \
  W(syscall, opened((int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY)))                                        \
  W(recvmsg, char room[64] = {0}, byte; struct iovec v = {&byte, 1};                                                   \
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room}; pass(1);   \
    if (recvmsg(passed[1], &m, 0) != 1) fixture_die("recvmsg"); opened(taken(&m)))                                     \
  W(recvmmsg, char room[64] = {0}, byte; struct iovec v = {&byte, 1};                                                  \
    struct mmsghdr m =                                                                                                 \
        {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room}};             \
    pass(1); if (recvmmsg(passed[1], &m, 1, 0, 0) != 1) fixture_die("recvmmsg"); opened(taken(&m.msg_hdr)))            \
  W(fopen, streams(fopen("/dev/null", "r")))                                                                           \
  W(fopen_c, streams(fopen("/dev/null", "rc")))                                                                        \
  W(freopen, streams(freopen("/dev/zero", "r", fopen("/dev/null", "r"))))                                              \
  W(fdopen, streams(fdopen(open("/dev/null", O_RDONLY), "r")))                                                         \
  W(tmpfile, streams(tmpfile()))                                                                                       \
  W(popen, streams(popen("true", "r")); piped = 1)                                                                     \
  W(opendir, directory = opendir("/"); if (!directory) fixture_die("opendir"); opened(dirfd(directory)))               \
  W(fdopendir, directory = fdopendir(open("/", O_RDONLY)); opened(dirfd(directory)))                                   \
  W(mkstemp, char name[] = "/tmp/fdwrapXXXXXX"; opened(mkstemp(name)); unlink(name))                                   \
  W(shm_open, char name[64]; snprintf(name, sizeof name, "/fdwrap%d", getpid());                                       \
    opened(shm_open(name, O_CREAT | O_RDWR, 0600)); shm_unlink(name))                                                  \
  W(posix_openpt, opened(posix_openpt(O_RDWR | O_NOCTTY)))

#define W(name, ...)                                                                                                   \
  static NOINLINE void by_##name(void) {                                                                               \
    __VA_ARGS__;                                                                                                       \
    __asm__ volatile("");                                                                                              \
  }
WRAPPERS
#undef W

static const struct {
  const char *name;
  void (*open)(void);
} wrappers[] = {
#define W(name, ...) {#name, by_##name},
    WRAPPERS
#undef W
};

static void numbers(void) {
  printf("ok");
  for (int i = 0; i < nfds; i++) printf(" %d", fds[i]);
  printf("\n");
}

static void close_all(void) {
  if (piped)
    pclose(stream);
  else if (stream)
    fclose(stream);
  else if (directory)
    closedir(directory);
  else
    for (int i = 0; i < nfds; i++) close(fds[i]);
  stream = 0;
  directory = 0;
  piped = nfds = 0;
}

static long raw(long nr, long a, long b, long c) {
  register long d __asm__("r10") = 0;
  __asm__ volatile("syscall" : "+a"(nr) : "D"(a), "S"(b), "d"(c), "r"(d) : "rcx", "r11", "memory");
  return nr;
}

static volatile int cleaned;
static void clean(int *flag) {
  (void)flag;
  cleaned = 1;
}

static void *waits(void *arg) {
  __attribute__((cleanup(clean))) int flag = 0;
  accept(listener, 0, 0);
  return arg;
}

static void cancel_one(void) {
  pthread_t t;
  void *end = 0;
  cleaned = 0;
  if (pthread_create(&t, 0, waits, 0)) fixture_die("pthread_create");
  usleep(1000 * (rand() % 3)); /* before, in or after its system call */
  pthread_cancel(t);
  pthread_join(t, &end);
  if (end != PTHREAD_CANCELED || !cleaned) fixture_die("a thread was not cancelled as it should be");
}

static void spawn_some(void) {
  int one = open("/dev/null", O_RDONLY), two = open("/dev/zero", O_RDONLY);
  posix_spawn_file_actions_t a;
  posix_spawn_file_actions_init(&a);
  posix_spawn_file_actions_addclose(&a, one);
  posix_spawn_file_actions_adddup2(&a, 1, two);
  posix_spawn_file_actions_addopen(&a, 90, "/dev/null", O_RDONLY, 0);
  char *argv[] = {"true", 0};
  pid_t pid;
  if (posix_spawn(&pid, "/bin/true", &a, 0, argv, environ)) fixture_die("posix_spawn");
  waitpid(pid, 0, 0);
  posix_spawn_file_actions_destroy(&a);
  pid = vfork();
  if (pid == 0) {
    close(one);
    dup2(1, two);
    execv("/bin/true", argv);
    _exit(1);
  }
  waitpid(pid, 0, 0);
  if (system("true")) fixture_die("system");
  pid = fork();
  if (pid == 0) {
    close(one);
    open("/dev/null", O_RDONLY);
    _exit(0);
  }
  waitpid(pid, 0, 0);
  fds[nfds++] = one;
  fds[nfds++] = two;
}

static void *rounds(void *arg) {
  for (long i = 0; i < (long)arg; i++) {
    int a = open("/dev/null", O_RDONLY), b = dup(a);
    close(a);
    FILE *f = fopen("/dev/null", "r");
    close(b);
    fclose(f);
  }
  return 0;
}

static void pair(int zero) {
  (void)zero;
  close(open("/dev/null", O_RDONLY));
}

static void read_one(int zero) {
  char c;
  if (read(zero, &c, 1) != 1) fixture_die("read");
}

static double timed(long n, void (*what)(int)) {
  struct timespec from, to;
  int zero = open("/dev/zero", O_RDONLY);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
  for (long i = 0; i < n; i++) what(zero);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
  close(zero);
  return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / (double)n;
}

int main(int argc, char **argv) {
  (void)argc;
  char line[128];
  setvbuf(stdout, 0, _IOLBF, 0);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  here.sin_family = AF_INET;
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof here;
  if (bind(listener, (struct sockaddr *)&here, n) || listen(listener, 64) ||
      getsockname(listener, (struct sockaddr *)&here, &n) || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, passed))
    fixture_die("listen");
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    char *end, *word = strtok_r(line, " \n", &end), *arg = strtok_r(0, " \n", &end);
    long count = arg ? atol(arg) : 0;
    if (!word || !strcmp(word, "quit")) break;
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++)
      if (!strcmp(word, wrappers[i].name)) {
        nfds = 0;
        wrappers[i].open();
        numbers();
        word = "";
      }
    if (!strcmp(word, "close")) {
      close_all();
      puts("ok");
    } else if (!strcmp(word, "over")) {
      by_pipe();
      dup2(fds[0], fds[1]);
      numbers();
    } else if (!strcmp(word, "refused")) {
      by_open_read();
      if (dup2(999, fds[0]) >= 0 || dup2(fds[0], fds[0]) != fds[0]) fixture_die("dup2");
      numbers();
    } else if (!strcmp(word, "cancel")) {
      for (long i = 0; i < count; i++) cancel_one();
      puts("ok");
    } else if (!strcmp(word, "served")) {
      for (long i = 0; i < count; i++) {
        int c = caller();
        close(accept(listener, 0, 0));
        close(c);
      }
      puts("ok");
    } else if (!strcmp(word, "spawn")) {
      spawn_some();
      numbers();
    } else if (!strcmp(word, "raw")) {
      nfds = 0;
      opened((int)raw(SYS_open, (long)"/dev/null", O_RDONLY, 0));
      numbers();
    } else if (!strcmp(word, "rawclose")) {
      raw(SYS_close, fds[0], 0, 0);
      nfds = 0;
      puts("ok");
    } else if (!strcmp(word, "range")) {
      for (int i = 0; i < nfds; i++) close_range((unsigned)fds[i], (unsigned)fds[i], 0);
      nfds = 0;
      puts("ok");
    } else if (!strcmp(word, "threads")) {
      pthread_t t[4];
      for (int i = 0; i < 4; i++)
        if (pthread_create(&t[i], 0, rounds, (void *)count)) fixture_die("pthread_create");
      for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
      puts("ok");
    } else if (!strcmp(word, "pairs")) {
      printf("ok %.1f\n", timed(count, pair));
    } else if (!strcmp(word, "reads")) {
      printf("ok %.1f\n", timed(count, read_one));
    } else if (!strcmp(word, "fork")) {
      pid_t pid = fork();
      if (pid == 0) {
        pause();
        _exit(0);
      }
      printf("ok %d\n", pid);
    } else if (!strcmp(word, "exec")) {
      execv("/proc/self/exe", argv);
      fixture_die("exec");
    }
  }
  return 0;
}
