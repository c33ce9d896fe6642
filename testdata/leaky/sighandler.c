/* Signals at 1 kHz on an alternate stack that lies in the heap and that only
 * the kernel points to. The handler jumps out with siglongjmp, and allocates,
 * whenever it did not interrupt the allocator. "check" answers "ok N signals"
 * or the first violation. */
#include "fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

static volatile sig_atomic_t safe, jumps, stop;
static volatile long signals;
static const char *volatile violation;
static sigjmp_buf out;
static unsigned char *from_handler; /* allocated by the handler */

static void handler(int sig) {
  (void)sig;
  signals++;
  if (!safe) return;
  safe = 0;
  /* The interrupted code was in no library, so the handler may allocate. */
  unsigned char *p = (unsigned char *)malloc(300);
  if (!p) violation = "malloc in the handler";
  memset(p, 0x51, 300);
  if (from_handler) {
    if (from_handler[299] != 0x51) violation = "the handler's block changed";
    free(from_handler);
  }
  from_handler = p;
  if (++jumps % 2 == 0) siglongjmp(out, 1);
}

static NOINLINE void compute(void) {
  volatile unsigned x = 1;
  if (sigsetjmp(out, 1)) return;
  safe = 1;
  for (int i = 0; i < 2000000 && safe; i++) x = x * 1664525u + 1013904223u;
  safe = 0;
}

static NOINLINE void allocate(unsigned seed) {
  unsigned char *blocks[32];
  for (unsigned i = 0; i < 32; i++) {
    blocks[i] = (unsigned char *)malloc(1 + (seed * 31 + i * 77) % 700);
    if (!blocks[i]) violation = "malloc";
    blocks[i][0] = (unsigned char)i;
  }
  for (unsigned i = 0; i < 32; i++) {
    if (blocks[i][0] != i) violation = "a block changed";
    free(blocks[i]);
  }
}

static NOINLINE void use_heap_stack(void) {
  size_t size = 64 << 10;
  void *p = malloc(size);
  fill(p, size);
  note(KEPT, p, size);
  stack_t stack = {.ss_sp = p, .ss_size = size};
  if (sigaltstack(&stack, NULL)) fixture_die("sigaltstack");
}

/* Sleeps 4 ms, whatever signals come. */
static void rest(void) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += 4000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_nsec -= 1000000000;
    until.tv_sec++;
  }
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)) {
  }
}

static void *work(void *arg) {
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2};
  event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  struct itimerspec often = {{0, 1000000}, {0, 1000000}};
  use_heap_stack();
  scrub();
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &often, NULL)) fixture_die("timer");
  for (unsigned i = 0; !stop; i++) {
    allocate(i);
    compute(); /* until a signal comes */
    rest();
  }
  timer_delete(timer);
  return arg;
}

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(208); /* want memory 208 */
    fill(p, 208);
    lose(p, 208);
  }
}

static void keep(long n) { keep_blocks(n, 208); }

static void other(const char *line) {
  char answer[200];
  if (strcmp(line, "check") != 0)
    snprintf(answer, sizeof answer, "violation: unknown command\n");
  else if (violation)
    snprintf(answer, sizeof answer, "violation: %s\n", violation);
  else
    snprintf(answer, sizeof answer, "ok %ld signals, %ld jumps\n", signals, (long)jumps / 2);
  say(answer);
}

int main(void) {
  fixture_init();
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR2, &action, NULL);
  pthread_t t;
  if (pthread_create(&t, NULL, work, NULL)) fixture_die("thread");
  static const struct program p = {leak, keep, free_blocks, other};
  int status = serve(&p);
  stop = 1;
  pthread_join(t, NULL);
  return status;
}
