// pairs.c measures. "pairs" opens and closes /dev/zero at a depth of 20 frames
// and prints the least ns of a pair; "calls" prints the least ns of a call that
// nobody watches, of a read, and of a pair. It rests between its rounds, in
// which who reads the events may work.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

#define LEAST(rounds, n, call)                                                                                         \
  ({                                                                                                                   \
    double least = 1e18;                                                                                               \
    for (int round = 0; round < (rounds); round++) {                                                                   \
      usleep(1000);                                                                                                    \
      double from = now();                                                                                             \
      for (int i = 0; i < (n); i++) (void)(call);                                                                      \
      double each = (now() - from) / (n);                                                                              \
      if (each < least) least = each;                                                                                  \
    }                                                                                                                  \
    least;                                                                                                             \
  })

__attribute__((noinline)) static int pair(void) { return close(open("/dev/zero", O_RDONLY)); }

__attribute__((noinline)) static double deep(int n) {
  volatile char room[150];
  room[n] = 0;
  double d = n ? deep(n - 1) : LEAST(200, 50, pair());
  return d + room[n];
}

int main(void) {
  char line[16], c;
  int zero = open("/dev/zero", O_RDONLY);
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    if (!strcmp(line, "pairs\n")) printf("%.1f\n", deep(20));
    if (!strcmp(line, "calls\n"))
      printf("%.1f %.1f %.1f\n", LEAST(200, 500, syscall(SYS_getppid)), LEAST(200, 500, read(zero, &c, 1)),
             LEAST(200, 50, pair()));
    puts("done");
  }
  return 0;
}
