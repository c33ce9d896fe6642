/* A program whose connections gather in the states that daemons die of. The
 * other end of each is a child of it, its peer.
 *
 *   STATE N [in]  ->  "ok" once the kernel shows N more connections of that
 *                     state; they go out to the peer, or come in from it
 *     closewait    the peer has closed, this program has not
 *     finwait2     this program has shut down its side, the peer has not
 *     silent       established, and nobody says anything
 *     unread       established, with 1,000 bytes each that nobody reads
 *     timewait     closed here first: no process has them any more
 *     orphans      closed here with data that the peer does not read
 *   backlog N     ->  a listener that nobody accepts from, its queue of N full
 *   emfile N      ->  N times no descriptor was left for open, socket, accept
 *   ports         ->  "ports HERE PEER": where connections come in and go out to
 *   leak N        closewait N, keep N  connections in use: "ping" uses them,
 *   free N        closes N of those, churn N  connects, talks, closes properly
 *
 * The clean twin closes what its peer has closed. */
#include "fixture.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { MOST = 1 << 15, BATCH = 64, QUEUE = 128 };

static int checked(int r, const char *what) {
  if (r < 0) fixture_die(what);
  return r;
}

static NOINLINE int listen_on(struct sockaddr_in *where, int queue) {
  int fd = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  *where = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof *where;
  checked(bind(fd, (struct sockaddr *)where, size), "bind");
  checked(listen(fd, queue), "listen");
  checked(getsockname(fd, (struct sockaddr *)where, &size), "getsockname");
  return fd;
}

static NOINLINE int connect_to(const struct sockaddr_in *where, int flags) {
  int fd = checked(socket(AF_INET, SOCK_STREAM | flags, 0), "socket"); /* want fd socket */
  int r = connect(fd, (const struct sockaddr *)where, sizeof *where);
  if (r < 0 && errno != EINPROGRESS) fixture_die("connect");
  return fd;
}

