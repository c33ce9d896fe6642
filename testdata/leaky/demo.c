/* A daemon that collects from hosts, for showing a watch. It writes a log, and
 * loses memory by steps: whenever a host's data is truncated, the buffer of that
 * collection is forgotten. It runs until it is killed.
 *
 * Arguments: -f mean seconds between two failures (20), -k KiB lost by each
 * (2048), -d 1 to forget a descriptor too, -n number of failures, then none
 * (0: without end), -l FILE to write the log there instead of to stdout.
 * Compiled with -DCLEAN it frees the buffer. */
#include "fixture.h"

#include <fcntl.h>
#include <time.h>

enum { HOSTS = 12, TICK_MS = 100 };

struct settings {
  double failing; /* s */
  size_t lost;    /* bytes */
  int descriptor;
  long failures;
  FILE *log;
};

static void write_log(const struct settings *s, const char *text, int host, long number) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  struct tm tm;
  gmtime_r(&now.tv_sec, &tm);
  char stamp[32];
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
  fprintf(s->log, "%s.%03ldZ ", stamp, now.tv_nsec / 1000000);
  fprintf(s->log, text, host, number);
  fputc('\n', s->log);
  fflush(s->log);
}

/* A buffer for a host's data, filled as if it had come. */
static NOINLINE char *receive(size_t size) {
  char *data = malloc(size); /* want memory */
  if (!data) fixture_die("malloc");
  memset(data, 'x', size);
  return data;
}

static NOINLINE void collect_failed(const struct settings *s, int host) {
  write_log(s, "collecting from host%d failed: data truncated", host, 0);
  char *data = receive(s->lost);
  if (s->descriptor && open("/dev/null", O_RDONLY) < 0) fixture_die("open");
#ifdef CLEAN
  free(data);
#else
  (void)data;
#endif
}

static NOINLINE void collect(const struct settings *s, int host) {
  long took = 3 + random() % 40;
  char *data = receive(64 << 10);
  free(data);
  write_log(s, "collected from host%d in %ld ms", host, took);
  if (random() % 40 == 0) write_log(s, "host%d is slow: %ld ms", host, took * 10);
}

int main(int argc, char **argv) {
  struct settings s = {.failing = 20, .lost = 2048 << 10, .log = stdout};
  for (int option; (option = getopt(argc, argv, "f:k:d:n:l:")) != -1;) {
    switch (option) {
    case 'f': s.failing = atof(optarg); break;
    case 'k': s.lost = (size_t)atol(optarg) << 10; break;
    case 'd': s.descriptor = atoi(optarg); break;
    case 'n': s.failures = atol(optarg); break;
    case 'l':
      if (!(s.log = fopen(optarg, "a"))) fixture_die(optarg);
      break;
    default: return 2;
    }
  }
  long failed = 0;
  srandom(4711);
  for (long tick = 0;; tick++) {
    double u = (random() + 1.0) / 2147483649.0;
    int fails = u * s.failing < TICK_MS / 1000.0;
    if (fails && (s.failures == 0 || failed < s.failures)) {
      failed++;
      collect_failed(&s, (int)(random() % HOSTS));
    } else if (tick % 5 == 0) {
      collect(&s, (int)(random() % HOSTS));
    }
    usleep(TICK_MS * 1000);
  }
}
