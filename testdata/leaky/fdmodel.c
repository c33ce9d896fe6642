/* A random sequence of the calls that open, duplicate, pass and close
 * descriptors, over threads, forks and execs, by a program that knows at any
 * moment what it has open and which line opened it.
 *
 *   fdmodel SEED [CALLS [norace]]
 *
 *   go      ->  "done": the sequence is over
 *   report  ->  for this process and each child alive "process PID N" and N
 *               lines "NUMBER CALL WHO"; then "end". WHO is FUNCTION:LINE,
 *               "received FUNCTION:LINE", or "unknown" with the possible ones
 *               ("unknown f:1|g:2"); "inherited from PID " before it says that
 *               PID did it, before a fork.
 *
 * Threads take turns, so that a seed gives one sequence; in races they all run
 * at once and close each other's numbers, and what is open is asked of the
 * kernel afterwards. CALL is the kernel's name for what glibc's wrapper does.
 * Each call stands in a function of its own, in one line, and at varied depth:
 * its stack is more than 4 KB at times. */
#include "fixture.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

enum {
  MAX = 512,    /* RLIMIT_NOFILE, set here */
  RANGE = 320,  /* numbers below are named on purpose */
  BUSY = 300,   /* open at once, about twice of what is usual */
  THREADS = 4,  /* that take turns */
  CHILDREN = 5, /* that stay to the end */
  RIGHTS = 4    /* descriptors in one message */
};

/* ---- the calls ---- */

struct call {
  int a, b;   /* numbers, as arguments */
  int two[2]; /* what pipe and socketpair fill */
  void *p;    /* a stream, or another argument */
};

enum effect { NEW, TWO, ONTO, STREAM, RECEIVES, CLOSES, ENDS, RANGES, MARKS };
enum { CLOEXEC = 1, RACY = 2, RARE = 4, MANUAL = 8 };

struct op {
  const char *call, *name;
  int line;
  enum effect effect;
  int flags;
  long (*run)(struct call *);
};

/* OP defines the function NAME, in one line, that makes one call. What follows
 * the call keeps it from becoming a jump, which would leave no frame. */
#define OP(effect, flags, kernel, name, expr)                                                                          \
  static NOINLINE long name(struct call *c) {                                                                          \
    long r = ((void)c, (long)(expr));                                                                                  \
    __asm__ volatile("" : "+r"(r)::"memory");                                                                          \
    return r;                                                                                                          \
  }                                                                                                                    \
  static const struct op op_##name = {kernel, #name, __LINE__, effect, flags, name};                                   \
  static const struct op *const listed_##name __attribute__((section("ops"), used)) = &op_##name;

extern const struct op *const __start_ops[], *const __stop_ops[];

static sigset_t no_signals;
static struct open_how how_read = {.flags = O_RDONLY | O_CLOEXEC};

