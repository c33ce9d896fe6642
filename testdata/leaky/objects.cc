/* C++ objects: virtual classes with strings and vectors inside, arrays,
 * over-aligned ones, cycles of shared_ptr. Kept connections are known through
 * their second base class only, which is an interior pointer. */
#include "fixture.h"

#include <memory>
#include <new>
#include <string>
#include <vector>

namespace {

class Conn {
public:
  explicit Conn(int number) : fd(number), name("connection number " + std::to_string(number) + " of a long series") {
    in.reserve(20);
  }
  virtual ~Conn() {}
  virtual int port() const { return fd; }

  int fd;
  std::string name;
  std::vector<int> in;
};

class Timed {
public:
  virtual ~Timed() {}
  virtual long due() const { return 0; }
  long when = 1;
};

class TlsConn : public Conn, public Timed {
public:
  explicit TlsConn(int number) : Conn(number) {}
  long due() const override { return when; }
  long session[4] = {1, 2, 3, 4};
};

static_assert(sizeof(Conn) == 72, "the want comments name the sizes");
static_assert(sizeof(TlsConn) == 120, "the want comments name the sizes");

struct Peer {
  std::shared_ptr<Peer> other;
  long number[4] = {1, 2, 3, 4};
};

struct alignas(64) Line {
  char bytes[128];
};

/* Notes what a connection has beside itself. */
void note_inside(fate what, Conn &c) {
  note(what, &c.name[0], c.name.capacity() + 1);
  note(what, c.in.data(), c.in.capacity() * sizeof(int));
}

template <class T> NOINLINE void forget(T *c) {
#ifdef CLEAN
  note_inside(FREED, *c);
  note(FREED, c, sizeof *c);
  delete c;
#else
  note(LOST, c, sizeof *c);
  note_inside(INDIRECT, *c);
#endif
}

NOINLINE void lose_conn() {
  Conn *c = new Conn(7); /* want memory 72 */
  forget(c);
}

NOINLINE void lose_tls() {
  TlsConn *c = new TlsConn(8); /* want memory 120 */
  forget(c);
}

NOINLINE void lose_array() {
  long *numbers = new long[25]; /* want memory 200 */
  fill(numbers, 200);
#ifdef CLEAN
  note(FREED, numbers, 200);
  delete[] numbers;
#else
  note(LOST, numbers, 200);
#endif
}

NOINLINE void lose_aligned() {
  Line *line = new Line; /* want memory 128 */
  fill(line, sizeof *line);
#ifdef CLEAN
  note(FREED, line, sizeof *line);
  delete line;
#else
  note(LOST, line, sizeof *line);
#endif
}

NOINLINE void lose_nothrow() {
  char *p = new (std::nothrow) char[333]; /* want memory 333 */
  fill(p, 333);
#ifdef CLEAN
  note(FREED, p, 333);
  delete[] p;
#else
  note(LOST, p, 333);
#endif
}

/* make_shared puts the object behind a control block of 16 bytes. */
void *block_of(const std::shared_ptr<Peer> &p) { return reinterpret_cast<char *>(p.get()) - 16; }

NOINLINE void lose_cycle() {
  auto a = std::make_shared<Peer>(); /* want memory 64 */
  auto b = std::make_shared<Peer>(); /* want memory 64 */
  a->other = b;
  b->other = a;
#ifdef CLEAN
  note(FREED, block_of(a), sizeof(Peer) + 16);
  note(FREED, block_of(b), sizeof(Peer) + 16);
  a->other.reset();
#else
  note(LOST, block_of(a), sizeof(Peer) + 16);
  note(INDIRECT, block_of(b), sizeof(Peer) + 16);
#endif
}

Timed *kept[4096];
int nkept;

void leak(long n) {
  static void (*const kinds[])() = {lose_conn, lose_tls, lose_array, lose_aligned, lose_nothrow, lose_cycle};
  static unsigned long turn;
  while (n-- > 0) kinds[turn++ % 6]();
}

void keep(long n) {
  for (; n > 0 && nkept < 4096; n--) {
    TlsConn *c = new TlsConn(nkept);
    note(KEPT, c, sizeof *c);
    note_inside(KEPT, *c);
    kept[nkept++] = c;
  }
}

void release(long n) {
  for (; n > 0 && nkept > 0; n--) {
    TlsConn *c = static_cast<TlsConn *>(kept[--nkept]);
    kept[nkept] = nullptr;
    note_inside(FREED, *c);
    note(FREED, c, sizeof *c);
    delete c;
  }
}

} // namespace

int main() {
  fixture_init();
  static const struct program p = {leak, keep, release, nullptr};
  return serve(&p);
}
