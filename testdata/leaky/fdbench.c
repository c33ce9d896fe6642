/* What descriptor calls cost the thread that makes them, by the clock.
 *
 *   pair MS       ->  "ns X" for an open and a close of /dev/null, in the next MS
 *                     milliseconds, 8 calls below main
 *   call MS       ->  "ns X" for a getppid, which no tracer of descriptors asks for
 *   fill N        ->  "filled M": opens N descriptors more, or as many as the hard
 *                     limit allows: files, sockets, eventfds
 *   accept N MS   ->  "accepted N late L": takes N connections a second for so
 *                     long over loopback and closes them; L of them came more than
 *                     10 ms later than they should */
#include "fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

enum { DEPTH = 8, BATCH = 64 };

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static NOINLINE void open_and_close(void) {
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (fd < 0) fixture_die("open /dev/null");
  close(fd);
}

static void ask(void) { syscall(SYS_getppid); }

/* The asm after the call keeps it from becoming a jump. */
static NOINLINE void descend(int depth, void (*what)(void)) {
  if (depth > 1)
    descend(depth - 1, what);
  else
    for (int i = 0; i < BATCH; i++) what();
  __asm__ volatile("");
}

static void measure(void (*what)(void), long ms) {
  uint64_t began = now(), end = began + (uint64_t)ms * 1000000u, t;
  uint64_t n = 0;
  do {
    descend(DEPTH, what);
    n += BATCH;
    t = now();
  } while (t < end);
  char answer[64];
  snprintf(answer, sizeof answer, "ns %.1f\n", (double)(t - began) / (double)n);
  say(answer);
}

static NOINLINE void fill_one(long i) {
  int fd;
  switch (i % 4) {
  case 0: fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC); break;
  case 1: fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); break;
  case 2: fd = eventfd(0, EFD_CLOEXEC); break;
  default: fd = open("/dev/null", O_WRONLY);
  }
  if (fd < 0) fixture_die("fill");
}

static void fill_many(long n) {
  struct rlimit now, more = {(rlim_t)n + 1000, (rlim_t)n + 1000};
  if (getrlimit(RLIMIT_NOFILE, &now)) fixture_die("getrlimit");
  if (more.rlim_cur < now.rlim_max) more.rlim_max = now.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &more)) { /* more than the hard limit */
    now.rlim_cur = now.rlim_max;
    n = (long)now.rlim_max - 1000;
    if (setrlimit(RLIMIT_NOFILE, &now)) fixture_die("setrlimit");
  }
  for (long i = 0; i < n; i++) fill_one(i);
  char answer[64];
  snprintf(answer, sizeof answer, "filled %ld\n", n);
  say(answer);
}

/* --- connections --- */

static struct sockaddr_in place;
static long rate, count, late;

/* Connects, and leaves without TIME_WAIT. */
static void *be_clients(void *arg) {
  struct linger reset = {1, 0};
  uint64_t began = now();
  for (long i = 0; i < count; i++) {
    uint64_t due = began + (uint64_t)i * 1000000000u / (uint64_t)rate, t = now();
    if (t + 200000 < due) {
      struct timespec pause = {0, (long)(due - t)};
      nanosleep(&pause, NULL);
    } else if (t > due + 10000000) {
      late++;
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (fd < 0 || connect(fd, (struct sockaddr *)&place, sizeof place)) fixture_die("connect");
    close(fd);
  }
  return arg;
}

static NOINLINE void take(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) fixture_die("accept");
  close(fd);
}

static void accept_many(long per_second, long ms) {
  socklen_t size = sizeof place;
  pthread_t clients;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  memset(&place, 0, sizeof place);
  place.sin_family = AF_INET;
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (listener < 0 || bind(listener, (struct sockaddr *)&place, sizeof place) || listen(listener, 4096) ||
      getsockname(listener, (struct sockaddr *)&place, &size))
    fixture_die("listen");
  rate = per_second;
  count = per_second * ms / 1000;
  late = 0;
  if (pthread_create(&clients, NULL, be_clients, NULL)) fixture_die("thread");
  for (long i = 0; i < count; i++) take(listener);
  pthread_join(clients, NULL);
  close(listener);
  char answer[64];
  snprintf(answer, sizeof answer, "accepted %ld late %ld\n", count, late);
  say(answer);
}

static void other(const char *line) {
  long n, ms;
  if (sscanf(line, "pair %ld", &ms) == 1)
    measure(open_and_close, ms);
  else if (sscanf(line, "call %ld", &ms) == 1)
    measure(ask, ms);
  else if (sscanf(line, "fill %ld", &n) == 1)
    fill_many(n);
  else if (sscanf(line, "accept %ld %ld", &n, &ms) == 2)
    accept_many(n, ms);
  else
    say("violation: unknown command\n");
}

int main(void) {
  fixture_init();
  static const struct program p = {NULL, NULL, NULL, other};
  return serve(&p);
}