/* clang-format off */
OP(NEW, RACY, "openat", open_read, open("/dev/null", O_RDONLY))
OP(NEW, RACY | CLOEXEC, "openat", open_both, open("/dev/null", O_RDWR | O_CLOEXEC))
OP(NEW, RACY, "openat", open_zero, openat(AT_FDCWD, "/dev/zero", O_RDONLY))
OP(NEW, 0, "openat", open_missing, open("/dev/null/missing", O_RDONLY))
OP(NEW, RACY, "open", open_old, syscall(SYS_open, "/dev/null", O_RDONLY))
OP(NEW, CLOEXEC, "openat2", open_new, syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how_read, sizeof how_read))
OP(NEW, 0, "openat", open_path, open("/", O_PATH))
OP(NEW, CLOEXEC, "openat", open_unnamed, open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600))
OP(NEW, RACY, "creat", create, creat("/dev/null", 0600))
OP(STREAM, 0, "openat", open_stream, (c->p = fopen("/dev/null", "r")) ? fileno(c->p) : -1)
OP(STREAM, CLOEXEC, "openat", open_directory, (c->p = opendir("/")) ? dirfd(c->p) : -1)
OP(NEW, RACY, "socket", socket_tcp, socket(AF_INET, SOCK_STREAM, 0))
OP(NEW, CLOEXEC, "socket", socket_udp, socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))
OP(NEW, RACY, "socket", socket_unix, socket(AF_UNIX, SOCK_STREAM, 0))
OP(TWO, RACY, "socketpair", pair, socketpair(AF_UNIX, SOCK_STREAM, 0, c->two))
OP(TWO, CLOEXEC, "socketpair", pair_cloexec, socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, c->two))
OP(TWO, MANUAL, "socketpair", pair_link, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, c->two))
OP(TWO, RACY, "pipe2", pipe_one, pipe(c->two))
OP(TWO, 0, "pipe", pipe_old, syscall(SYS_pipe, c->two))
OP(TWO, RACY | CLOEXEC, "pipe2", pipe_cloexec, pipe2(c->two, O_CLOEXEC))
OP(NEW, RACY, "dup", dup_lowest, dup(c->a))
OP(ONTO, RACY, "dup2", dup_onto, dup2(c->a, c->b))
OP(ONTO, RACY | CLOEXEC, "dup3", dup_onto_cloexec, dup3(c->a, c->b, O_CLOEXEC))
OP(NEW, RACY, "fcntl", dup_from, fcntl(c->a, F_DUPFD, c->b))
OP(NEW, RACY | CLOEXEC, "fcntl", dup_from_cloexec, fcntl(c->a, F_DUPFD_CLOEXEC, c->b))
OP(NEW, RACY, "eventfd2", event, eventfd(0, 0))
OP(NEW, CLOEXEC, "eventfd2", event_cloexec, eventfd(1, EFD_CLOEXEC))
OP(NEW, 0, "timerfd_create", timer, timerfd_create(CLOCK_MONOTONIC, 0))
OP(NEW, CLOEXEC, "signalfd4", signals, signalfd(-1, &no_signals, SFD_CLOEXEC))
OP(NEW, 0, "epoll_create1", epoll, epoll_create1(0))
OP(NEW, RARE | CLOEXEC, "inotify_init1", notify, inotify_init1(IN_CLOEXEC))
OP(NEW, RACY, "memfd_create", memory, memfd_create("model", 0))
OP(NEW, MANUAL, "memfd_create", memory_state, memfd_create("state", 0))
OP(NEW, MANUAL, "socket", listener, socket(AF_INET, SOCK_STREAM, 0))
OP(NEW, MANUAL, "socket", client, socket(AF_INET, SOCK_STREAM, 0))
OP(NEW, MANUAL, "accept", accept_one, accept(c->a, NULL, NULL))
OP(NEW, MANUAL | CLOEXEC, "accept4", accept_cloexec, accept4(c->a, NULL, NULL, SOCK_CLOEXEC))
OP(NEW, MANUAL | CLOEXEC, "pidfd_open", pid_open, pidfd_open(c->a, 0))
OP(RECEIVES, MANUAL | CLOEXEC, "pidfd_getfd", pid_get, pidfd_getfd(c->a, c->b, 0))
OP(RECEIVES, MANUAL, "recvmsg", receive, recvmsg(c->a, c->p, 0))
OP(RECEIVES, MANUAL | CLOEXEC, "recvmsg", receive_cloexec, recvmsg(c->a, c->p, MSG_CMSG_CLOEXEC))
OP(CLOSES, RACY, "close", close_one, close(c->a))
OP(CLOSES, RACY, "close", close_other, close(c->a))
OP(RANGES, RACY, "close_range", close_some, close_range(c->a, c->b, 0))
OP(MARKS, RACY | CLOEXEC, "close_range", mark_some, close_range(c->a, c->b, CLOSE_RANGE_CLOEXEC))
OP(MARKS, 0, "fcntl", unmark, fcntl((c->b = c->a), F_SETFD, 0))
OP(ENDS, MANUAL, "close", close_stream, fclose(c->p))
OP(ENDS, MANUAL, "close", close_directory, closedir(c->p))
/* clang-format on */

/* Makes the call below some frames of different sizes. */
static NOINLINE long make(const struct op *op, struct call *c, unsigned depth) {
  volatile char frame[64 << (depth & 3)];
  frame[0] = (char)depth;
  long r = depth > 0 ? make(op, c, depth - 1) : op->run(c);
  (void)frame[0]; /* not a jump, either */
  return r;
}

