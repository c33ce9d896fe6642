/* Threads that compute and check themselves all the time: heap blocks with
 * checksums, every general and vector register and the flags, counters updated
 * in restartable sequences, a timer signal at 1 kHz, threads that come and go.
 *
 * Commands: "check" answers "ok ROUNDS SIGNALS CHURNED" or "bad ...". Words in
 * argv switch parts on: blocks regs rseq timer churn heart grow=MB hold=MB. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined __GLIBC__ && __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

static volatile long rounds, ticks, churned;
static char bad[400];
#define BAD(...)                                                                                                       \
  do {                                                                                                                 \
    snprintf(bad, sizeof bad, __VA_ARGS__);                                                                            \
  } while (0)
#define ADD(x) __atomic_add_fetch(&(x), 1, __ATOMIC_RELAXED)

static void *blocks(void *arg) {
  uint64_t x = (uintptr_t)arg + 12345;
  struct {
    unsigned char *p;
    size_t n;
    unsigned char c;
  } held[64] = {{0, 0, 0}};
  for (;;) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    int i = x >> 58;
    if (held[i].p) {
      for (size_t k = 0; k < held[i].n; k++)
        if (held[i].p[k] != held[i].c) BAD("block changed");
      free(held[i].p);
    }
    held[i].n = 16 + (x >> 20) % 3000;
    held[i].c = x >> 40;
    held[i].p = malloc(held[i].n);
    memset(held[i].p, held[i].c, held[i].n);
    ADD(rounds);
  }
  return 0;
}

/* Each turn loads all registers with values that depend on the turn, spins,
 * and compares. rsp alone is not a value of our own. */
static void *regs(void *arg) {
  (void)arg;
  for (uint64_t seed = 1;; seed += 0x9e3779b97f4a7c15u) {
    uint64_t in[15], out[15], flags_out;
    unsigned char v[16], vout[16];
    for (int i = 0; i < 15; i++) in[i] = seed * (2 * i + 3);
    in[2] = 20000; /* rcx counts the spin */
    memset(v, (int)(seed >> 56), sizeof v);
    struct {
      uint64_t *in, *out, *flags;
      unsigned char *v, *vout;
    } b = {in, out, &flags_out, v, vout};
    asm volatile("mov %0, %%rax\n\t"
                 "sub $256, %%rsp\n\t" /* leave the red zone alone */
                 "push %%rbp\n\tpush %%rbx\n\t"
                 "push %%rax\n\t"
                 "mov 24(%%rax), %%rdx\n\tmovdqu (%%rdx), %%xmm15\n\tmovdqa %%xmm15, %%xmm0\n\t"
                 "mov (%%rax), %%rax\n\t"
                 "mov 8(%%rax), %%rbx\n\tmov 16(%%rax), %%rcx\n\tmov 24(%%rax), %%rdx\n\tmov 32(%%rax), %%rsi\n\t"
                 "mov 40(%%rax), %%rdi\n\tmov 48(%%rax), %%rbp\n\tmov 56(%%rax), %%r8\n\tmov 64(%%rax), %%r9\n\t"
                 "mov 72(%%rax), %%r10\n\tmov 80(%%rax), %%r11\n\tmov 88(%%rax), %%r12\n\tmov 96(%%rax), %%r13\n\t"
                 "mov 104(%%rax), %%r14\n\tmov 112(%%rax), %%r15\n\tmov (%%rax), %%rax\n\t"
                 "stc\n\t" /* the carry must survive: lea, jrcxz and jmp leave it alone */
                 "1: lea -1(%%rcx), %%rcx\n\tjrcxz 2f\n\tjmp 1b\n\t"
                 "2: push %%rax\n\tpushfq\n\t"
                 "mov 16(%%rsp), %%rax\n\tmov 8(%%rax), %%rax\n\t" /* out */
                 "mov %%rbx, 8(%%rax)\n\tmov %%rcx, 16(%%rax)\n\tmov %%rdx, 24(%%rax)\n\tmov %%rsi, 32(%%rax)\n\t"
                 "mov %%rdi, 40(%%rax)\n\tmov %%rbp, 48(%%rax)\n\tmov %%r8, 56(%%rax)\n\tmov %%r9, 64(%%rax)\n\t"
                 "mov %%r10, 72(%%rax)\n\tmov %%r11, 80(%%rax)\n\tmov %%r12, 88(%%rax)\n\tmov %%r13, 96(%%rax)\n\t"
                 "mov %%r14, 104(%%rax)\n\tmov %%r15, 112(%%rax)\n\t"
                 "pop %%rbx\n\tpop %%rcx\n\tmov %%rcx, (%%rax)\n\t"
                 "pop %%rax\n\tmov 16(%%rax), %%rdx\n\tmov %%rbx, (%%rdx)\n\t"
                 "mov 32(%%rax), %%rdx\n\tpxor %%xmm15, %%xmm0\n\tmovdqu %%xmm0, (%%rdx)\n\t"
                 "pop %%rbx\n\tpop %%rbp\n\tadd $256, %%rsp\n\t"
                 :
                 : "r"(&b)
                 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
                   "xmm15", "memory", "cc");
    in[2] = 0;
    for (int i = 0; i < 15; i++)
      if (in[i] != out[i]) BAD("register %d is %lx, not %lx", i, out[i], in[i]);
    if (!(flags_out & 1)) BAD("carry flag lost");
    for (int i = 0; i < 16; i++)
      if (vout[i]) BAD("vector register changed");
    ADD(rounds);
  }
  return 0;
}

#ifdef RSEQ_SIG
/* A per-processor counter, in the way of librseq: lost updates show as a sum
 * below the number of increments. */
