/* An epoll server as daemons are written: a connection lives only in
 * epoll_event.data.ptr, and what it points to. Each request makes and frees
 * about 20 blocks. Usage: epollserver [-t threads] [-s].
 * With -s it leaves its old stack frames as they are, for measuring speed.
 *
 *   port     ->  "port N", the loopback port it serves
 *   keep N   opens N connections to itself that stay open and quiet
 *   free N   closes N of them; answers when the server has let go of them
 *   leak N   sends N requests, each of which loses a block
 *
 * A request is one line "GET key NAME VALUE..." and is answered with one. */
#include "fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { ROOM = 512, CLIENTS = 4096 };

struct buffer {
  size_t length;
  char text[ROOM];
};

struct conn {
  int fd, quiet;
  unsigned long requests;
  struct buffer *in;
};

struct header {
  struct header *next;
  char *name, *value;
};

static int listener;
static uint16_t port;
static sem_t event; /* the server has taken, lost or closed something */
static int clients[CLIENTS];
static int nclients;
static int swift; /* -s */

static NOINLINE char *copy(const char *from, size_t n) {
  char *p = (char *)malloc(n + 1);
  if (!p) fixture_die("malloc");
  memcpy(p, from, n);
  p[n] = 0;
  return p;
}

/* Splits a request into a list of its words, three blocks a word. */
static NOINLINE struct header *parse(const char *line) {
  struct header *list = NULL;
  while (*line) {
    size_t n = strcspn(line, " ");
    struct header *h = (struct header *)malloc(sizeof *h);
    if (!h) fixture_die("malloc");
    h->name = copy(line, n);
    h->value = copy(line, n < 3 ? n : 3);
    h->next = list;
    list = h;
    line += n;
    line += strspn(line, " ");
  }
  return list;
}

static NOINLINE void lose_request(void) {
  void *p = malloc(184); /* want memory 184 */
  fill(p, 184);
  lose(p, 184);
  scrub();
  sem_post(&event);
}

static NOINLINE void drop(struct header *list) {
  while (list) {
    struct header *next = list->next;
    free(list->name);
    free(list->value);
    free(list);
    list = next;
  }
}

static NOINLINE void answer(struct conn *c, const char *line) {
  struct header *list = parse(line);
  size_t room = 16, used = 0;
  char *out = (char *)malloc(room);
  for (struct header *h = list; h && out; h = h->next) {
    size_t n = strlen(h->name);
    while (used + n + 2 > room) out = (char *)realloc(out, room *= 2);
    memcpy(out + used, h->name, n);
    used += n;
    out[used++] = ' ';
  }
  if (!out) fixture_die("malloc");
  out[used - 1] = '\n';
  if (send(c->fd, out, used, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET) fixture_die("send");
  free(out);
  drop(list);
  c->requests++;
  if (strncmp(line, "LOSE", 4) == 0) lose_request();
  if (strncmp(line, "QUIET", 5) == 0) {
    c->quiet = 1;
    note(KEPT, c, sizeof *c);
    note(KEPT, c->in, sizeof *c->in);
    scrub();
    sem_post(&event);
  }
}

static NOINLINE void hang_up(struct conn *c) {
  int quiet = c->quiet;
  if (quiet) {
    note(FREED, c->in, sizeof *c->in);
    note(FREED, c, sizeof *c);
  }
  close(c->fd);
  free(c->in);
  free(c);
  if (quiet) sem_post(&event);
}

/* Reads what came and answers each whole line. */
static NOINLINE void serve_conn(struct conn *c) {
  struct buffer *b = c->in;
  ssize_t n = recv(c->fd, b->text + b->length, ROOM - 1 - b->length, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    hang_up(c);
    return;
  }
  b->length += (size_t)n;
  b->text[b->length] = 0;
  char *line = b->text, *end;
  while ((end = strchr(line, '\n')) != NULL) {
    *end = 0;
    if (*line) answer(c, line);
    line = end + 1;
  }
  b->length -= (size_t)(line - b->text);
  memmove(b->text, line, b->length);
  if (b->length == ROOM - 1) hang_up(c);
}

static NOINLINE void take(int epoll) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct conn *c = (struct conn *)calloc(1, sizeof *c);
  if (!c || !(c->in = (struct buffer *)calloc(1, sizeof *c->in))) fixture_die("calloc");
  c->fd = fd;
  struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = c}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) fixture_die("epoll_ctl");
}

static void *loop(void *arg) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event e = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data = {.ptr = NULL}};
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e)) fixture_die("epoll");
  for (;;) {
    struct epoll_event events[16];
    int n = epoll_wait(epoll, events, 16, -1);
    if (n < 0 && errno != EINTR) fixture_die("epoll_wait");
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr)
        serve_conn((struct conn *)events[i].data.ptr);
      else
        take(epoll);
    }
    memset(events, 0, sizeof events);
    if (!swift) scrub();
  }
  return arg;
}

/* Sends one line to the server as a client and reads its answer. */
static int ask(int fd, const char *line) {
  char text[ROOM];
  size_t n = strlen(line);
  if (send(fd, line, n, MSG_NOSIGNAL) != (ssize_t)n) return -1;
  do {
    ssize_t r = recv(fd, text, sizeof text, 0);
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) return -1;
    n = (size_t)r;
  } while (text[n - 1] != '\n');
  return 0;
}

static int dial(void) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = port, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fixture_die("connect");
  return fd;
}

static void await(void) {
  while (sem_wait(&event)) {
  }
}

static void keep(long n) {
  for (; n > 0 && nclients < CLIENTS; n--) {
    int fd = dial();
    if (ask(fd, "QUIET please\n")) fixture_die("ask");
    await();
    clients[nclients++] = fd;
  }
}

static void release(long n) {
  for (; n > 0 && nclients > 0; n--) {
    close(clients[--nclients]);
    await();
  }
}

static void leak(long n) {
  int fd = dial();
  while (n-- > 0) {
    if (ask(fd, "LOSE a b c\n")) fixture_die("ask");
    await();
  }
  close(fd);
}

static void other(const char *line) {
  char text[64];
  snprintf(text, sizeof text, "port %u\n", ntohs(port));
  say(strcmp(line, "port") == 0 ? text : "violation: unknown command\n");
}

int main(int argc, char **argv) {
  int option;
  long threads = 1;
  while ((option = getopt(argc, argv, "t:s")) != -1) {
    if (option == 't')
      threads = atol(optarg);
    else if (option == 's')
      swift = 1;
    else
      return 2;
  }
  fixture_init();
  sem_init(&event, 0, 0);
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof here;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 1024) ||
      getsockname(listener, (struct sockaddr *)&here, &size))
    fixture_die("listen on loopback");
  port = here.sin_port;
  while (threads-- > 0) {
    pthread_t t;
    if (pthread_create(&t, NULL, loop, NULL)) fixture_die("thread");
    pthread_detach(t);
  }
  static const struct program p = {leak, keep, release, other};
  return serve(&p);
}