/* ---- the model ---- */

enum { POSSIBLE = 6 };

struct descriptor {
  bool open, cloexec, guarded; /* a guarded one is never closed at random */
  bool received, unknown;
  uint8_t possible;     /* how many of by are meant: 1 unless unknown */
  uint8_t by[POSSIBLE]; /* index in ops */
  int pid;              /* of the process that made the call */
};

/* All that a process knows, without pointers: it goes through exec. */
static struct state {
  struct descriptor at[MAX];
  uint64_t random;
  long budget; /* calls still to make */
  int pid, link, listener, threads, generation;
  bool races;
  struct sockaddr_in address; /* of the listener */
  char exe[512];
} s;

static void *streams[MAX];
static const struct op *stream_ends[MAX];
static int open_now;

static uint32_t draw(uint64_t *state, uint32_t n) { /* xorshift64* */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return (uint32_t)((*state * 2685821657736338717u) >> 33) % n;
}

static uint32_t rnd(uint32_t n) { return draw(&s.random, n); }

static void violation(const char *what, int number) {
  char line[200];
  snprintf(line, sizeof line, "violation: process %d: descriptor %d: %s\n", s.pid, number, what);
  say(line);
}

static uint8_t index_of(const struct op *op) {
  const struct op *const *i = __start_ops;
  while (*i != op) i++;
  return (uint8_t)(i - __start_ops);
}

static void gone(long n) {
  if (s.at[n].open) open_now--;
  s.at[n] = (struct descriptor){0};
  streams[n] = NULL;
}

static void here(long n, const struct op *op) {
  gone(n);
  open_now++;
  s.at[n] = (struct descriptor){.open = true,
                                .cloexec = op->flags & CLOEXEC,
                                .received = op->effect == RECEIVES,
                                .possible = 1,
                                .by = {index_of(op)},
                                .pid = s.pid};
}

/* Makes a call and keeps the model true. */
static long perform(const struct op *op, struct call *c) {
  s.budget--;
  long r = make(op, c, rnd(16));
  if (r < 0) return r;
  switch (op->effect) {
  case NEW:
    if (s.at[r].open) violation("opened while the model has it open", (int)r);
    here(r, op);
    break;
  case TWO:
    here(c->two[0], op);
    here(c->two[1], op);
    break;
  case ONTO:
    if (c->a != c->b) here(r, op);
    break;
  case STREAM:
    here(r, op);
    streams[r] = c->p;
    stream_ends[r] = op == &op_open_stream ? &op_close_stream : &op_close_directory;
    break;
  case RECEIVES:
    if (op == &op_pid_get) here(r, op);
    break;
  case CLOSES: gone(c->a); break;
  case ENDS: gone(c->a); break;
  case RANGES:
    for (int n = c->a; n <= c->b; n++) gone(n);
    break;
  case MARKS:
    for (int n = c->a; n <= c->b; n++) s.at[n].cloexec = s.at[n].open && (op->flags & CLOEXEC);
    break;
  }
  return r;
}

/* Holds the model against the kernel. */
static void check(void) {
  for (int n = 0; n < MAX; n++) {
    int flags = fcntl(n, F_GETFD);
    if ((flags >= 0) != s.at[n].open) violation(flags >= 0 ? "open, not in the model" : "in the model, not open", n);
    if (flags >= 0 && s.at[n].open && (flags == FD_CLOEXEC) != s.at[n].cloexec) violation("close-on-exec", n);
  }
}

static void report(void) {
  static char out[1 << 16];
  int n = snprintf(out, sizeof out, "process %d %d\n", s.pid, open_now);
  for (int i = 0; i < MAX; i++) {
    const struct descriptor *d = &s.at[i];
    if (!d->open) continue;
    n += sprintf(out + n, "%d %s ", i, d->unknown ? "?" : __start_ops[d->by[0]]->call);
    if (d->pid != s.pid) n += sprintf(out + n, "inherited from %d ", d->pid);
    n += sprintf(out + n, "%s", d->unknown ? "unknown" : d->received ? "received " : "");
    for (int j = 0; j < d->possible; j++) {
      const struct op *op = __start_ops[d->by[j]];
      n += sprintf(out + n, "%s%s:%d", j > 0 ? "|" : d->unknown ? " " : "", op->name, op->line);
    }
    n += sprintf(out + n, "\n");
    if (n > (int)sizeof out - 600) {
      say(out);
      n = 0;
    }
  }
  out[n] = 0;
  say(out);
}

