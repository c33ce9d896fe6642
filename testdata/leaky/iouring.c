/* Requests in an io_uring (raw system calls): user_data is the only pointer to
 * a request. "keep N" leaves reads of a silent pipe pending, whose submission
 * entries are wiped afterwards, so that only the kernel knows them; "done N"
 * leaves completions unread in the ring; "queued N" leaves entries unsubmitted. */
#include "fixture.h"

#include <linux/io_uring.h>
#include <sys/syscall.h>

enum { ENTRIES = 256, SIZE = 136 };

static struct {
  int fd;
  unsigned *head, *tail, *mask, *array;
  struct io_uring_sqe *entries;
  unsigned *done_head, *done_tail, *done_mask;
  struct io_uring_cqe *done;
} ring;

static int silent[2];
static char sink[8];

static char *map_ring(size_t size, off_t what) {
  void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, what);
  if (p == MAP_FAILED) fixture_die("mmap of a ring");
  return (char *)p;
}

static void set_up(void) {
  struct io_uring_params q;
  memset(&q, 0, sizeof q);
  ring.fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &q);
  if (ring.fd < 0) fixture_die("io_uring_setup");
  char *sq = map_ring(q.sq_off.array + q.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
  char *cq = map_ring(q.cq_off.cqes + q.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
  ring.head = (unsigned *)(sq + q.sq_off.head);
  ring.tail = (unsigned *)(sq + q.sq_off.tail);
  ring.mask = (unsigned *)(sq + q.sq_off.ring_mask);
  ring.array = (unsigned *)(sq + q.sq_off.array);
  ring.done_head = (unsigned *)(cq + q.cq_off.head);
  ring.done_tail = (unsigned *)(cq + q.cq_off.tail);
  ring.done_mask = (unsigned *)(cq + q.cq_off.ring_mask);
  ring.done = (struct io_uring_cqe *)(cq + q.cq_off.cqes);
  ring.entries = (struct io_uring_sqe *)map_ring(q.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
}

static NOINLINE void request(int opcode, int fd, int enter) {
  void *p = malloc(SIZE);
  fill(p, SIZE);
  note(KEPT, p, SIZE);
  unsigned tail = *ring.tail, i = tail & *ring.mask;
  struct io_uring_sqe *e = &ring.entries[i];
  memset(e, 0, sizeof *e);
  e->opcode = (uint8_t)opcode;
  e->fd = fd;
  e->addr = (uint64_t)(uintptr_t)sink;
  e->len = fd < 0 ? 0 : 1;
  e->user_data = (uint64_t)(uintptr_t)p;
  ring.array[i] = i;
  __atomic_store_n(ring.tail, tail + 1, __ATOMIC_RELEASE);
  if (!enter) return;
  if (syscall(SYS_io_uring_enter, ring.fd, 1, 0, 0, NULL, 0) != 1) fixture_die("io_uring_enter");
  memset(e, 0, sizeof *e);
}

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(SIZE); /* want memory 136 */
    fill(p, SIZE);
    lose(p, SIZE);
  }
}

static void keep(long n) {
  while (n-- > 0) request(IORING_OP_READ, silent[0], 1);
}

static void release(long n) {
  static const char bytes[ENTRIES];
  if (n > ENTRIES) n = ENTRIES;
  if (write(silent[1], bytes, (size_t)n) != n) fixture_die("write");
  while (n-- > 0) {
    unsigned head = *ring.done_head;
    if (head == __atomic_load_n(ring.done_tail, __ATOMIC_ACQUIRE) &&
        syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
      fixture_die("io_uring_enter");
    struct io_uring_cqe *e = &ring.done[head & *ring.done_mask];
    void *p = (void *)(uintptr_t)e->user_data;
    memset(e, 0, sizeof *e);
    __atomic_store_n(ring.done_head, head + 1, __ATOMIC_RELEASE);
    note(FREED, p, SIZE);
    free(p);
  }
}

static void other(const char *line) {
  long n;
  if (sscanf(line, "done %ld", &n) == 1) {
    while (n-- > 0) request(IORING_OP_NOP, -1, 1);
  } else if (sscanf(line, "queued %ld", &n) == 1) {
    while (n-- > 0) request(IORING_OP_NOP, -1, 0);
  } else {
    say("violation: unknown command\n");
    return;
  }
  say("ok\n");
}

int main(void) {
  fixture_init();
  if (pipe(silent)) fixture_die("pipe");
  set_up();
  static const struct program p = {leak, keep, release, other};
  return serve(&p);
}
