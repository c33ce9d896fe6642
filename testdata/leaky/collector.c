/* A small monitoring daemon, as `make demo` shows it. Workers poll hosts over
 * loopback; a thread of its own plays the hosts. It runs until it is killed.
 *
 *   parse_reply   loses a 400-byte reply whenever a host answers with an error
 *   add_metrics   loses a list of 56-byte metrics whenever a reply is stale
 *   read_framed   takes "HTTP" from a wrong peer for a length, allocates
 *                 1213486160 bytes (untouched, so they cost nothing) and loses
 *                 them; twice at most, later ones are freed
 *   load_journal  loses some of each before the daemon is up, and 1000-byte
 *                 entries at a place that never runs again
 *   remember      grows a cache that stays reachable
 *   open_log      opens descriptors and forgets to close them, 400 at most
 *
 * Options: -r polls per second and worker (50), -w workers beside the main
 * thread (2), -e every Nth reply is an error (10), -o old losses (3000),
 * -s obey stdin: "count" -> "count replies=N metrics=N frames=N entries=N
 * cached=N descriptors=N", where entries are the old ones; "pause" and
 * "resume" -> "ok"; "quit" or the end of stdin ends it. */
#include "fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

enum { HOSTS = 64, CACHE = 1 << 12, MAX_LOGS = 400, METRICS = 3 };

struct reply {
  int host, status;
  struct timespec at;
  char text[376];
};
_Static_assert(sizeof(struct reply) == 400, "the want comments say 400");

/* What a metric can do; its address is the first word of each, like the table
 * of virtual functions in a C++ object. */
struct metric_class {
  double (*value)(const void *);
  const char *name;
};

struct metric {
  const struct metric_class *class;
  struct metric *next;
  double number;
  char name[32];
};
_Static_assert(sizeof(struct metric) == 56, "the want comments say 56");

struct host {
  struct reply *latest;
  struct metric *metrics;
  pthread_mutex_t lock;
};

struct name {
  struct name *next;
  char text[100];
};

static struct host hosts[HOSTS];
static struct name *cache[CACHE];
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static long rate = 50, workers = 2, errors = 10, old = 3000;
static uint16_t port;
static atomic_long lost_replies, lost_metrics, lost_frames, lost_entries, cached, logs, polls;
static atomic_int paused, quitting;

static NOINLINE void *xmalloc(size_t size) {
  void *p = malloc(size);
  if (!p) fixture_die("out of memory");
  return p;
}

static double gauge_value(const void *m) { return ((const struct metric *)m)->number; }
static const struct metric_class gauge = {gauge_value, "gauge"};

/* Remembers names of metrics, and never forgets one: growth, but no leak. */
static NOINLINE void remember(const char *text) {
  unsigned hash = 5381;
  for (const char *c = text; *c; c++) hash = hash * 33 + (unsigned char)*c;
  pthread_mutex_lock(&cache_lock);
  struct name **slot = &cache[hash % CACHE], *n = *slot;
  while (n && strcmp(n->text, text) != 0) n = n->next;
  if (!n) {
    n = xmalloc(sizeof *n);
    memset(n, 0, sizeof *n);
    snprintf(n->text, sizeof n->text, "%s", text);
    n->next = *slot;
    *slot = n;
    cached++;
  }
  pthread_mutex_unlock(&cache_lock);
}

static NOINLINE void open_log(void) {
  if (logs >= MAX_LOGS) return;
  if (open("/dev/null", O_WRONLY | O_CLOEXEC) >= 0) logs++; /* want descriptor */
}

static void free_metrics(struct metric *m) {
  while (m) {
    struct metric *next = m->next;
    free(m);
    m = next;
  }
}

/* Replaces a host's metrics. A reply marked STALE makes it forget the old list
 * before it is freed. */
