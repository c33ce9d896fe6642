/* What harm.cc checks of the machine's state: restartable sequences, registers
 * across system calls, signals at 1 kHz. */
#ifndef HARM_STATE_H
#define HARM_STATE_H

#include "harm.h"

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

namespace {

/* --- restartable sequences: per-CPU counters that only rseq protects --- */

#ifdef RSEQ_SIG
struct alignas(128) cpu_count {
  int64_t n;
};
cpu_count cpu_counts[1024];
std::atomic<int64_t> rseq_done[2], rseq_aborts;
std::atomic<int> rseq_hold, rseq_held[2];

/* Adds one to the counter of the current CPU: load, a while of nothing, store.
 * Whatever preempts it in between must make the kernel jump to its abort
 * handler. Returns false when that happened. */
NOINLINE bool count_on_cpu(struct rseq *r) {
  uint32_t cpu = __atomic_load_n(&r->cpu_id_start, __ATOMIC_RELAXED);
  if (cpu >= 1024) return false;
  __asm__ goto(".pushsection __rseq_cs, \"aw\"\n\t"
               ".balign 32\n"
               "3:\n\t"
               ".long 0, 0\n\t"
               ".quad 1f, 2f - 1f, 4f\n\t"
               ".popsection\n\t"
               "leaq 3b(%%rip), %%rax\n\t"
               "movq %%rax, %[cs]\n"
               "1:\n\t"
               "cmpl %[cpu], %[cpu_id]\n\t"
               "jnz 4f\n\t"
               "movq %[n], %%rax\n\t"
               "movl $400, %%ecx\n"
               "5:\n\t"
               "decl %%ecx\n\t"
               "jnz 5b\n\t"
               "incq %%rax\n\t"
               "movq %%rax, %[n]\n"
               "2:\n\t"
               ".pushsection .text.unlikely, \"ax\"\n\t"
               ".byte 0x0f, 0xb9, 0x3d\n\t" /* ud1, so that a debugger skips the signature */
               ".long 0x53053053\n"
               "4:\n\t"
               "jmp %l[aborted]\n\t"
               ".popsection"
               :
               : [cs] "m"(r->rseq_cs), [cpu_id] "m"(r->cpu_id), [cpu] "r"(cpu), [n] "m"(cpu_counts[cpu].n)
               : "rax", "rcx", "memory", "cc"
               : aborted);
  return true;
aborted:
  return false;
}

struct rseq *my_rseq() {
  return reinterpret_cast<struct rseq *>(static_cast<char *>(__builtin_thread_pointer()) + __rseq_offset);
}

bool set_rseq(part *p) {
  if (__rseq_size == 0) return false; /* glibc.pthread.rseq=0, or no kernel support */
  p->a = p->name[strlen(p->name) - 1] - '0';
  return true;
}

void rseq_once(part *p) {
  struct rseq *r = my_rseq();
  for (int i = 0; i < 300; i++) {
    while (!count_on_cpu(r)) rseq_aborts++;
    rseq_done[p->a]++;
  }
  rest();
  while (rseq_hold && !parking) {
    rseq_held[p->a] = 1;
    rest_for(500);
  }
  rseq_held[p->a] = 0;
}

/* Stops both counting threads for a moment and compares the sums. */
void rseq_audit_once(part *p) {
  rest_for(50000);
  rseq_hold = 1;
  int64_t give_up = now_ns() + 5000000000;
  while (!(rseq_held[0] && rseq_held[1]) && now_ns() < give_up && !parking) rest_for(500);
  if (rseq_held[0] && rseq_held[1]) {
    int64_t counted = 0, done = rseq_done[0] + rseq_done[1];
    for (auto &c : cpu_counts) counted += c.n;
    if (counted != done) violation("%s: %ld counted on the CPUs, %ld done", p->name, counted, done);
  }
  rseq_hold = 0;
}
#else
bool set_rseq(part *) { return false; }
void rseq_once(part *) {}
void rseq_audit_once(part *) {}
#endif

/* --- registers across a system call --- */

struct registers {
  uint64_t rbx, rbp, r8, r9, r10, r12, r13, r14, r15, rdi, rsi, rdx;
  uint64_t xmm[16][2];
  uint64_t carry, rax;
};

/* Makes a system call with known values in all registers that it must keep,
 * and stores what they are afterwards. */
extern "C" long harm_syscall(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t unused, registers *after);
__asm__(R"(
	.text
	.type harm_syscall, @function
harm_syscall:
	.cfi_startproc
	pushq %rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	pushq %rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbp, 0
	pushq %r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r12, 0
	pushq %r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r13, 0
	pushq %r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r14, 0
	pushq %r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r15, 0
	pushq %r9
	.cfi_adjust_cfa_offset 8
	movq %rdi, %rax
	movq %rsi, %rdi
	movq %rdx, %rsi
	movq %rcx, %rdx
	movabsq $0x1b1b1b1b1b1b1b1b, %rbx
	movabsq $0x2b2b2b2b2b2b2b2b, %rbp
	movabsq $0x3838383838383838, %r8
	movabsq $0x4949494949494949, %r9
	movabsq $0x5a105a105a105a10, %r10
	movabsq $0x6c126c126c126c12, %r12
	movabsq $0x7d137d137d137d13, %r13
	movabsq $0x0e140e140e140e14, %r14
	movabsq $0x1f151f151f151f15, %r15
	movq %rbx, %xmm0
	movq %rbp, %xmm1
	movq %r8, %xmm2
	movq %r9, %xmm3
	movq %r10, %xmm4
	movq %r12, %xmm5
	movq %r13, %xmm6
	movq %r14, %xmm7
	movq %r15, %xmm8
	movq %rbx, %xmm9
	movq %rbp, %xmm10
	movq %r8, %xmm11
	movq %r9, %xmm12
	movq %r10, %xmm13
	movq %r12, %xmm14
	movq %r13, %xmm15
	stc
	syscall
	movq (%rsp), %rcx
	movq %rbx, 0(%rcx)
	movq %rbp, 8(%rcx)
	movq %r8, 16(%rcx)
	movq %r9, 24(%rcx)
	movq %r10, 32(%rcx)
	movq %r12, 40(%rcx)
	movq %r13, 48(%rcx)
	movq %r14, 56(%rcx)
	movq %r15, 64(%rcx)
	movq %rdi, 72(%rcx)
	movq %rsi, 80(%rcx)
	movq %rdx, 88(%rcx)
	movups %xmm0, 96(%rcx)
	movups %xmm1, 112(%rcx)
	movups %xmm2, 128(%rcx)
	movups %xmm3, 144(%rcx)
	movups %xmm4, 160(%rcx)
	movups %xmm5, 176(%rcx)
	movups %xmm6, 192(%rcx)
	movups %xmm7, 208(%rcx)
	movups %xmm8, 224(%rcx)
	movups %xmm9, 240(%rcx)
	movups %xmm10, 256(%rcx)
	movups %xmm11, 272(%rcx)
	movups %xmm12, 288(%rcx)
	movups %xmm13, 304(%rcx)
	movups %xmm14, 320(%rcx)
	movups %xmm15, 336(%rcx)
	setc 352(%rcx)
	movq %rax, 360(%rcx)
	popq %r9
	.cfi_adjust_cfa_offset -8
	popq %r15
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r15
	popq %r14
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r14
	popq %r13
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r13
	popq %r12
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r12
	popq %rbp
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbp
	popq %rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
	.cfi_endproc
	.size harm_syscall, . - harm_syscall
)");

/* A system call whose registers must survive it; name is for the violation. */
long checked_syscall(const char *name, long number, uint64_t a, uint64_t b, uint64_t c) {
  static const uint64_t low[16] = {0x1b1b1b1b1b1b1b1b, 0x2b2b2b2b2b2b2b2b, 0x3838383838383838, 0x4949494949494949,
                                   0x5a105a105a105a10, 0x6c126c126c126c12, 0x7d137d137d137d13, 0x0e140e140e140e14,
                                   0x1f151f151f151f15, 0x1b1b1b1b1b1b1b1b, 0x2b2b2b2b2b2b2b2b, 0x3838383838383838,
                                   0x4949494949494949, 0x5a105a105a105a10, 0x6c126c126c126c12, 0x7d137d137d137d13};
  registers r = {};
  long result = harm_syscall(number, a, b, c, 0, &r);
  const uint64_t kept[12] = {r.rbx, r.rbp, r.r8, r.r9, r.r10, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rdx};
  for (int i = 0; i < 12; i++) {
    uint64_t want = i < 9 ? low[i] : i == 9 ? a : i == 10 ? b : c;
    if (kept[i] != want) violation("%s: register %d is %#lx", name, i, kept[i]);
  }
  for (int i = 0; i < 16; i++)
    if (r.xmm[i][0] != low[i] || r.xmm[i][1] != 0) violation("%s: xmm%d is %#lx", name, i, r.xmm[i][0]);
  if (!r.carry) violation("%s: the carry flag is lost", name);
  return result;
}

/* Rounding modes that nobody else uses: floating point control must survive. */
const uint32_t odd_mxcsr = 0x7f80;
const uint16_t odd_control = 0x0f7f;

bool set_registers(part *) {
  __asm__ volatile("ldmxcsr %0\n\tfldcw %1" ::"m"(odd_mxcsr), "m"(odd_control));
  return true;
}

void registers_once(part *p) {
  timespec t = {0, 3000000};
  uint32_t mxcsr;
  uint16_t control;
  long r = checked_syscall(p->name, SYS_nanosleep, reinterpret_cast<uint64_t>(&t), 0, 0x123456789abcdef0);
  if (r != 0) violation("%s: nanosleep returned %ld", p->name, r);
  __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(control));
  if ((mxcsr & ~0x3fu) != odd_mxcsr || control != odd_control)
    violation("%s: mxcsr %#x, x87 control %#x", p->name, mxcsr, control);
}

