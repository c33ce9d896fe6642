/* What programs with busy threads share: rounds that must move on, the first
 * thing that went wrong, and a loss of blocks of one size. Define LOST_SIZE and
 * MAX_THREADS before. */
#ifndef WORKERS_H
#define WORKERS_H

#include "fixture.h"

#include <stdatomic.h>
#include <time.h>

static long nthreads;
static atomic_long rounds[MAX_THREADS];
static const char *volatile broken;

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(LOST_SIZE);
    fill(p, LOST_SIZE);
    lose(p, LOST_SIZE);
  }
}

/* Answers "check" with "ok" once every thread has moved on. */
static void other(const char *line) {
  if (strcmp(line, "check") != 0) {
    say("violation: unknown command\n");
    return;
  }
  for (long i = 0; i < nthreads; i++) {
    long before = rounds[i];
    for (int ms = 0; rounds[i] == before && ms < 20000; ms++) {
      struct timespec t = {0, 1000000};
      nanosleep(&t, NULL);
    }
    if (rounds[i] == before) broken = "a thread stands still";
  }
  if (!broken) {
    say("ok\n");
    return;
  }
  say("violation: ");
  say(broken);
  say("\n");
}

#endif
