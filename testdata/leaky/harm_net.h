/* What harm.cc checks about closing: an end of stream that peers see at once,
 * events that end with their descriptor, locks and names that are released.
 * Peers live in processes of their own, which share one page with the target. */
#ifndef HARM_NET_H
#define HARM_NET_H

#include "harm_waits.h"

#include <cstddef>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/un.h>

namespace {

/* --- within one thread: close is done when it returns --- */

/* Unless somebody reads that descriptor's link in /proc just then: lsof, ls and
 * ps hold the file for that instant, and so does stanch. Whoever has a copy of
 * the descriptor table holds it far longer than this. */
constexpr int64_t instant_ns = 20000000;

template <class F> bool soon(F done) {
  int64_t until = now_ns() + instant_ns;
  while (!done())
    if (now_ns() > until) return false;
  return true;
}

bool set_closing(part *p) {
  p->a = memfd_create("harm-closing", MFD_CLOEXEC);
  p->b = epoll_create1(EPOLL_CLOEXEC);
  return p->a >= 0 && p->b >= 0;
}

NOINLINE void close_pair(part *p) {
  int fds[2];
  char c;
  must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), "socketpair");
  close(fds[0]);
  expect(p, soon([&] { return recv(fds[1], &c, 1, MSG_DONTWAIT) == 0; }), "no end of stream after close of a socket");
  expect(p, send(fds[1], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE, "no EPIPE after close");
  close(fds[1]);
}

NOINLINE void close_pipe(part *p) {
  int fds[2];
  char c;
  must(!pipe2(fds, O_CLOEXEC | O_NONBLOCK), "pipe");
  close(fds[1]);
  expect(p, soon([&] { return read(fds[0], &c, 1) == 0; }), "no end of file after close of a pipe");
  close(fds[0]);
}

/* A closed descriptor must leave its epoll set, or its event would lead to a
 * connection that is freed already. */
NOINLINE void close_watched(part *p) {
  int fds[2];
  epoll_event e = {};
  must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), "socketpair");
  e.events = EPOLLIN | EPOLLRDHUP;
  e.data.u64 = 5;
  must(!epoll_ctl(p->b, EPOLL_CTL_ADD, fds[0], &e), "epoll_ctl");
  close(fds[0]);
  close(fds[1]);
  expect(p, soon([&] { return epoll_wait(p->b, &e, 1, 0) == 0; }), "an event of a closed descriptor");
}

NOINLINE void close_locked(part *p) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", p->a);
  int first = open(path, O_RDWR | O_CLOEXEC), second = open(path, O_RDWR | O_CLOEXEC);
  must(first >= 0 && second >= 0, "open a memory file again");
  expect(p, flock(first, LOCK_EX | LOCK_NB) == 0, "flock");
  close(first);
  expect(p, soon([&] { return flock(second, LOCK_EX | LOCK_NB) == 0; }), "a lock outlives the close of its file");
  close(second);
}

NOINLINE void close_named(part *p) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  int n = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "harm-%d", getpid());
  socklen_t size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<size_t>(n));
  for (int i = 0; i < 2; i++) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(p, soon([&] { return bind(fd, reinterpret_cast<sockaddr *>(&name), size) == 0; }),
           "a name outlives the close of its socket");
    close(fd);
  }
}

void closing_once(part *p) {
  close_pair(p);
  close_pipe(p);
  close_watched(p);
  close_locked(p);
  close_named(p);
  rest();
}

/* --- between processes --- */

enum { SLOTS = 64, PEERS = 2 };

struct shared_page {
  std::atomic<int64_t> closed[SLOTS]; /* when close returned, 0 while open */
  std::atomic<long> ends, worst_us, late_limit_us;
  std::atomic<int> lock_owner, failed, quit;
  std::atomic<int> ids[8]; /* System V objects to remove: 2 * id + (1 for queues), plus 1 */
  std::atomic<int> nids;
  char failure[200];
  int listener, port; /* descriptor, and number in network order */
};
shared_page *shared;

void peer_failed(const char *what, long number) {
  if (shared->failed.exchange(1) == 0) snprintf(shared->failure, sizeof shared->failure, "%s (%ld)", what, number);
}

struct connection {
  int fd;
  uint32_t generation;
  bool open;
};

struct server {
  connection slots[SLOTS];
  int epoll, listener, open;
};

bool set_server(part *p) {
  server *s = new server();
  p->p = s;
  s->listener = shared->listener;
  s->epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event e = {};
  e.events = EPOLLIN;
  e.data.u64 = UINT64_MAX;
  return s->epoll >= 0 && epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &e) == 0;
}

void hang_up(server *s, uint32_t slot) {
  connection *c = &s->slots[slot];
  c->open = false;
  c->generation++;
  s->open--;
  close(c->fd);
  shared->closed[slot] = now_ns();
}

void take_connection(part *p, server *s) {
  int fd = accept4(s->listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  uint32_t slot = 0;
  while (slot < SLOTS && s->slots[slot].open) slot++;
  if (slot == SLOTS) {
    close(fd);
    return;
  }
  connection *c = &s->slots[slot];
  c->fd = fd;
  c->open = true;
  s->open++;
  shared->closed[slot] = 0;
  epoll_event e = {};
  e.events = EPOLLIN | EPOLLRDHUP;
  e.data.u64 = static_cast<uint64_t>(c->generation) << 32 | slot;
  expect(p, epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) == 0, "epoll_ctl");
}

/* Answers with the slot's number and hangs up, though the peer has more to
 * say: its bytes must raise no event any more. */
