/* A server under a storm of connections, which a child of it makes at a rate.
 *
 *   accept N RATE  ->  "ok SECONDS": N were accepted and closed, RATE a second
 *   keep N             accepts N and keeps them, as fast as it can
 *   free N             closes N of those */
#include "fixture.h"
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { MOST = 1 << 17 };

struct order {
  long n, rate; /* rate 0: at once, and left open until the server closes */
};

static struct sockaddr_in here;
static int listener, to_peer;

static struct timespec now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t;
}

static double seconds_since(struct timespec began) {
  struct timespec t = now();
  return (double)(t.tv_sec - began.tv_sec) + (double)(t.tv_nsec - began.tv_nsec) / 1e9;
}

static void connect_once(bool reset) {
  static const struct linger none = {1, 0};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&here, sizeof here)) fixture_die("connect");
  /* Reset: nothing is left in TIME_WAIT. */
  if (reset && setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none)) fixture_die("SO_LINGER");
  if (reset) close(fd);
}

/* Connects what is due by now, and sleeps for a millisecond. */
static void storm(struct order o) {
  struct timespec began = now();
  for (long made = 0; made < o.n;) {
    long due = o.rate ? (long)(seconds_since(began) * (double)o.rate) + 1 : o.n;
    for (; made < due && made < o.n; made++) connect_once(o.rate > 0);
    if (made < o.n) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
}

static NOINLINE int accept_one(void) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) fixture_die("accept");
  return fd;
}

static NOINLINE void serve_one(void) { close(accept_one()); }

static void tell(long n, long rate) {
  struct order o = {n, rate};
  if (write(to_peer, &o, sizeof o) != sizeof o) fixture_die("order");
}

static int kept[MOST];
static long nkept;

static void keep(long n) {
  if (nkept + n > MOST) fixture_die("keep");
  tell(n, 0);
  for (; n > 0; n--) kept[nkept++] = accept_one();
}

static void release(long n) {
  for (; n > 0 && nkept > 0; n--) close(kept[--nkept]);
}

static void other(const char *line) {
  struct order o;
  if (sscanf(line, "accept %ld %ld", &o.n, &o.rate) != 2 || o.rate <= 0) {
    say("violation: unknown command\n");
    return;
  }
  struct timespec began = now();
  tell(o.n, o.rate);
  for (long i = 0; i < o.n; i++) serve_one();
  char answer[64];
  snprintf(answer, sizeof answer, "ok %.3f\n", seconds_since(began));
  say(answer);
}

int main(void) {
  int pair[2];
  socklen_t size = sizeof here;
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) fixture_die("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit)) fixture_die("setrlimit");
  here = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&here, size) || listen(listener, 4096) ||
      getsockname(listener, (struct sockaddr *)&here, &size) ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
    fixture_die("listen");
  pid_t pid = fork();
  if (pid < 0) fixture_die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[0]);
    close(listener);
    for (struct order o; read(pair[1], &o, sizeof o) == sizeof o;) storm(o);
    _exit(0);
  }
  close(pair[1]);
  to_peer = pair[0];
  static const struct program program = {NULL, keep, release, other};
  return serve(&program);
}
