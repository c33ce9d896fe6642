// Classes with virtual tables, with no header that takes long to compile.
extern "C" int puts(const char *);

namespace net {
struct Conn {
  virtual ~Conn() { puts("~Conn"); }
  virtual int read(int n) { return n; }
  char name[32];
};

struct Logger {
  virtual void log(const char *s) { puts(s); }
  virtual ~Logger() {}
};

struct Secure : Conn, Logger {
  int read(int n) override { return Conn::read(n) + 1; }
  void log(const char *) override { puts("secure"); }
};
}  // namespace net

namespace {
struct Hidden {
  virtual void run() { puts("hidden"); }
  virtual ~Hidden() {}
};
Hidden *hidden = new Hidden;
}  // namespace

net::Conn *conn = new net::Conn;
net::Logger *logger = new net::Secure;

int main() {
  hidden->run();
  logger->log("x");
  delete logger;
  return conn->read(0);
}
