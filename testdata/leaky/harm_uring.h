/* io_uring_enter as a waiting call of harm.cc, by raw system calls. */
#ifndef HARM_URING_H
#define HARM_URING_H

#include "harm_calls.h"

#include <linux/io_uring.h>
#include <linux/time_types.h>

namespace {

struct uring {
  int fd;
  unsigned *tail, *mask, *array, *done_head, *done_tail, *done_mask;
  io_uring_sqe *entries;
  io_uring_cqe *done;
};

template <class T> T *at(char *base, unsigned offset) { return reinterpret_cast<T *>(base + offset); }

bool set_uring(part *p) {
  io_uring_params q = {};
  set_eventfd(p);
  uring *u = new uring();
  p->p = u;
  u->fd = static_cast<int>(syscall(SYS_io_uring_setup, 4, &q));
  /* One mapping for both rings and time-outs at enter: Linux 5.4 and 5.11. */
  if (u->fd < 0 || !(q.features & IORING_FEAT_SINGLE_MMAP) || !(q.features & IORING_FEAT_EXT_ARG)) return false;
  size_t size = q.cq_off.cqes + q.cq_entries * sizeof(io_uring_cqe);
  void *ring = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQ_RING);
  void *entries =
      mmap(nullptr, q.sq_entries * sizeof(io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQES);
  if (ring == MAP_FAILED || entries == MAP_FAILED) return false;
  char *base = static_cast<char *>(ring);
  u->tail = at<unsigned>(base, q.sq_off.tail);
  u->mask = at<unsigned>(base, q.sq_off.ring_mask);
  u->array = at<unsigned>(base, q.sq_off.array);
  u->done_head = at<unsigned>(base, q.cq_off.head);
  u->done_tail = at<unsigned>(base, q.cq_off.tail);
  u->done_mask = at<unsigned>(base, q.cq_off.ring_mask);
  u->done = at<io_uring_cqe>(base, q.cq_off.cqes);
  u->entries = static_cast<io_uring_sqe *>(entries);
  return true;
}

void uring_timed(part *p) {
  uring *u = static_cast<uring *>(p->p);
  __kernel_timespec wait = {0, T * 1000000};
  io_uring_getevents_arg arg = {};
  arg.ts = reinterpret_cast<uint64_t>(&wait);
  int64_t t = now_ns();
  expect(p,
         syscall(SYS_io_uring_enter, u->fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof arg) <
                 0 &&
             errno == ETIME,
         "not ETIME");
  expect_time(p, t, T, 0);
}

/* A wait that is broken off after something was submitted returns what was
 * submitted, as after SIGSTOP and SIGCONT: io_uring_enter(2) has done that
 * part, and no tracer can hide it. So programs look for the completion and wait
 * again, which must not end early. */
void uring_woken(part *p) {
  uring *u = static_cast<uring *>(p->p);
  uint64_t n = 0;
  unsigned tail = *u->tail, i = tail & *u->mask;
  io_uring_sqe *e = &u->entries[i];
  memset(e, 0, sizeof *e);
  e->opcode = IORING_OP_READ;
  e->fd = p->a;
  e->addr = reinterpret_cast<uint64_t>(&n);
  e->len = 8;
  e->user_data = tail + 1000;
  u->array[i] = i;
  __atomic_store_n(u->tail, tail + 1, __ATOMIC_RELEASE);
  arm(p);
  expect(p, syscall(SYS_io_uring_enter, u->fd, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0) == 1, "not 1");
  unsigned head = *u->done_head;
  if (__atomic_load_n(u->done_tail, __ATOMIC_ACQUIRE) == head)
    expect(p, syscall(SYS_io_uring_enter, u->fd, 0, 1, IORING_ENTER_GETEVENTS, nullptr, 0) == 0, "not 0");
  expect_woken(p);
  const io_uring_cqe *done = &u->done[head & *u->done_mask];
  expect(p, done->user_data == tail + 1000 && done->res == 8 && n == 1, "not the completion");
  __atomic_store_n(u->done_head, head + 1, __ATOMIC_RELEASE);
}

} // namespace

#endif
