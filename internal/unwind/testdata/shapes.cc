// Every shape of stack frame that compilers and libc make, for the tests of
// the unwinder. With "park" the innermost function of two threads waits for
// ever; else the program runs until it is killed. It prints "ready" first.
#include <alloca.h>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <pthread.h>
#include <stdexcept>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

extern "C" {

static bool park;
static volatile unsigned sink;
// Calls through these cannot be inlined or turned into jumps.
static void (*volatile next_step)(int);
static thread_local bool waiting;

void step(int depth);

NOINLINE void plain(int depth) {
  volatile char buffer[40];
  buffer[depth & 31] = 1;
  step(depth);
  sink += buffer[3];
}

NOINLINE void with_alloca(int depth) {
  char *p = static_cast<char *>(alloca(depth * 16 + 32));
  memset(p, depth, depth * 16 + 32);
  step(depth);
  sink += p[depth];
}

NOINLINE void with_vla(int depth) {
  int n = depth * 3 + 5;
  volatile int array[n];
  array[n - 1] = depth;
  step(depth);
  sink += array[n - 1];
}

// Over-aligned locals beside stack arguments: GCC keeps the CFA in r10, then
// in a slot below rbp.
NOINLINE void realigned(int depth, int b, int c, int d, int e, int f, int g, int h) {
  alignas(64) volatile char buffer[128];
  char *p = static_cast<char *>(alloca(depth + 32));
  p[0] = static_cast<char>(b + c + d + e + f);
  buffer[depth & 63] = p[0];
  step(depth);
  sink += buffer[1] + p[0] + g + h;
}

NOINLINE void many_saved(int depth) {
  unsigned a = sink + 1, b = a * 3, c = b * 5, d = c * 7, e = d * 11, f = e * 13;
  step(depth);
  sink += a ^ b ^ c ^ d ^ e ^ f;
  step(0);
  sink += a + b + c + d + e + f;
}

static thread_local int compare_depth;

int compare(const void *a, const void *b) {
  if (compare_depth > 0) {
    int depth = compare_depth;
    compare_depth = 0;
    step(depth);
  }
  return *static_cast<const int *>(a) - *static_cast<const int *>(b);
}

NOINLINE void through_libc(int depth) {
  int values[8] = {5, 3, 8, 1, 9, 2, 7, 4};
  compare_depth = depth;
  qsort(values, 8, sizeof *values, compare);
  sink += values[0];
}

struct Guard {
  int depth;
  ~Guard() { sink += depth; }
};

NOINLINE void thrower(int depth) {
  Guard guard{depth};
  if (depth >= 0)
    throw std::runtime_error("thrown");
}

NOINLINE void catching(int depth) {
  Guard guard{depth};
  try {
    thrower(depth);
  } catch (const std::exception &e) {
    sink += e.what()[0];
    step(depth);
  }
}

static thread_local int signal_depth;

void handler(int) {
  int depth = signal_depth;
  signal_depth = 0;
  step(depth);
}

NOINLINE void signalled(int depth) {
  signal_depth = depth;
  raise(SIGUSR1);
  sink++;
}

// The same with the handler on a stack of its own.
NOINLINE void signalled_elsewhere(int depth) {
  signal_depth = depth;
  raise(SIGUSR2);
  sink++;
}

// Faults in the middle of a leaf function, where nothing was pushed.
NOINLINE void faulting(int depth) {
  signal_depth = depth;
  __asm__ volatile("ud2");
  sink++;
}

void skip_ud2(int, siginfo_t *, void *context) {
  handler(0);
  static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP] += 2;
}

NOINLINE void jumping(int depth) {
  jmp_buf env;
  if (setjmp(env) == 0) {
    step(0);
    longjmp(env, 1);
  }
  step(depth);
  sink++;
}

NOINLINE void bottom() {
  if (park) {
    if (!waiting) {
      waiting = true;
      static volatile int ready;
      if (__sync_add_and_fetch(&ready, 1) == 2) {
        puts("ready");
        fflush(stdout);
      }
      for (;;)
        pause();
    }
    return;
  }
  char text[64];
  snprintf(text, sizeof text, "%d %s", static_cast<int>(sink), "text");
  void *p = malloc(strlen(text) + 1);
  memcpy(p, text, strlen(text) + 1);
  free(p);
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  sink += now.tv_nsec & 1;
}

void step(int depth) {
  if (depth <= 0) {
    if (depth == 0 && !park)
      bottom();
    return;
  }
  next_step(depth - 1);
}

// Goes through all shapes twice, 25 deep, then works.
void walk(int depth) {
  switch (depth) {
  case 0: bottom(); break;
  case 23: case 11: plain(depth); break;
  case 22: case 10: with_alloca(depth); break;
  case 21: case 9: with_vla(depth); break;
  case 20: case 8: realigned(depth, 1, 2, 3, 4, 5, 6, 7); break;
  case 19: case 7: many_saved(depth); break;
  case 18: case 6: through_libc(depth); break;
  case 17: case 5: catching(depth); break;
  case 16: case 4: signalled(depth); break;
  case 15: case 3: jumping(depth); break;
  case 14: faulting(depth); break;
  case 13: signalled_elsewhere(depth); break;
  default: plain(depth); break;
  }
  sink++;
}

void *thread(void *) {
  stack_t stack{};
  stack.ss_size = 1 << 16;
  stack.ss_sp = malloc(stack.ss_size);
  sigaltstack(&stack, nullptr);
  do
    step(25);
  while (true);
}

} // extern "C"

int main(int argc, char **) {
  park = argc > 1;
  next_step = walk;
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_NODEFER;
  sigaction(SIGUSR1, &action, nullptr);
  action.sa_flags = SA_NODEFER | SA_ONSTACK;
  sigaction(SIGUSR2, &action, nullptr);
  action.sa_flags = SA_NODEFER | SA_SIGINFO;
  action.sa_sigaction = skip_ud2;
  sigaction(SIGILL, &action, nullptr);
  if (park) {
    pthread_t other;
    pthread_create(&other, nullptr, thread, nullptr);
  } else {
    puts("ready");
    fflush(stdout);
  }
  thread(nullptr);
}