static NOINLINE void add_metrics(struct host *h, const struct reply *r) {
  struct metric *list = NULL;
  for (int i = 0; i < METRICS; i++) {
    struct metric *m = xmalloc(sizeof *m); /* want memory 56 */
    memset(m, 0, sizeof *m);
    m->class = &gauge;
    m->number = r->status + i;
    snprintf(m->name, sizeof m->name, "load%d", i);
    m->next = list;
    list = m;
  }
#ifndef CLEAN
  if (strstr(r->text, "STALE") && h->metrics) {
    h->metrics = NULL;
    lost_metrics += METRICS;
  }
#endif
  free_metrics(h->metrics);
  h->metrics = list;
}

/* Makes a reply of its text; NULL when the host reports an error. */
static NOINLINE struct reply *parse_reply(int host, const char *text) {
  struct reply *r = xmalloc(sizeof *r); /* want memory 400 */
  memset(r, 0, sizeof *r);
  r->host = host;
  clock_gettime(CLOCK_REALTIME, &r->at);
  snprintf(r->text, sizeof r->text, "%s", text);
  if (strncmp(text, "ERR", 3) == 0) {
#ifdef CLEAN
    free(r);
#else
    lost_replies++;
#endif
    return NULL;
  }
  r->status = atoi(text + 3);
  return r;
}

static void store(struct host *h, struct reply *r) {
  pthread_mutex_lock(&h->lock);
  add_metrics(h, r);
  free(h->latest); /* where replies are freed as they should be */
  h->latest = r;
  pthread_mutex_unlock(&h->lock);
}

static int read_full(int fd, void *to, size_t n) {
  for (size_t done = 0; done < n;) {
    ssize_t r = recv(fd, (char *)to + done, n - done, 0);
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) return -1;
    done += (size_t)r;
  }
  return 0;
}

/* Reads a body behind its length in network order; the caller frees it. NULL
 * when the connection broke. */
static NOINLINE char *read_framed(int fd) {
  uint32_t length;
  if (read_full(fd, &length, sizeof length)) return NULL;
  length = ntohl(length);
  char *body = malloc((size_t)length); /* want memory 1213486160 */
  if (!body) return NULL;
  char start[32];
  size_t n = length < sizeof start ? length : sizeof start;
  if (read_full(fd, start, n) == 0) {
    memcpy(body, start, n);
    if (read_full(fd, body + n, length - n) == 0) return body;
  }
#ifdef CLEAN
  free(body);
#else
  if (lost_frames < 2)
    lost_frames++;
  else
    free(body);
#endif
  return NULL;
}

static int dial(void) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = port, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fixture_die("connect");
  return fd;
}

/* Polls one host over *fd, which it dials anew when the host hung up. */
static NOINLINE void poll_host(int host, int *fd) {
  char question[32], name[64];
  if (*fd < 0) *fd = dial();
  long n = atomic_fetch_add(&polls, 1);
  int length = snprintf(question, sizeof question, "%-15ld\n", n);
  if (send(*fd, question, (size_t)length, MSG_NOSIGNAL) != length) {
    close(*fd);
    *fd = -1;
    return;
  }
  char *body = read_framed(*fd);
  if (!body) {
    close(*fd);
    *fd = -1;
    return;
  }
  struct reply *r = parse_reply(host, body);
  free(body);
  if (r) store(&hosts[host], r);
  if (n % 5 == 0) {
    snprintf(name, sizeof name, "host%d.load.%ld", host, n);
    remember(name);
  }
  if (n % 50 == 0) open_log();
}

static void rest(void) {
  long ns = 1000000000 / rate;
  struct timespec pause = {ns / 1000000000, ns % 1000000000};
  nanosleep(&pause, NULL);
}

static void *worker(void *arg) {
  int fd = -1;
  for (int i = (int)(intptr_t)arg; !quitting; i++) {
    if (!paused) poll_host(i % HOSTS, &fd);
    rest();
  }
  return NULL;
}