/* --- signals --- */

timer_t tick_timer;
std::atomic<int64_t> ticks;
int64_t ticking_since;

void on_tick(int) {
  int saved = errno;
  volatile double x = 1.5;
  x = x * x;
  ticks += 1 + timer_getoverrun(tick_timer);
  errno = saved;
}

void unblock(int sig) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, sig);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

bool set_ticks(part *p) {
  struct sigaction action = {};
  sigevent event = {};
  itimerspec often = {{0, 1000000}, {0, 1000000}};
  action.sa_handler = on_tick;
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGRTMIN;
  event._sigev_un._tid = p->tid;
  unblock(SIGRTMIN);
  if (sigaction(SIGRTMIN, &action, nullptr) || timer_create(CLOCK_MONOTONIC, &event, &tick_timer)) return false;
  ticking_since = now_ns();
  return timer_settime(tick_timer, 0, &often, nullptr) == 0;
}

/* No tick is lost and none comes twice: signals and overruns add up to the
 * time that passed. */
void ticks_once(part *p) {
  volatile uint64_t x = 1;
  for (int i = 0; i < 20000; i++) x = x * 6364136223846793005u + 1;
  rest_for(20000);
  int64_t before = ticks, passed = (now_ns() - ticking_since) / 1000000;
  if (before > passed + 1) violation("%s: %ld ticks in %ld ms", p->name, before, passed);
  int64_t give_up = now_ns() + margin_ms * 1000000;
  while (ticks < passed - 1 && now_ns() < give_up) rest_for(1000);
  if (ticks < passed - 1) violation("%s: only %ld ticks in %ld ms", p->name, ticks.load(), passed);
}

