/* A daemon that reads a length of four bytes, the highest first, and then as
 * many. A peer that speaks HTTP makes it ask for 1,213,486,160 bytes: "HTTP".
 * The peer is a child of it.
 *
 *   leak N  N peers that speak HTTP and hang up: the error path loses the block
 *   keep N  N peers that speak HTTP and wait: connection and block stay in use
 *   free N  ends N of those
 *   churn N N peers that send a proper frame
 *   source  "source FD PORT": the newest connection that spoke HTTP, and its
 *           peer's port */
#include "fixture.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum { MOST = 256 };

static const char http[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
static const char frame[] = "\0\0\0\5hello";

static struct sockaddr_in here;
static int listener, to_peer;
static int newest, newest_port;

/* ---- the peer ---- */

struct order {
  char what; /* 'h': speak HTTP; 'f': send a frame; 'x': hang up the newest */
};

static _Noreturn void be_peer(int orders) {
  static int ends[MOST];
  int n = 0;
  struct order o;
  while (read(orders, &o, sizeof o) == sizeof o) {
    if (o.what == 'x') {
      close(ends[--n]);
      continue;
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (n == MOST || fd < 0 || connect(fd, (struct sockaddr *)&here, sizeof here)) fixture_die("connect");
    ends[n++] = fd;
    const char *text = o.what == 'h' ? http : frame;
    size_t size = (o.what == 'h' ? sizeof http : sizeof frame) - 1;
    if (write(fd, text, size) != (ssize_t)size) fixture_die("write");
  }
  _exit(0);
}

static void tell(char what) {
  struct order o = {what};
  if (write(to_peer, &o, sizeof o) != sizeof o) fixture_die("order");
}

/* ---- the daemon ---- */

struct connection {
  int fd;
  uint32_t size;
  char *text;
};

static NOINLINE ssize_t read_all(int fd, void *to, size_t size) {
  size_t n = 0;
  while (n < size) {
    ssize_t r = read(fd, (char *)to + n, size - n);
    if (r <= 0) break;
    n += (size_t)r;
  }
  return (ssize_t)n;
}

static NOINLINE uint32_t read_length(int fd) {
  uint32_t size;
  if (read_all(fd, &size, sizeof size) != sizeof size) fixture_die("length");
  return ntohl(size);
}

/* The bytes that are there are read: the first page of the block is touched. */
static NOINLINE void begin_frame(struct connection *c) {
  c->fd = accept(listener, NULL, NULL);
  if (c->fd < 0) fixture_die("accept");
  c->size = read_length(c->fd);
  c->text = malloc(c->size); /* want memory 1213486160 */
  if (!c->text) fixture_die("malloc");
  size_t first = c->size < sizeof http - 5 ? c->size : sizeof http - 5;
  if (read_all(c->fd, c->text, first) != (ssize_t)first) fixture_die("read");
}

static void remember(const struct connection *c) {
  struct sockaddr_in peer;
  socklen_t size = sizeof peer;
  if (getpeername(c->fd, (struct sockaddr *)&peer, &size)) fixture_die("getpeername");
  newest = c->fd;
  newest_port = ntohs(peer.sin_port);
}

static NOINLINE void serve_http(void) {
  struct connection c;
  tell('h');
  begin_frame(&c);
  remember(&c);
  tell('x');
  char rest;
  if (read_all(c.fd, &rest, 1) != 0) fixture_die("no end");
  close(c.fd);
  lose(c.text, c.size);
}

static NOINLINE void serve_frame(void) {
  struct connection c;
  tell('f');
  begin_frame(&c);
  if (c.size != 5 || memcmp(c.text, "hello", 5)) fixture_die("frame");
  tell('x');
  close(c.fd);
  free(c.text);
}

static struct connection *waiting[MOST];
static int nwaiting;

static void leak(long n) {
  for (; n > 0; n--) serve_http();
}

static void keep(long n) {
  for (; n > 0 && nwaiting < MOST; n--) {
    struct connection *c = malloc(sizeof *c);
    if (!c) fixture_die("malloc");
    tell('h');
    begin_frame(c);
    remember(c);
    note(KEPT, c->text, c->size);
    note(KEPT, c, sizeof *c);
    waiting[nwaiting++] = c;
  }
}

static void release(long n) {
  for (; n > 0 && nwaiting > 0; n--) {
    struct connection *c = waiting[--nwaiting];
    waiting[nwaiting] = NULL;
    tell('x');
    close(c->fd);
    note(FREED, c->text, c->size);
    free(c->text);
    note(FREED, c, sizeof *c);
    free(c);
  }
}

static void other(const char *line) {
  long n;
  if (!strcmp(line, "source")) {
    char answer[64];
    snprintf(answer, sizeof answer, "source %d %d\n", newest, newest_port);
    say(answer);
  } else if (sscanf(line, "churn %ld", &n) == 1) {
    while (n-- > 0) serve_frame();
    say("ok\n");
  } else {
    say("violation: unknown command\n");
  }
}

int main(void) {
  int pair[2];
  socklen_t size = sizeof here;
  here = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&here, size) || listen(listener, 16) ||
      getsockname(listener, (struct sockaddr *)&here, &size) ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
    fixture_die("listen");
  pid_t pid = fork();
  if (pid < 0) fixture_die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[0]);
    close(listener);
    be_peer(pair[1]);
  }
  close(pair[1]);
  to_peer = pair[0];
  fixture_init();
  static const struct program program = {leak, keep, release, other};
  return serve(&program);
}
