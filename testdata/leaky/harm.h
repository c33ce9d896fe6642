/* The frame of the self-checking target harm.cc: its parts, how they rest and
 * stop, and how the first thing that went wrong is kept. A part is one thread
 * that repeats one small story and knows how it must end. */
#ifndef HARM_H
#define HARM_H

#include <atomic>
#include <cstdarg>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "fixture.h"

namespace {

/* How long a waiting call may last beyond its time: noise of the machine, a
 * stop by a tracer, and one restart with the full time. */
std::atomic<long> margin_ms{2000};

char violation_texts[8][128]; /* the first ones, each of another part */
std::atomic<int> violation_lock;
std::atomic<long> violations;

bool same_part(const char *a, const char *b) {
  while (*a && *a == *b && *a != ':') a++, b++;
  return *a == *b;
}

/* Keeps a violation, "PART: what". Handlers may call it: one that interrupts
 * another violation is counted only. */
__attribute__((format(printf, 1, 2))) void violation(const char *format, ...) {
  int saved = errno, i = 0;
  char text[128];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  violations++;
  if (violation_lock.exchange(1) == 0) {
    while (i < 8 && violation_texts[i][0] && !same_part(violation_texts[i], text)) i++;
    if (i < 8 && !violation_texts[i][0]) memcpy(violation_texts[i], text, sizeof text);
    violation_lock = 0;
  }
  errno = saved;
}

struct part {
  const char *name;
  bool (*setup)(part *); /* false: the kernel has it not, or refuses */
  void (*once)(part *);
  void (*wake)(part *); /* ends the call of a part that armed itself */
  std::atomic<long> count;
  std::atomic<int> armed, off, parked;
  std::atomic<int64_t> armed_at;
  int tid, a, b, c;
  void *p;
  pthread_t thread;
};

std::atomic<int> parking;         /* parts stop between two rounds */
std::atomic<long> rest_us{15000}; /* between two rounds of busy parts */

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

void rest_for(long us) {
  timespec t = {us / 1000000, us % 1000000 * 1000};
  while (nanosleep(&t, &t) && errno == EINTR) {
  }
}

void rest() { rest_for(rest_us); }

void expect(part *p, bool good, const char *what) {
  if (!good) violation("%s: %s (errno %d %s)", p->name, what, errno, strerror(errno));
}

/* Checks that a call that began at begin and had ms to wait ended when it
 * should; early_ms is how much earlier the kernel may end it: socket and
 * System V time-outs count ticks. */
void expect_time(part *p, int64_t begin, long ms, long early_ms) {
  long took = static_cast<long>((now_ns() - begin) / 1000000);
  if (took < ms - 1 - early_ms) violation("%s: ended after %ld of %ld ms", p->name, took, ms);
  if (took > ms + margin_ms) violation("%s: ended after %ld instead of %ld ms", p->name, took, ms);
}

/* A part that waits without an end arms itself (1) before; the waker announces
 * itself some time later (2), ends the wait, and is done (3). */
void arm(part *p) {
  p->armed_at = now_ns();
  p->armed = 1;
}

void expect_woken(part *p) {
  if (p->armed < 2) violation("%s: returned before it was woken (errno %d %s)", p->name, errno, strerror(errno));
  long took = static_cast<long>((now_ns() - p->armed_at) / 1000000);
  if (took > 200 + margin_ms) violation("%s: woken only after %ld ms", p->name, took);
  while (p->armed == 2) rest_for(1000);
  p->armed = 0;
}

int gettid_now() { return static_cast<int>(syscall(SYS_gettid)); }

void *run_part(void *arg) {
  part *p = static_cast<part *>(arg);
  p->tid = gettid_now();
  if (p->setup && !p->setup(p)) {
    p->off = 1;
    return nullptr;
  }
  for (;;) {
    while (parking) {
      p->parked = 1;
      rest_for(2000);
    }
    p->parked = 0;
    p->once(p);
    p->count++;
    if (violations > 0) rest_for(1000); /* a broken story may repeat at once */
  }
  return nullptr;
}

} // namespace

#endif
