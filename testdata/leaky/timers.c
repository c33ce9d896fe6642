/* Blocks whose only pointer is in the kernel: sigev_value of POSIX timers. The
 * timers are armed for a day ahead. */
#include "fixture.h"

#include <signal.h>
#include <time.h>

enum { MAX = 512, SIZE = 88 };
static timer_t timers[MAX];
static uint64_t owners[MAX]; /* xor-ed */
static int ntimers;

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(SIZE); /* want memory 88 */
    fill(p, SIZE);
    lose(p, SIZE);
  }
}

static void keep(long n) {
  for (; n > 0 && ntimers < MAX; n--, ntimers++) {
    void *p = malloc(SIZE);
    fill(p, SIZE);
    note(KEPT, p, SIZE);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value = {.sival_ptr = p}};
    struct itimerspec day = {.it_value = {.tv_sec = 86400}};
    if (timer_create(CLOCK_MONOTONIC, &event, &timers[ntimers]) || timer_settime(timers[ntimers], 0, &day, NULL))
      fixture_die("timer");
    owners[ntimers] = (uint64_t)(uintptr_t)p ^ fixture_mask;
  }
}

static void release(long n) {
  for (; n > 0 && ntimers > 0; n--) {
    ntimers--;
    if (timer_delete(timers[ntimers])) fixture_die("timer_delete");
    void *p = (void *)(uintptr_t)(owners[ntimers] ^ fixture_mask);
    note(FREED, p, SIZE);
    free(p);
  }
}

int main(void) {
  fixture_init();
  signal(SIGUSR1, SIG_IGN);
  static const struct program p = {leak, keep, release, NULL};
  return serve(&p);
}
