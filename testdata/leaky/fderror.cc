/* C++: an error path throws past a close. The clean twin holds the descriptor
 * in an object that closes it.
 *
 *   leak N  N messages that are malformed   keep N  N that are fine and kept
 *   free N  closes N of those               churn N N that are fine and closed */
#include "fixture.h"
#include <fcntl.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <utility>
#include <vector>

namespace {

class Descriptor {
public:
  explicit Descriptor(int fd) : fd_(fd) {
    if (fd < 0) fixture_die("open");
  }
  Descriptor(Descriptor &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(Descriptor &&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

private:
  int fd_;
};

/* What the careless program has instead: a number, closed by hand. */
struct Number {
  explicit Number(int number) : fd(number) {
    if (fd < 0) fixture_die("open");
  }
  int get() const { return fd; }
  int fd;
};

#ifdef CLEAN
using Handle = Descriptor;
void finish(Descriptor &) {}
#else
using Handle = Number;
void finish(Number &n) { close(n.fd); }
#endif

struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Parser {
public:
  virtual ~Parser() = default;
  virtual NOINLINE void parse(int fd, const std::string &text) {
    char c;
    if (read(fd, &c, 0) < 0 || text.find("bad") != std::string::npos) throw Malformed("message: " + text);
  }
};

class Session {
public:
  NOINLINE void spool(const std::string &text) {
    Handle file(open("/dev/null", O_RDWR | O_CLOEXEC)); /* want fd openat */
    parser_.parse(file.get(), text);
    finish(file);
  }
  NOINLINE void forward(const std::string &text) {
    Handle socket(::socket(AF_UNIX, SOCK_DGRAM, 0)); /* want fd socket */
    parser_.parse(socket.get(), text);
    finish(socket);
  }

private:
  Parser parser_;
};

NOINLINE void handle(void (Session::*what)(const std::string &), const std::string &text) {
  Session session;
  try {
    (session.*what)(text);
  } catch (const Malformed &e) {
    if (std::string(e.what()).empty()) say("violation: no message\n");
  }
}

void messages(long n, const std::string &text) {
  for (; n > 0; n--) {
    handle(&Session::spool, text);
    handle(&Session::forward, text);
  }
}

std::vector<Descriptor> kept;

void leak(long n) { messages(n, "a bad one"); }

void keep(long n) {
  for (; n > 0; n--) kept.emplace_back(open("/dev/null", O_RDONLY));
}

void release(long n) {
  for (; n > 0 && !kept.empty(); n--) kept.pop_back();
}

void other(const char *line) {
  long n;
  if (sscanf(line, "churn %ld", &n) != 1) {
    say("violation: unknown command\n");
    return;
  }
  messages(n, "a good one");
  say("ok\n");
}

} // namespace

int main() {
  static const struct program program = {leak, keep, release, other};
  return serve(&program);
}
