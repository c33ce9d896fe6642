// C++ names: templates, virtual tables, lambdas, operators, namespaces.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace net {
struct Conn {
  explicit Conn(const std::string &n) : name(n) { puts("Conn"); }
  virtual ~Conn() { puts("~Conn"); }
  virtual int read(char *buf, size_t n);
  Conn &operator=(const Conn &o) {
    name = o.name;
    puts("=");
    return *this;
  }
  bool operator<(const Conn &o) const { return name < o.name; }
  std::string name;
};
int Conn::read(char *buf, size_t n) { return snprintf(buf, n, "%s", name.c_str()); }

struct Logger {
  virtual void log(const char *s) { puts(s); }
  virtual ~Logger() = default;
};

struct Secure : Conn, Logger {
  explicit Secure(const std::string &n) : Conn(n + "!") {}
  int read(char *buf, size_t n) override { return Conn::read(buf, n) + 1; }
  void log(const char *s) override { printf("secure %s\n", s); }
};

template <typename T, int N> struct Ring {
  T slots[N];
  int at = 0;
  __attribute__((noinline)) void put(const T &t) {
    slots[at++ % N] = t;
    puts("put");
  }
  template <typename F> __attribute__((noinline)) void each(F f) {
    for (auto &s : slots) f(s);
  }
};
}  // namespace net

namespace {
struct Hidden {
  virtual void run() { puts("hidden"); }
  virtual ~Hidden() {}
};
__attribute__((noinline)) void in_anonymous(int n) { printf("%d\n", n); }
Hidden *hidden = new Hidden;
}  // namespace

template <typename T> static inline T *make(const std::string &n) { return new T(n); }

static inline std::vector<std::string> words(int n) {
  std::vector<std::string> v;
  for (int i = 0; i < n; i++) v.push_back(std::to_string(i));
  std::sort(v.begin(), v.end(), [](const std::string &a, const std::string &b) {
    if (a.size() > 40) puts("long");
    return a > b;
  });
  return v;
}

struct Table {
  std::map<std::string, std::unique_ptr<net::Conn>> conns;
  std::function<void(int)> hook;
  void add(const std::string &n) { conns[n].reset(make<net::Secure>(n)); }
};

int main(int argc, char **argv) {
  Table t;
  net::Ring<std::string, 3> ring;
  for (auto &w : words(argc + 3)) {
    t.add(w);
    ring.put(w);
  }
  ring.each([&](std::string &s) { printf("%s\n", s.c_str()); });
  t.hook = [&](int n) { in_anonymous(n + (int)t.conns.size()); };
  t.hook(argc);
  hidden->run();
  net::Logger *l = make<net::Secure>(argv[0]);
  l->log("x");
  delete l;
  try {
    if (argc > 50) throw std::runtime_error("many");
    char buf[10];
    t.conns.begin()->second->read(buf, sizeof buf);
  } catch (const std::exception &e) {
    puts(e.what());
  }
  return 0;
}