std::atomic<long> queued, received;

void on_queued(int, siginfo_t *info, void *) {
  long n = info->si_value.sival_int;
  if (n != received + 1) violation("queued signals: %ld came after %ld", n, received.load());
  received = n;
}

/* Called before there are threads: the sender may be the first to run. */
void handle_queue() {
  struct sigaction action = {};
  action.sa_sigaction = on_queued;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  if (sigaction(SIGRTMIN + 1, &action, nullptr)) fixture_die("sigaction");
}

bool set_queue(part *) {
  unblock(SIGRTMIN + 1);
  return true;
}

/* Receives real-time signals, sent at about 1 kHz to the whole process. */
void queue_once(part *) { rest_for(30000); }

void send_once(part *p) {
  for (int i = 0; i < 20; i++) {
    sigval value = {};
    value.sival_int = static_cast<int>(queued + 1);
    if (sigqueue(getpid(), SIGRTMIN + 1, value) == 0)
      queued++;
    else
      expect(p, errno == EAGAIN, "sigqueue");
    rest_for(1000);
  }
  int64_t give_up = now_ns() + (1000 + margin_ms) * 1000000;
  while (received < queued && now_ns() < give_up) rest_for(1000);
  expect(p, received == queued, "a queued signal did not come");
}

} // namespace

#endif
