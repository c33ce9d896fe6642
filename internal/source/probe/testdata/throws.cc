// Runs out of memory on purpose: an address space limit lets a few large
// blocks succeed and the next one throw. "check" answers "ok CAUGHT HELD":
// how many bad_allocs were caught, and how many blocks are held at the end.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace {

constexpr size_t kSize = 50'000'000;

struct alignas(256) Wide {
  char data[kSize / 256 * 256];
};

int handled;

void handler() {
  handled++;
  throw std::bad_alloc(); // as set_new_handler allows
}

int caught;
std::vector<void *> held;

__attribute__((noinline)) void until_it_throws(int how) {
  try {
    for (;;) {
      switch (how) {
      case 0: held.push_back(::operator new(kSize)); break;
      case 1: held.push_back(::operator new[](kSize)); break;
      case 2: held.push_back(::operator new(kSize, std::align_val_t(256))); break;
      default: {
        void *p = ::operator new(kSize, std::nothrow);
        if (!p) throw 42;
        held.push_back(p);
      }
      }
    }
  } catch (const std::bad_alloc &) {
    if (how < 3) caught++;
  } catch (int) {
    if (how == 3) caught++;
  }
}

void release(int how) {
  for (void *p : held) {
    if (how == 2)
      ::operator delete(p, std::align_val_t(256));
    else if (how == 1)
      ::operator delete[](p);
    else if (how == 3)
      ::operator delete(p, std::nothrow);
    else
      ::operator delete(p, kSize);
  }
  held.clear();
}

} // namespace

int main() {
  char line[100];
  held.reserve(100);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    long mib;
    if (sscanf(line, "limit %ld", &mib) == 1) {
      rlimit l = {static_cast<rlim_t>(mib) << 20, RLIM_INFINITY};
      setrlimit(RLIMIT_AS, &l);
    } else if (!strncmp(line, "handler", 7)) {
      std::set_new_handler(handler);
    } else if (!strncmp(line, "throw", 5)) {
      for (int how = 0; how < 4; how++) {
        until_it_throws(how);
        release(how);
      }
      until_it_throws(0);
    } else if (!strncmp(line, "check", 5)) {
      printf("ok %d %zu %d\n", caught, held.size(), handled);
      continue;
    } else if (!strncmp(line, "quit", 4)) {
      return 0;
    }
    puts("ok");
  }
}
