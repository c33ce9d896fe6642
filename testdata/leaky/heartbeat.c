/* How long a program stands still: a thread beats at 1 kHz and remembers the
 * two largest gaps between two beats. Usage: heartbeat [-m MB] [-t threads], with
 * so many megabytes of touched 4 KiB pages and so many threads that sleep.
 *
 *   reset  ->  "ok"
 *   max    ->  "max_us N next_us N beats N", since the last reset
 *   fork   ->  "fork_us N", what a fork(2) took until it returned */
#include "fixture.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

static uint64_t longest, second, beats, resets;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *beat(void *arg) {
  uint64_t last = now(), max = 0, next_max = 0, count = 0, seen = 0;
  for (;;) {
    uint64_t next = last + 1000000;
    struct timespec until = {(time_t)(next / 1000000000), (long)(next % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    uint64_t t = now(), reset = __atomic_load_n(&resets, __ATOMIC_ACQUIRE);
    if (reset != seen) {
      seen = reset;
      max = next_max = count = 0;
    } else {
      uint64_t gap = t - last;
      if (gap > max) {
        next_max = max;
        max = gap;
      } else if (gap > next_max) {
        next_max = gap;
      }
      count++;
    }
    last = t;
    __atomic_store_n(&longest, max, __ATOMIC_RELAXED);
    __atomic_store_n(&second, next_max, __ATOMIC_RELAXED);
    __atomic_store_n(&beats, count, __ATOMIC_RELEASE);
  }
  return arg;
}

static void *sleep_always(void *arg) {
  for (;;) pause();
  return arg;
}

static void other(const char *line) {
  if (strcmp(line, "reset") == 0) {
    __atomic_add_fetch(&resets, 1, __ATOMIC_RELEASE);
    usleep(5000);
    say("ok\n");
  } else if (strcmp(line, "max") == 0) {
    char text[100];
    snprintf(text, sizeof text, "max_us %lu next_us %lu beats %lu\n",
             (unsigned long)__atomic_load_n(&longest, __ATOMIC_RELAXED) / 1000,
             (unsigned long)__atomic_load_n(&second, __ATOMIC_RELAXED) / 1000,
             (unsigned long)__atomic_load_n(&beats, __ATOMIC_ACQUIRE));
    say(text);
  } else if (strcmp(line, "fork") == 0) {
    char text[40];
    uint64_t began = now();
    pid_t child = fork();
    if (child == 0) _exit(0);
    uint64_t took = now() - began;
    if (child < 0 || waitpid(child, NULL, 0) != child) fixture_die("fork");
    snprintf(text, sizeof text, "fork_us %lu\n", (unsigned long)took / 1000);
    say(text);
  } else {
    say("violation: unknown command\n");
  }
}

static void start_thread(void *(*body)(void *)) {
  pthread_t t;
  if (pthread_create(&t, NULL, body, NULL)) fixture_die("thread");
}

int main(int argc, char **argv) {
  int option;
  long mb = 0, threads = 0;
  while ((option = getopt(argc, argv, "m:t:")) != -1) {
    if (option == 'm')
      mb = atol(optarg);
    else if (option == 't')
      threads = atol(optarg);
    else
      return 2;
  }
  fixture_init();
  size_t size = (size_t)mb << 20;
  if (size > 0) {
    char *p = (char *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || madvise(p, size, MADV_NOHUGEPAGE)) fixture_die("mmap");
    for (size_t i = 0; i < size; i += 4096) memset(p + i, (int)(i >> 12), 64);
  }
  for (long i = 0; i < threads; i++) start_thread(sleep_always);
  start_thread(beat);
  static const struct program p = {NULL, NULL, NULL, other};
  return serve(&p);
}
