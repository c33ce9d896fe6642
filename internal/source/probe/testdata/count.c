/* Allocates known numbers of blocks of known sizes. Lines:
 *   make THREADS ROUNDS  ->  each thread allocates ROUNDS times one block of
 *                            each size, keeps every second round's and frees
 *                            the others'; "ok"
 *   fork                 ->  a child that stays as long as its parent,
 *                            after it allocated; "child PID"
 *   big N                ->  N blocks of 1 MiB, kept; "ok" */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static const size_t sizes[] = {1, 24, 100, 400, 3000, 70000};
enum { SIZES = 6 };
void *volatile sink;

NOINLINE static void *take(size_t n) {
  void *p = malloc(n);
  sink = p;
  return p;
}

NOINLINE static void *give(size_t n) {
  void *p = calloc(1, n);
  sink = p;
  return p;
}

static void *work(void *arg) {
  long rounds = (long)(intptr_t)arg;
  for (long i = 0; i < rounds; i++) {
    for (int k = 0; k < SIZES; k++) {
      if (i & 1)
        free(give(sizes[k]));
      else
        take(sizes[k]);
    }
  }
  return 0;
}

int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    long threads, rounds;
    if (sscanf(line, "make %ld %ld", &threads, &rounds) == 2) {
      pthread_t t[64];
      for (long i = 0; i < threads; i++) pthread_create(&t[i], 0, work, (void *)(intptr_t)rounds);
      for (long i = 0; i < threads; i++) pthread_join(t[i], 0);
    } else if (sscanf(line, "big %ld", &rounds) == 1) {
      while (rounds-- > 0) take(1 << 20);
    } else if (!strncmp(line, "fork", 4)) {
      pid_t pid = fork();
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < 100000; i++) free(take(100 + (size_t)i % 100));
        char *mine[100];
        for (int i = 0; i < 100; i++) mine[i] = take(400);
        for (int i = 0; i < 100; i++) free(mine[i]);
        printf("child %d\n", getpid());
        fflush(stdout);
        for (;;) pause();
      }
      continue;
    } else if (!strncmp(line, "quit", 4)) {
      return 0;
    }
    puts("ok");
  }
  return 0;
}