/* Replays what was written down before the last restart: old losses. */
static NOINLINE void load_journal(void) {
  for (long i = 0; i < old; i++) {
    char text[64];
    struct host *h = &hosts[i % HOSTS];
    snprintf(text, sizeof text, i % 3 ? "OK 20 from the journal%s" : "ERR old%s", i % 30 == 10 ? " STALE" : "");
    struct reply *r = parse_reply((int)(i % HOSTS), text);
    if (r) store(h, r);
    if (i % 10 == 0) {
      char *entry = xmalloc(1000); /* want memory 1000 */
      memset(entry, 'j', 1000);
#ifdef CLEAN
      free(entry);
#else
      lost_entries++;
#endif
    }
  }
}

/* Plays the hosts: answers each line with a reply, by the number in it. */
static void *play_host(void *arg) {
  int fd = (int)(intptr_t)arg;
  char question[16];
  while (read_full(fd, question, sizeof question) == 0) {
    long n = atol(question);
    char answer[128];
    const char *how = n % errors == 3   ? "ERR busy"
                      : n % errors == 6 ? "OK 12 STALE"
                      : n % 3 == 0      ? "OK 12 longer, with more to say"
                                        : "OK 12";
    if (n == 40 || n % 700 == 699) {
      static const char wrong[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
      send(fd, wrong, sizeof wrong - 1, MSG_NOSIGNAL);
      break; /* and hang up */
    }
    uint32_t length = (uint32_t)strlen(how) + 1;
    uint32_t wire = htonl(length);
    memcpy(answer, &wire, 4);
    memcpy(answer + 4, how, length);
    if (send(fd, answer, 4 + length, MSG_NOSIGNAL) < 0) break;
  }
  close(fd);
  return NULL;
}

static void *play_hosts(void *arg) {
  int listener = (int)(intptr_t)arg;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 128 << 10);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0) fixture_die("accept");
    pthread_t t;
    if (pthread_create(&t, &small, play_host, (void *)(intptr_t)fd)) close(fd);
  }
  return NULL;
}

static void start_thread(void *(*body)(void *), int arg) {
  pthread_t t;
  if (pthread_create(&t, NULL, body, (void *)(intptr_t)arg)) fixture_die("thread");
  pthread_detach(t);
}

static void *obey(void *arg) {
  static char line[128], answer[256];
  (void)arg;
  while (fixture_line(line, sizeof line) && strcmp(line, "quit") != 0) {
    snprintf(answer, sizeof answer, "ok\n");
    if (strcmp(line, "count") == 0)
      snprintf(answer, sizeof answer,
               "count replies=%ld metrics=%ld frames=%ld entries=%ld "
               "cached=%ld descriptors=%ld\n",
               lost_replies, lost_metrics, lost_frames, lost_entries, cached, logs);
    else if (strcmp(line, "pause") == 0)
      paused = 1;
    else if (strcmp(line, "resume") == 0)
      paused = 0;
    else
      snprintf(answer, sizeof answer, "violation: unknown command\n");
    say(answer);
  }
  quitting = 1;
  return NULL;
}

int main(int argc, char **argv) {
  int option, serving = 0;
  while ((option = getopt(argc, argv, "r:w:e:o:s")) != -1) {
    switch (option) {
    case 'r': rate = atol(optarg); break;
    case 'w': workers = atol(optarg); break;
    case 'e': errors = atol(optarg); break;
    case 'o': old = atol(optarg); break;
    case 's': serving = 1; break;
    default: return 2;
    }
  }
  if (rate < 1 || errors < 7 || workers < 0 || old < 0) {
    dprintf(2, "collector: -r at least 1, -e at least 7\n");
    return 2;
  }
  for (int i = 0; i < HOSTS; i++) pthread_mutex_init(&hosts[i].lock, NULL);
  load_journal();

  struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof here;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 64) ||
      getsockname(listener, (struct sockaddr *)&here, &size))
    fixture_die("listen on loopback");
  port = here.sin_port;
  start_thread(play_hosts, listener);
  for (long i = 0; i < workers; i++) start_thread(worker, (int)(i + 1) * 7);
  if (serving) start_thread(obey, 0);
  say("ready\n");

  int fd = -1;
  for (int i = 0; !quitting; i++) {
    if (!paused) poll_host(i % HOSTS, &fd);
    rest();
  }
  return 0;
}