void answer_connection(part *p, server *s, uint64_t data) {
  uint32_t slot = static_cast<uint32_t>(data), generation = static_cast<uint32_t>(data >> 32);
  if (slot >= SLOTS || !s->slots[slot].open || s->slots[slot].generation != generation) {
    violation("%s: stale event for slot %u, generation %u", p->name, slot, generation);
    return;
  }
  char text[64];
  ssize_t n = recv(s->slots[slot].fd, text, sizeof text, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n > 0) {
    unsigned char number = static_cast<unsigned char>(slot);
    expect(p, send(s->slots[slot].fd, &number, 1, MSG_NOSIGNAL) == 1, "send");
  }
  hang_up(s, slot);
}

void serve_events(part *p, server *s) {
  epoll_event events[8];
  int n = epoll_wait(s->epoll, events, 8, 50);
  expect(p, n >= 0, "epoll_wait");
  for (int i = 0; i < n; i++) {
    if (events[i].data.u64 == UINT64_MAX)
      take_connection(p, s);
    else
      answer_connection(p, s, events[i].data.u64);
  }
}

/* A round leaves no connection open, whenever the order to park comes: parked
 * parts have the same descriptors each time. */
void server_once(part *p) {
  server *s = static_cast<server *>(p->p);
  do serve_events(p, s);
  while (s->open > 0 && !parking);
  for (uint32_t slot = 0; slot < SLOTS; slot++)
    if (s->slots[slot].open) hang_up(s, slot);
}

/* A peer: says hello, reads its slot, and waits for the end of the stream. */
void peer_once(int port) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = static_cast<in_port_t>(port);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  linger reset = {1, 0}; /* leaves no TIME_WAIT behind */
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  unsigned char slot = 255;
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr *>(&to), sizeof to) || send(fd, "hello", 5, MSG_NOSIGNAL) != 5 ||
      recv(fd, &slot, 1, 0) != 1 || slot >= SLOTS) {
    close(fd); /* the server hangs up on all when it parks */
    rest_for(5000);
    return;
  }
  char c;
  ssize_t n = recv(fd, &c, 1, 0);
  int64_t seen = now_ns(), closed = shared->closed[slot];
  if (n > 0) peer_failed("bytes after the answer", n);
  /* Zero when the server has not come to note it: the end came at once. */
  long late = closed && seen > closed ? static_cast<long>((seen - closed) / 1000) : 0;
  if (late > shared->worst_us) shared->worst_us = late;
  if (late > shared->late_limit_us) peer_failed("the end of a stream came late, microseconds", late);
  shared->ends++;
  close(fd);
}

void be_peer() {
  while (!shared->quit) {
    peer_once(shared->port);
    rest_for(3000);
  }
}

/* Takes the lock in its turn; whoever holds it is alone. */
void hold_lock(int fd, int me, const char **wrong) {
  if (flock(fd, LOCK_EX)) {
    *wrong = "flock";
    return;
  }
  int nobody = 0;
  if (!shared->lock_owner.compare_exchange_strong(nobody, me)) *wrong = "two hold one lock";
  rest_for(500);
  int expected = me;
  if (!shared->lock_owner.compare_exchange_strong(expected, 0)) *wrong = "the lock changed hands";
}

int open_again(int fd) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_RDWR | O_CLOEXEC);
}

void be_locker(int file) {
  while (!shared->quit) {
    const char *wrong = nullptr;
    int fd = open_again(file);
    hold_lock(fd, 2, &wrong);
    if (wrong) peer_failed(wrong, errno);
    close(fd);
    rest_for(2000);
  }
}

int lock_file;

/* Releases by closing, as many daemons do. */
void lock_once(part *p) {
  const char *wrong = nullptr;
  int fd = open_again(lock_file);
  hold_lock(fd, 1, &wrong);
  if (wrong) violation("%s: %s", p->name, wrong);
  close(fd);
  rest_for(2000);
}

/* Outlives the target to remove what the kernel keeps: the pipe it reads from
 * ends with the target. */
void be_undertaker(int target) {
  char c;
  while (read(target, &c, 1) < 0 && errno == EINTR) {
  }
  shared->quit = 1;
  for (int i = 0; i < shared->nids; i++) {
    int id = shared->ids[i] - 1;
    if (id % 2)
      msgctl(id / 2, IPC_RMID, nullptr);
    else
      semctl(id / 2, 0, IPC_RMID);
  }
}

void remember_id(int id, bool queue) { shared->ids[shared->nids++] = 2 * id + queue + 1; }

template <class F> void start_process(F body) {
  pid_t pid = fork();
  must(pid >= 0, "fork");
  if (pid) return;
  int null = open("/dev/null", O_RDWR);
  dup2(null, 0);
  dup2(null, 1);
  dup2(null, 2);
  body();
  _exit(0);
}

/* Starts the peers, before there are threads. */
void start_peers() {
  shared = static_cast<shared_page *>(
      mmap(nullptr, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  must(shared != MAP_FAILED, "mmap");
  shared->late_limit_us = 1000000;
  int alive[2];
  must(!pipe2(alive, O_CLOEXEC), "pipe");
  start_process([&] {
    close(alive[1]);
    be_undertaker(alive[0]);
  });
  close(alive[0]); /* alive[1] stays open as long as the target lives */
  lock_file = memfd_create("harm-lock", MFD_CLOEXEC);
  part listener = {};
  set_listener(&listener);
  fcntl(listener.a, F_SETFL, O_NONBLOCK);
  shared->listener = listener.a;
  shared->port = listener.b;
  for (int i = 0; i <= PEERS; i++) {
    start_process([&] {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(alive[1]);
      close(listener.a);
      if (i < PEERS)
        be_peer();
      else
        be_locker(lock_file);
    });
  }
}

} // namespace

#endif