static struct {
  volatile long n;
  char pad[56];
} counter[256];
static volatile long increments;
static int increment(struct rseq *r) {
  int cpu = *(volatile int *)&r->cpu_id_start;
  volatile long *c = &counter[cpu].n;
  asm goto(".pushsection __rseq_cs, \"aw\"\n\t.balign 32\n\t"
           "3: .long 0, 0\n\t.quad 1f, (2f - 1f), 4f\n\t.popsection\n\t"
           "lea 3b(%%rip), %%rax\n\tmov %%rax, %[cs]\n\t"
           "1: cmpl %[cpu], %[id]\n\tjnz %l[again]\n\t"
           "mov (%[c]), %%rax\n\tmov $300, %%edx\n\t5: dec %%edx\n\tjnz 5b\n\tinc %%rax\n\tmov %%rax, (%[c])\n\t2:\n\t"
           ".pushsection .text.abort, \"ax\"\n\t.byte 0x0f, 0xb9, 0x3d\n\t.long 0x53053053\n\t4: jmp "
           "%l[again]\n\t.popsection\n\t"
           :
           : [cs] "m"(r->rseq_cs), [cpu] "r"(cpu), [id] "m"(r->cpu_id), [c] "r"(c)
           : "rax", "rdx", "memory", "cc"
           : again);
  return 1;
again:
  return 0;
}
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER; /* check sees both sides alike */
static int inside;
static void *rseq(void *arg) {
  (void)arg;
  struct rseq *r = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
  for (;;) {
    pthread_mutex_lock(&counting);
    __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&counting);
    for (int i = 0; i < 1000; i++) {
      while (!increment(r)) {
      }
      __atomic_add_fetch(&increments, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
    ADD(rounds);
  }
  return 0;
}
static void check_rseq(void) {
  long sum = 0;
  pthread_mutex_lock(&counting);
  while (__atomic_load_n(&inside, __ATOMIC_SEQ_CST)) usleep(1000);
  for (int i = 0; i < 256; i++) sum += counter[i].n;
  if (sum != increments) BAD("rseq counted %ld of %ld", sum, increments);
  pthread_mutex_unlock(&counting);
}
#endif

static void tick(int sig, siginfo_t *si, void *ctx) {
  (void)ctx;
  if (sig != SIGALRM || si->si_code != SI_KERNEL) BAD("signal information changed: %d %d", sig, si->si_code);
  ADD(ticks);
}

static void *brief(void *arg) {
  free(malloc(100));
  return arg;
}
static void *churn(void *arg) {
  for (;;) {
    pthread_t t;
    if (pthread_create(&t, 0, brief, arg) == 0) pthread_join(t, 0);
    ADD(churned);
  }
  return 0;
}

static void *grow(void *arg) { /* writes each page again and again */
  size_t n = (size_t)arg << 20;
  volatile char *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (;;)
    for (size_t i = 0; i < n; i += 4096) {
      p[i]++;
      if (i % (1 << 20) == 0) ADD(rounds);
    }
  return 0;
}

/* A 1 kHz thread that notes its longest delay. */
static volatile long gap_us;
static void *heart(void *arg) {
  struct timespec next, now;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (;;) {
    next.tv_nsec += 1000000;
    if (next.tv_nsec >= 1000000000) next.tv_nsec -= 1000000000, next.tv_sec++;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    long late = (now.tv_sec - next.tv_sec) * 1000000 + (now.tv_nsec - next.tv_nsec) / 1000;
    if (late > gap_us) gap_us = late;
    if (late > 1000) next = now;
  }
  return arg;
}

static void start(void *(*f)(void *), long arg) {
  pthread_t t;
  pthread_attr_t a;
  pthread_attr_init(&a);
  pthread_attr_setstacksize(&a, 256 << 10);
  if (pthread_create(&t, &a, f, (void *)arg)) exit(9);
}

int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IOLBF, 0);
  int timer = 0;
  for (int i = 1; i < argc; i++) {
    long mb;
    if (!strcmp(argv[i], "blocks"))
      start(blocks, i);
    else if (!strcmp(argv[i], "regs"))
      start(regs, i);
#ifdef RSEQ_SIG
    else if (!strcmp(argv[i], "rseq"))
      start(rseq, i);
#endif
    else if (!strcmp(argv[i], "churn"))
      start(churn, i);
    else if (!strcmp(argv[i], "timer"))
      timer = 1;
    else if (!strcmp(argv[i], "heart"))
      start(heart, i);
    else if (sscanf(argv[i], "grow=%ld", &mb) == 1)
      start(grow, mb);
    else if (sscanf(argv[i], "hold=%ld", &mb) == 1)
      memset(malloc(mb << 20), 1, mb << 20);
  }
  if (timer) {
    struct sigaction sa = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGALRM, &sa, 0);
    struct itimerval it = {{0, 1000}, {0, 1000}};
    setitimer(ITIMER_REAL, &it, 0);
  }
  puts("ready");
  char line[100];
  for (;;) {
    if (!fgets(line, sizeof line, stdin)) {
      if (errno == EINTR && !feof(stdin)) BAD("read was interrupted");
      break;
    }
    if (!strncmp(line, "gap", 3)) {
      printf("gap %ld\n", gap_us);
      gap_us = 0;
      continue;
    }
    if (strncmp(line, "check", 5)) break;
#ifdef RSEQ_SIG
    check_rseq();
#endif
    if (bad[0])
      printf("bad %s\n", bad);
    else
      printf("ok %ld %ld %ld\n", rounds, ticks, churned);
  }
  _exit(bad[0] != 0);
}