static NOINLINE int accept_from(int listener) {
  int fd = checked(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept"); /* want fd accept4 */
  return fd;
}

/* ---- the peer ---- */

struct order {
  char what; /* 'c': connect, 'a': accept; 'x': close, 'w': write to, 'r': echo for the newest */
  bool used; /* which of two heaps */
  int n;
  struct sockaddr_in where;
};

static int to_peer;

static void exactly(ssize_t r, size_t n, const char *what) {
  if (r != (ssize_t)n) fixture_die(what);
}

static void echo(int fd) {
  char byte;
  exactly(read(fd, &byte, 1), 1, "read");
  exactly(write(fd, &byte, 1), 1, "write");
}

static _Noreturn void be_peer(int orders, int listener) {
  static int heaps[2][MOST], sizes[2];
  static const char text[1000];
  struct order o;
  while (read(orders, &o, sizeof o) == sizeof o) {
    int *ends = heaps[o.used], n = sizes[o.used];
    if (n + o.n > MOST) fixture_die("too many connections");
    for (int i = 0; i < o.n; i++) switch (o.what) {
      case 'c': ends[n++] = connect_to(&o.where, SOCK_NONBLOCK); break;
      case 'a': ends[n++] = accept_from(listener); break;
      case 'x': close(ends[--n]); break;
      case 'w': exactly(write(ends[n - 1 - i], text, sizeof text), sizeof text, "write"); break;
      case 'r': echo(ends[n - 1 - i]);
      }
    sizes[o.used] = n;
    exactly(write(orders, "k", 1), 1, "acknowledge");
  }
  _exit(0);
}

static struct sockaddr_in here, there;
static int listener;

static void order(char what, int n, bool used, const struct sockaddr_in *where) {
  struct order o = {what, used, n, *where};
  exactly(write(to_peer, &o, sizeof o), sizeof o, "order");
}

static void done(void) {
  char k;
  exactly(read(to_peer, &k, 1), 1, "acknowledgement");
}

static void tell(char what, int n, bool of_used) {
  order(what, n, of_used, &here);
  done();
}

/* ---- connections ---- */

static int held[MOST];
static int nheld;

/* Makes up to BATCH connections: more might not fit into the listeners' queues. */
static NOINLINE void establish(int *fds, int n, bool in, bool use) {
  order(in ? 'c' : 'a', n, use, &here);
  for (int i = 0; i < n; i++) fds[i] = in ? accept_from(listener) : connect_to(&there, SOCK_CLOEXEC);
  done();
}

static struct tcp_info tcp(int fd) {
  struct tcp_info info;
  socklen_t size = sizeof info;
  checked(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
  return info;
}

/* Between two looks, at most for some seconds. */
static void wait_a_moment(int tries) {
  errno = ETIMEDOUT;
  if (tries == 5000) fixture_die("TCP state");
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void await_state(int fd, int state) {
  for (int tries = 0; tcp(fd).tcpi_state != state; tries++) wait_a_moment(tries);
}

static void hold_end(int fd) {
  if (nheld == MOST) fixture_die("too many connections");
  held[nheld++] = fd;
}

static void fill_up(int fd) {
  static const char text[1 << 16];
  checked(fcntl(fd, F_SETFL, O_NONBLOCK), "F_SETFL");
  while (write(fd, text, sizeof text) > 0) continue;
}

/* Brings a batch of new connections into a state. */
static bool bring(const char *state, int *fds, int n) {
  bool closing = !strcmp(state, "closewait");
  if (closing) {
    tell('x', n, false);
    for (int i = 0; i < n; i++) {
      await_state(fds[i], TCP_CLOSE_WAIT);
#ifdef CLEAN
      close(fds[i]);
      fds[i] = -1;
#endif
    }
  } else if (!strcmp(state, "finwait2")) {
    for (int i = 0; i < n; i++) {
      checked(shutdown(fds[i], SHUT_WR), "shutdown");
      await_state(fds[i], TCP_FIN_WAIT2);
    }
  } else if (!strcmp(state, "unread")) {
    tell('w', n, false);
  } else if (!strcmp(state, "timewait") || !strcmp(state, "orphans")) {
    for (int i = 0; i < n; i++) {
      if (state[0] == 'o') fill_up(fds[i]);
      close(fds[i]);
      fds[i] = -1;
    }
    if (state[0] == 't') tell('x', n, false);
  } else if (strcmp(state, "silent") != 0) {
    return false;
  }
  for (int i = 0; i < n; i++)
    if (fds[i] >= 0) hold_end(fds[i]);
  return true;
}

static bool gather(const char *state, long n, bool in) {
  for (int fds[BATCH], k; n > 0; n -= k) {
    k = n < BATCH ? (int)n : BATCH;
    establish(fds, k, in, false);
    if (!bring(state, fds, k)) return false;
  }
  return true;
}

/* The kernel queues one more than asked for; two stay outside. */
static void fill_backlog(int n) {
  struct sockaddr_in where;
  int fd = listen_on(&where, n);
  hold_end(fd);
  order('c', n + 3, false, &where);
  done();
  for (int tries = 0; tcp(fd).tcpi_unacked <= (unsigned)n; tries++) wait_a_moment(tries);
}

/* Fails by a limit that leaves no number. */
static NOINLINE void exhaust(long n) {
  struct rlimit old, none;
  checked(getrlimit(RLIMIT_NOFILE, &old), "getrlimit");
  none = (struct rlimit){3, old.rlim_max};
  checked(setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
  for (; n > 0; n--) {
    int fd = n % 3 == 0   ? open("/dev/null", O_RDONLY)
             : n % 3 == 1 ? socket(AF_INET, SOCK_STREAM, 0)
                          : accept(listener, NULL, NULL);
    if (fd >= 0 || errno != EMFILE) fixture_die("no EMFILE");
  }
  checked(setrlimit(RLIMIT_NOFILE, &old), "setrlimit");
}

/* ---- connections in use ---- */

static int used[BATCH];
static int nused;

static void leak(long n) { gather("closewait", n, false); }

static void keep(long n) {
  if (nused + n > BATCH) n = BATCH - nused;
  establish(used + nused, (int)n, false, true);
  nused += (int)n;
}

static void use(int fd) {
  char byte = 'p';
  exactly(write(fd, &byte, 1), 1, "write");
}

static void ping(void) {
  for (int i = 0; i < nused; i++) use(used[i]);
  tell('r', nused, true);
  for (int i = 0; i < nused; i++) {
    char byte;
    exactly(read(used[i], &byte, 1), 1, "read");
  }
}

static void release(long n) {
  if (n > nused) n = nused;
  tell('x', (int)n, true);
  for (; n > 0; n--) close(used[--nused]);
}

static NOINLINE void churn(long n) {
  for (; n > 0; n--) {
    int fd;
    establish(&fd, 1, false, true);
    use(fd);
    tell('r', 1, true);
    tell('x', 1, true);
    close(fd);
  }
}

static void other(const char *line) {
  char word[32], way[8] = "";
  long n = 0;
  sscanf(line, "%31s %ld %7s", word, &n, way);
  if (!strcmp(word, "ports")) {
    char answer[64];
    snprintf(answer, sizeof answer, "ports %d %d\n", ntohs(here.sin_port), ntohs(there.sin_port));
    say(answer);
    return;
  }
  if (!strcmp(word, "ping")) {
    ping();
  } else if (!strcmp(word, "churn")) {
    churn(n);
  } else if (!strcmp(word, "backlog")) {
    fill_backlog((int)n);
  } else if (!strcmp(word, "emfile")) {
    exhaust(n);
  } else if (!gather(word, n, !strcmp(way, "in"))) {
    say("violation: unknown command\n");
    return;
  }
  say("ok\n");
}

int main(void) {
  int pair[2];
  struct rlimit limit;
  checked(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
  limit.rlim_cur = limit.rlim_max < MOST + 100 ? limit.rlim_max : MOST + 100;
  checked(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
  checked(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
  listener = listen_on(&here, QUEUE);
  int peers = listen_on(&there, QUEUE);
  pid_t pid = checked(fork(), "fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[0]);
    close(listener);
    be_peer(pair[1], peers);
  }
  close(pair[1]);
  close(peers);
  to_peer = pair[0];
  static const struct program program = {leak, keep, release, other};
  return serve(&program);
}
