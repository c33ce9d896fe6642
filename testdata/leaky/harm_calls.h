/* The waiting system calls of harm.cc, one part each. A call with a time must
 * end at that time, with the result that means so; a call without one must end
 * when it is woken, not before. None may ever fail with EINTR: no signal goes
 * to these threads. */
#ifndef HARM_CALLS_H
#define HARM_CALLS_H

#include "harm.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

namespace {

const long T = 80; /* ms that a timed call waits */
const timespec T_spec = {0, T * 1000000};

timespec in_ms(clockid_t clock, long ms) {
  timespec t;
  clock_gettime(clock, &t);
  t.tv_nsec += ms * 1000000;
  t.tv_sec += t.tv_nsec / 1000000000;
  t.tv_nsec %= 1000000000;
  return t;
}

void must(bool good, const char *what) {
  if (!good) fixture_die(what);
}

void ring_eventfd(part *p) {
  uint64_t one = 1;
  expect(p, write(p->a, &one, 8) == 8, "write to eventfd");
}

void drain_eventfd(part *p) {
  uint64_t n;
  expect(p, read(p->a, &n, 8) == 8 && n == 1, "eventfd holds another number");
}

/* --- epoll, poll, select --- */

bool set_eventfd(part *p) {
  p->a = eventfd(0, EFD_CLOEXEC);
  p->b = epoll_create1(EPOLL_CLOEXEC);
  epoll_event e = {};
  e.events = EPOLLIN;
  e.data.u64 = 77;
  must(p->a >= 0 && p->b >= 0 && !epoll_ctl(p->b, EPOLL_CTL_ADD, p->a, &e), "epoll");
  return true;
}

void epoll_wait_timed(part *p) {
  epoll_event e;
  int64_t t = now_ns();
  expect(p, epoll_wait(p->b, &e, 1, T) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void epoll_pwait_timed(part *p) {
  epoll_event e;
  sigset_t all;
  sigfillset(&all);
  int64_t t = now_ns();
  expect(p, epoll_pwait(p->b, &e, 1, T, &all) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void epoll_wait_woken(part *p) {
  epoll_event e = {};
  arm(p);
  expect(p, epoll_wait(p->b, &e, 1, -1) == 1 && e.data.u64 == 77, "not the event");
  expect_woken(p);
  drain_eventfd(p);
}

void poll_timed(part *p) {
  pollfd f = {p->a, POLLIN, 0};
  int64_t t = now_ns();
  expect(p, poll(&f, 1, T) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void poll_woken(part *p) {
  pollfd f = {p->a, POLLIN, 0};
  arm(p);
  expect(p, poll(&f, 1, -1) == 1 && f.revents == POLLIN, "not the event");
  expect_woken(p);
  drain_eventfd(p);
}

void ppoll_timed(part *p) {
  pollfd f = {p->a, POLLIN, 0};
  sigset_t all;
  sigfillset(&all);
  int64_t t = now_ns();
  expect(p, ppoll(&f, 1, &T_spec, &all) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void select_timed(part *p) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(p->a, &set);
  timeval tv = {0, T * 1000};
  int64_t t = now_ns();
  expect(p, select(p->a + 1, &set, nullptr, nullptr, &tv) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void pselect_woken(part *p) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(p->a, &set);
  sigset_t all;
  sigfillset(&all);
  arm(p);
  expect(p, pselect(p->a + 1, &set, nullptr, nullptr, nullptr, &all) == 1, "not 1");
  expect_woken(p);
  drain_eventfd(p);
}

void read_eventfd(part *p) {
  arm(p);
  drain_eventfd(p);
  expect_woken(p);
}

bool set_timerfd(part *p) {
  p->a = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  return p->a >= 0;
}

void read_timerfd(part *p) {
  itimerspec soon = {{0, 0}, T_spec};
  uint64_t n;
  int64_t t = now_ns();
  expect(p, timerfd_settime(p->a, 0, &soon, nullptr) == 0, "timerfd_settime");
  expect(p, read(p->a, &n, 8) == 8 && n == 1, "not one expiry");
  expect_time(p, t, T, 0);
}

/* --- sockets and pipes --- */

bool set_listener(part *p) {
  sockaddr_in here = {};
  socklen_t size = sizeof here;
  here.sin_family = AF_INET;
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  p->a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  must(p->a >= 0 && !bind(p->a, reinterpret_cast<sockaddr *>(&here), sizeof here) && !listen(p->a, 8) &&
           !getsockname(p->a, reinterpret_cast<sockaddr *>(&here), &size),
       "listen on loopback");
  p->b = here.sin_port;
  return true;
}

bool set_listener_timed(part *p) {
  timeval tv = {0, T * 1000};
  set_listener(p);
  must(!setsockopt(p->a, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), "SO_RCVTIMEO");
  return true;
}

void accept_timed(part *p) {
  int64_t t = now_ns();
  expect(p, accept(p->a, nullptr, nullptr) < 0 && errno == EAGAIN, "not EAGAIN");
  expect_time(p, t, T, 10);
}

void accept_woken(part *p) {
  arm(p);
  int fd = accept(p->a, nullptr, nullptr);
  expect(p, fd >= 0, "no connection");
  expect_woken(p);
  if (fd >= 0) close(fd);
  close(p->c);
}

void wake_accept(part *p) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = static_cast<in_port_t>(p->b);
  p->c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  expect(p, connect(p->c, reinterpret_cast<sockaddr *>(&to), sizeof to) == 0, "connect");
}

bool set_pair(part *p) {
  int fds[2];
  timeval tv = {0, T * 1000};
  must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), "socketpair");
  p->a = fds[0];
  p->b = fds[1];
  if (!p->wake)
    must(!setsockopt(p->a, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) &&
             !setsockopt(p->a, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv),
         "SO_RCVTIMEO");
  return true;
}

void fill_up(int fd) {
  static const char zeros[4096] = {};
  int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  while (write(fd, zeros, sizeof zeros) > 0) {
  }
  while (write(fd, zeros, 1) > 0) {
  }
  fcntl(fd, F_SETFL, flags);
}

void drain(int fd) {
  char sink[4096];
  int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  while (read(fd, sink, sizeof sink) > 0) {
  }
  fcntl(fd, F_SETFL, flags);
}

bool set_full_pair(part *p) {
  set_pair(p);
  fill_up(p->a);
  return true;
}

void recv_timed(part *p) {
  char c;
  int64_t t = now_ns();
  expect(p, recv(p->a, &c, 1, 0) < 0 && errno == EAGAIN, "not EAGAIN");
  expect_time(p, t, T, 10);
}

void recvmsg_timed(part *p) {
  char c;
  iovec v = {&c, 1};
  msghdr m = {};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  int64_t t = now_ns();
  expect(p, recvmsg(p->a, &m, 0) < 0 && errno == EAGAIN, "not EAGAIN");
  expect_time(p, t, T, 10);
}

void recv_woken(part *p) {
  char c = 0;
  arm(p);
  expect(p, recv(p->a, &c, 1, 0) == 1 && c == 'w', "not the byte");
  expect_woken(p);
}

void wake_byte(part *p) { expect(p, write(p->b, "w", 1) == 1, "write"); }

void send_timed(part *p) {
  char c = 0;
  int64_t t = now_ns();
  expect(p, send(p->a, &c, 1, MSG_NOSIGNAL) < 0 && errno == EAGAIN, "not EAGAIN");
  expect_time(p, t, T, 10);
}

void send_woken(part *p) {
  char c = 0;
  arm(p);
  expect(p, write(p->a, &c, 1) == 1, "not 1");
  expect_woken(p);
  fill_up(p->a);
}

void wake_drain(part *p) { drain(p->b); }

bool set_pipe(part *p) {
  int fds[2];
  must(!pipe2(fds, O_CLOEXEC), "pipe");
  p->a = fds[0];
  p->b = fds[1];
  return true;
}

bool set_full_pipe(part *p) {
  int fds[2];
  must(!pipe2(fds, O_CLOEXEC), "pipe");
  p->a = fds[1];
  p->b = fds[0];
  fill_up(p->a);
  return true;
}

void read_woken(part *p) {
  char c = 0;
  arm(p);
  expect(p, read(p->a, &c, 1) == 1 && c == 'w', "not the byte");
  expect_woken(p);
}

} // namespace

#endif
