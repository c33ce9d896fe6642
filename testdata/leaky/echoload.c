/* A closed loop of clients for epollserver: each of its connections has one
 * request on the way at any time. Usage: echoload PORT [-c connections]
 * [-r requests per second in all, 0 for as many as go].
 *
 *   start  ->  "ok"; begins to ask and to measure
 *   stop   ->  "requests N seconds S p50_us T p99_us T max_us T", since start
 *
 * The time of a request is taken from when it should have been sent, so that a
 * server that stands still is not measured by fewer requests. */
#include "fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { MAX_CONNS = 256, SLOTS = 1 << 20 };

struct conn {
  int fd;
  uint64_t sent, due; /* ns */
};

static struct conn conns[MAX_CONNS];
static long nconns = 8, rate;
static int epoll;
static volatile int running, idle = 1;
static uint32_t histogram[SLOTS]; /* microseconds */
static uint64_t requests, longest, began;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void send_request(struct conn *c, uint64_t due) {
  static const char line[] = "GET key1 name2 value3 other4 last5\n";
  c->due = 0;
  c->sent = due;
  if (send(c->fd, line, sizeof line - 1, MSG_NOSIGNAL) != sizeof line - 1) fixture_die("send");
}

static void took(uint64_t ns) {
  uint64_t us = ns / 1000;
  histogram[us < SLOTS ? us : SLOTS - 1]++;
  requests++;
  if (ns > longest) longest = ns;
}

/* Sends what is due; returns the time until the next one in ns. */
static uint64_t send_due(void) {
  uint64_t next = 100000000, t = now();
  for (long i = 0; i < nconns; i++) {
    struct conn *c = &conns[i];
    if (!c->due) continue;
    if (c->due <= t)
      send_request(c, c->due);
    else if (c->due - t < next)
      next = c->due - t;
  }
  return next;
}

static void receive(struct conn *c, uint64_t step) {
  char text[512];
  ssize_t n = recv(c->fd, text, sizeof text, 0);
  if (n <= 0) fixture_die("recv");
  if (text[n - 1] != '\n') return;
  uint64_t t = now();
  took(t - c->sent);
  if (!running) {
    c->sent = 0;
    return;
  }
  if (!step)
    send_request(c, t);
  else
    c->due = c->sent + step; /* even when that has passed */
}

static int on_the_way(void) {
  for (long i = 0; i < nconns; i++)
    if (conns[i].sent && !conns[i].due) return 1;
  return 0;
}

static void *ask_always(void *arg) {
  for (;;) {
    while (!running) {
      idle = 1;
      usleep(1000);
    }
    idle = 0;
    uint64_t step = rate ? (uint64_t)nconns * 1000000000u / (uint64_t)rate : 0, t = now();
    for (long i = 0; i < nconns; i++) conns[i].due = t + step * (uint64_t)i / (uint64_t)nconns;
    while (running || on_the_way()) {
      struct epoll_event events[64];
      uint64_t next = running ? send_due() : 100000000;
      struct timespec wait = {0, (long)next};
      int n = epoll_pwait2(epoll, events, 64, &wait, NULL);
      if (n < 0 && errno != EINTR) fixture_die("epoll_pwait2");
      for (int i = 0; i < n; i++) receive((struct conn *)events[i].data.ptr, step);
    }
    for (long i = 0; i < nconns; i++) conns[i].due = conns[i].sent = 0;
  }
  return arg;
}

static double percentile(double share) {
  uint64_t want = (uint64_t)((double)requests * share), seen = 0;
  for (size_t us = 0; us < SLOTS; us++) {
    seen += histogram[us];
    if (seen > want) return (double)us;
  }
  return SLOTS;
}

static void other(const char *line) {
  if (strcmp(line, "start") == 0 && !running) {
    memset(histogram, 0, sizeof histogram);
    requests = longest = 0;
    began = now();
    running = 1;
    say("ok\n");
  } else if (strcmp(line, "stop") == 0 && running) {
    char text[200];
    while (idle) usleep(100);
    double seconds = (double)(now() - began) / 1e9;
    running = 0;
    while (!idle) usleep(1000);
    snprintf(text, sizeof text, "requests %lu seconds %.3f p50_us %.0f p99_us %.0f max_us %.0f\n",
             (unsigned long)requests, seconds, percentile(0.5), percentile(0.99), (double)longest / 1000);
    say(text);
  } else {
    say("violation: unknown command\n");
  }
}

int main(int argc, char **argv) {
  int option;
  while ((option = getopt(argc, argv, "c:r:")) != -1) {
    if (option == 'c')
      nconns = atol(optarg);
    else if (option == 'r')
      rate = atol(optarg);
    else
      return 2;
  }
  if (optind + 1 != argc || nconns < 1 || nconns > MAX_CONNS || rate < 0) {
    dprintf(2, "usage: echoload PORT [-c connections] [-r rate]\n");
    return 2;
  }
  fixture_init();
  struct sockaddr_in to = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[optind])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  epoll = epoll_create1(EPOLL_CLOEXEC);
  for (long i = 0; i < nconns; i++) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = &conns[i]}};
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fixture_die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conns[i].fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) fixture_die("epoll_ctl");
  }
  pthread_t t;
  if (pthread_create(&t, NULL, ask_always, NULL)) fixture_die("thread");
  static const struct program p = {NULL, NULL, NULL, other};
  return serve(&p);
}