/* ---- single steps ---- */

static bool loose(int n) { return s.at[n].open && !s.at[n].guarded && !streams[n]; }

/* An open number, or MAX. */
static int any(void) {
  for (int n = (int)rnd(RANGE), end = n + MAX; n < end; n++)
    if (s.at[n % MAX].open) return n % MAX;
  return MAX;
}

static const struct op *choose(uint64_t *random, bool closing, int flags) {
  uint32_t all = (uint32_t)(__stop_ops - __start_ops);
  for (;;) {
    const struct op *op = __start_ops[draw(random, all)];
    if ((op->flags & MANUAL) || (op->effect >= CLOSES) != closing || (op->flags & flags) != flags) continue;
    if ((op->flags & RARE) && draw(random, 16) > 0) continue;
    return op;
  }
}

static void close_step(void) {
  struct call c = {.a = any()};
  if (c.a == MAX || s.at[c.a].guarded) return;
  if (streams[c.a]) {
    c.p = streams[c.a];
    perform(stream_ends[c.a], &c);
    return;
  }
  const struct op *op = choose(&s.random, true, 0);
  for (c.b = c.a; c.b < c.a + (int)rnd(6) && c.b + 1 < MAX && loose(c.b + 1);) c.b++;
  perform(op, &c);
}

static void open_step(void) {
  struct call c = {.a = any(), .b = (int)rnd(RANGE)};
  const struct op *op = choose(&s.random, false, 0);
  if (op->effect == ONTO && (s.at[c.b].guarded || streams[c.b])) return;
  perform(op, &c);
}

static void accept_step(void) {
  struct call c = {.a = s.listener};
  int fd = (int)perform(&op_client, &c);
  if (fd < 0) return;
  if (connect(fd, (struct sockaddr *)&s.address, sizeof s.address)) fixture_die("connect");
  if (perform(rnd(2) ? &op_accept_one : &op_accept_cloexec, &c) < 0) fixture_die("accept");
}

/* Takes a descriptor out of a process: of another one its stdout, as what else
 * it has open just then is left to chance. */
static void take_step(int pid) {
  struct call c = {.a = pid}, get = {.b = pid == s.pid ? any() : 1};
  get.a = (int)perform(&op_pid_open, &c);
  if (get.a >= 0) perform(&op_pid_get, &get);
}

#include "fdmodel_tasks.h"

static void start_sequence(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) fixture_die("getrlimit");
  limit.rlim_cur = MAX;
  if (setrlimit(RLIMIT_NOFILE, &limit)) fixture_die("setrlimit");
  s.threads = THREADS;
  adopt(getppid());
  struct call c = {0};
  s.listener = (int)perform(&op_listener, &c);
  s.at[s.listener].guarded = true;
  s.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof s.address;
  if (bind(s.listener, (struct sockaddr *)&s.address, size) || listen(s.listener, 128) ||
      getsockname(s.listener, (struct sockaddr *)&s.address, &size))
    fixture_die("listener");
}

static void obey(const char *line) {
  if (!strcmp(line, "go")) {
    start_sequence();
    sequence();
    say("done\n");
  } else if (!strcmp(line, "report")) {
    report_all();
  } else {
    say("violation: unknown command\n");
  }
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc == 3 && !strcmp(argv[1], "continue")) return continue_from(atoi(argv[2]));
  if (argc == 2 && !strcmp(argv[1], "nothing")) return 0;
  s.random = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) * 0x9e3779b97f4a7c15u | 1;
  s.budget = argc > 2 ? atol(argv[2]) : 100000;
  s.races = argc <= 3 || strcmp(argv[3], "norace") != 0;
  if (readlink("/proc/self/exe", s.exe, sizeof s.exe - 1) < 0) fixture_die("readlink");
  static const struct program program = {.other = obey};
  int status = serve(&program);
  end_children();
  return status;
}
