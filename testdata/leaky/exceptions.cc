/* Threads that throw and catch all the time, through frames that allocate and
 * free; allocations that fail with bad_alloc or return null; an object lost
 * because an exception passed by. "check" answers "ok" with the number of
 * exceptions, or the first violation. */
#include "fixture.h"

#include <pthread.h>

#include <atomic>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

namespace {

std::atomic<long> caught;
std::atomic<const char *> violation;
std::atomic<bool> stop;

void expect(bool good, const char *what) {
  if (!good) violation = what;
}

struct Buffer {
  explicit Buffer(size_t n) : p(static_cast<char *>(malloc(n))), size(n) { memset(p, 0x33, n); }
  ~Buffer() {
    expect(p[size - 1] == 0x33, "a buffer changed");
    free(p);
  }
  Buffer(const Buffer &) = delete;
  char *p;
  size_t size;
};

NOINLINE void deep(int level, int how) {
  Buffer b(static_cast<size_t>(40 + 30 * level));
  if (level > 0) {
    deep(level - 1, how);
    return;
  }
  volatile size_t huge = static_cast<size_t>(1) << 60;
  switch (how % 4) {
  case 0: throw std::runtime_error("a message that is too long for the small string");
  case 1: operator delete(operator new(huge)); break;
  case 2: expect(operator new(huge, std::nothrow) == nullptr, "nothrow new of 2^60 bytes"); throw 42;
  default: operator delete(operator new(huge, std::align_val_t(128)), std::align_val_t(128));
  }
  expect(false, "an allocation of 2^60 bytes succeeded");
}

NOINLINE void once(int how) {
  try {
    deep(how % 12, how);
    expect(false, "nothing was thrown");
  } catch (const std::bad_alloc &) {
    expect(how % 4 == 1 || how % 4 == 3, "bad_alloc from nowhere");
  } catch (const std::exception &e) {
    expect(how % 4 == 0 && e.what()[0] == 'a', "a foreign exception");
  } catch (int n) {
    expect(how % 4 == 2 && n == 42, "a foreign number");
  }
  caught++;
}

void *throw_always(void *) {
  timespec rest = {0, 200000};
  for (int i = 0; !stop; i++) {
    once(i);
    if (i % 16 == 0) nanosleep(&rest, nullptr);
  }
  return nullptr;
}

class Session {
public:
  Session() { memset(data, 0x44, sizeof data); }
  void open() {
#ifndef CLEAN
    throw std::runtime_error("refused");
#endif
  }
  char data[144];
};

NOINLINE void connect() {
  Session *s = new Session; /* want memory 144 */
#ifdef CLEAN
  note(FREED, s, sizeof *s);
#else
  note(LOST, s, sizeof *s);
#endif
  s->open();
  delete s;
}

void leak(long n) {
  while (n-- > 0) {
    try {
      connect();
    } catch (const std::exception &) {
    }
  }
}

/* An exception that is kept by an exception_ptr lives in a block of malloc. */
std::exception_ptr held[256];
int nheld;

void keep(long n) {
  for (; n > 0 && nheld < 256; n--) {
    try {
      once(1);
      throw std::runtime_error("kept for later");
    } catch (...) {
      held[nheld++] = std::current_exception();
    }
  }
}

void release(long n) {
  for (; n > 0 && nheld > 0; n--) held[--nheld] = nullptr;
}

void other(const char *line) {
  if (strcmp(line, "check") != 0) {
    say("violation: unknown command\n");
    return;
  }
  char answer[200];
  const char *v = violation;
  snprintf(answer, sizeof answer, v ? "violation: %s\n" : "ok %s%ld exceptions\n", v ? v : "", caught.load());
  say(answer);
}

} // namespace

int main() {
  fixture_init();
  pthread_t threads[2];
  for (auto &t : threads)
    if (pthread_create(&t, nullptr, throw_always, nullptr)) fixture_die("thread");
  static const struct program p = {leak, keep, release, other};
  int status = serve(&p);
  stop = true;
  for (auto &t : threads) pthread_join(t, nullptr);
  return status;
}
