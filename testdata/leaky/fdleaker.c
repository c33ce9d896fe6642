/* A program that forgets descriptors on its error paths.
 *
 *   fdleaker FILE...    opens each file, forgets some descriptors, exits with 0
 *   fdleaker serve      the same on commands: "leak N" as for N files, "session"
 *                       what is done once for all; "keep N" opens N that it
 *                       knows of, "free N" closes them, "churn N" opens and
 *                       closes N, "limit N" sets the soft limit
 *
 * A line that opens what is never closed says "want fd" and the kernel's name
 * of the call; it does so for each file, or "once". The clean twin leaves
 * nothing open. */
#include "fixture.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* Closes a descriptor at the end of an error path: the clean twin does. */
static void forget(int fd) {
#ifdef CLEAN
  close(fd);
#else
  (void)fd;
#endif
}

static int opened(int fd, const char *what) {
  if (fd < 0) fixture_die(what);
  return fd;
}

/* A missing file stands for /dev/null: what matters is that one is opened. */
static const char *present(const char *path) { return access(path, R_OK) ? "/dev/null" : path; }

static NOINLINE long read_header(int fd) {
  char header[16];
  return read(fd, header, sizeof header);
}

static NOINLINE int load_config(const char *path) {
  int fd = opened(open(path, O_RDONLY), path); /* want fd openat */
  if (read_header(fd) >= 0) {
    forget(fd); /* the header is not the expected one */
    return -1;
  }
  close(fd);
  return 0;
}

static NOINLINE int count_lines(const char *path) {
  FILE *in = fopen(path, "r");
  if (!in) fixture_die(path);
  int lines = 0;
  for (int c; (c = fgetc(in)) != EOF;) lines += c == '\n';
  fclose(in);
  return lines;
}

static NOINLINE int open_log(void) {
  int fd = opened(open("/dev/null", O_WRONLY | O_APPEND), "log");
  int copy = opened(dup(fd), "dup"); /* want fd dup once */
  close(fd);
  return copy;
}

static NOINLINE int run_filter(void) {
  int ends[2];
  if (pipe(ends)) fixture_die("pipe"); /* want fd pipe2 once */
  close(ends[1]);
  return ends[0];
}

static NOINLINE int ask_server(void) {
  int fd = opened(socket(AF_INET, SOCK_STREAM, 0), "socket"); /* want fd socket once */
  struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(1)};
  if (connect(fd, (struct sockaddr *)&nobody, sizeof nobody)) {
    forget(fd); /* no answer: an error path */
    return -1;
  }
  close(fd);
  return 0;
}

static NOINLINE void work_on(const char *path) {
  path = present(path);
  count_lines(path);
  load_config(path);
  for (int i = 0; i < 3; i++) close(opened(open(path, O_RDONLY | O_CLOEXEC), path));
}

/* What is opened once for all files. */
static NOINLINE void session(void) {
  forget(open_log());
  forget(run_filter());
  ask_server();
}

/* ---- serve ---- */

static int keeping[1 << 17];
static long kept;

static NOINLINE int keep_one(void) { return opened(open("/dev/null", O_RDWR), "keep"); }

static void leak(long n) {
  while (n-- > 0) work_on("/etc/hostname");
}

static void keep(long n) {
  for (; n > 0; n--) {
    if (kept == sizeof keeping / sizeof *keeping) fixture_die("keep");
    keeping[kept++] = keep_one();
  }
}

static void release(long n) {
  for (; n > 0 && kept > 0; n--) close(keeping[--kept]);
}

static NOINLINE void churn_one(void) { close(opened(open("/dev/null", O_RDONLY), "churn")); }

static void set_limit(rlim_t n) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) fixture_die("getrlimit");
  limit.rlim_cur = n;
  if (setrlimit(RLIMIT_NOFILE, &limit)) fixture_die("setrlimit");
}

static void other(const char *line) {
  long n;
  if (sscanf(line, "churn %ld", &n) == 1) {
    while (n-- > 0) churn_one();
  } else if (strcmp(line, "session") == 0) {
    session();
  } else if (sscanf(line, "limit %ld", &n) == 1) {
    set_limit((rlim_t)n);
  } else {
    say("violation: unknown command\n");
    return;
  }
  say("ok\n");
}

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "serve")) {
    static const struct program program = {leak, keep, release, other};
    return serve(&program);
  }
  for (int i = 1; i < argc; i++) work_on(argv[i]);
  session();
  return 0;
}
