/* Requests of Linux native AIO (raw system calls): each control block is in
 * the heap, polls a pipe that stays silent, and only the kernel knows it.
 * "done N" makes requests that complete and stay unread in the ring. */
#include "fixture.h"

#include <linux/aio_abi.h>
#include <sys/syscall.h>

/* <linux/poll.h> clashes with nothing here, but POLLIN is all that is needed. */
enum { READABLE = 1, MAX = 256 };

struct request {
  struct iocb control;
  char data[56];
};

static aio_context_t context;
static int silent[2], loud[2];

static NOINLINE void submit(enum fate fate, int fd) {
  struct request *r = (struct request *)malloc(sizeof *r); /* want memory 120 */
  fill(r, sizeof *r);
  if (fate == LOST) {
    lose(r, sizeof *r);
    return;
  }
  memset(&r->control, 0, sizeof r->control);
  r->control.aio_data = (uint64_t)(uintptr_t)r;
  r->control.aio_fildes = (uint32_t)fd;
  r->control.aio_lio_opcode = IOCB_CMD_POLL;
  r->control.aio_buf = READABLE;
  struct iocb *list[] = {&r->control};
  if (syscall(SYS_io_submit, context, 1L, list) != 1) fixture_die("io_submit");
  note(KEPT, r, sizeof *r);
}

static void leak(long n) {
  while (n-- > 0) submit(LOST, -1);
}

static void keep(long n) {
  while (n-- > 0) submit(KEPT, silent[0]);
}

static void release(long n) {
  char byte = 0;
  while (n-- > 0) {
    struct io_event event;
    struct timespec soon = {0, 0};
    if (syscall(SYS_io_getevents, context, 0L, 1L, &event, &soon) != 1) {
      /* All pending ones complete at once when the pipe speaks. */
      if (write(silent[1], &byte, 1) != 1) fixture_die("write");
      if (syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) != 1) fixture_die("io_getevents");
    }
    void *p = (void *)(uintptr_t)event.data;
    note(FREED, p, sizeof(struct request));
    free(p);
  }
}

static void other(const char *line) {
  long n;
  if (sscanf(line, "done %ld", &n) != 1) {
    say("violation: unknown command\n");
    return;
  }
  while (n-- > 0) submit(KEPT, loud[0]);
  say("ok\n");
}

int main(void) {
  fixture_init();
  char byte = 0;
  if (syscall(SYS_io_setup, MAX, &context) || pipe(silent) || pipe(loud) || write(loud[1], &byte, 1) != 1)
    fixture_die("set up aio");
  static const struct program p = {leak, keep, release, other};
  return serve(&p);
}
