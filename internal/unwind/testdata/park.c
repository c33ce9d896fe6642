/* Waits for ever in pause(), built with frame pointers on a libc that has no
 * unwind data. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static volatile int sink;

static NOINLINE void bottom(void) {
  puts("ready");
  fflush(stdout);
  for (;;)
    pause();
}

static NOINLINE void deeper(int n);

static void handler(int s) {
  deeper(10);
  sink += s;
}

static NOINLINE void deeper(int n) {
  volatile char buffer[48];
  buffer[n] = 1;
  if (n == 11)
    __asm__ volatile("ud2");
  else if (n == 0)
    bottom();
  else
    deeper(n - 1);
  sink += buffer[n];
}

int main(void) {
  signal(SIGILL, handler);
  deeper(24);
}
