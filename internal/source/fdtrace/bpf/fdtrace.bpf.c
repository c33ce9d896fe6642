/* fdtrace.bpf.c: notes the calls that make, duplicate or close descriptors in
 * the watched processes, and what becomes of their descriptor tables at fork,
 * exec and exit. */
#include "kernel.h"

char terms[] SEC("license") = "GPL";

/* What a system call is to us. The loader fills class_of with these. */
enum {
  C_NONE,
  C_OPEN,        /* gives a descriptor */
  C_PAIR_0,      /* gives two, where argument 0 points */
  C_PAIR_3,      /* likewise argument 3 */
  C_CLOSE,       /* argument 0 */
  C_CLOSE_RANGE, /* arguments 0 to 1 */
  C_DUP,         /* gives argument 1, which it closes before */
  C_FCNTL,       /* gives one for F_DUPFD and F_DUPFD_CLOEXEC; else a use */
  C_BPF,         /* gives one for some commands */
  C_SIGNALFD,    /* gives one when argument 0 is -1 */
  C_LANDLOCK,    /* gives one when argument 2 is 0 */
  C_SECCOMP,     /* gives one with SECCOMP_FILTER_FLAG_NEW_LISTENER */
  C_CLONE,       /* gives one with CLONE_PIDFD */
  C_CLONE3,
  C_UNSHARE,
  C_RECVMSG, /* may receive some; a use too */
  C_EPOLL,   /* a use of arguments 0 and 2 */
  C_USE,     /* a use of argument 0 */
  C_MEMORY,  /* interesting when it fails */
  C_BRK,
};

enum { CALLS = 512, FIRST = 4096, WIDE = 16384, RECEIVED = 16 };

/* Kinds of events. */
enum { E_CALL, E_FORK, E_EXEC, E_EXIT, E_TABLE, E_FAIL };

enum { ENOMEM = 12, EAGAIN = 11, EBADF = 9, ENFILE = 23, EMFILE = 24, EADDRNOTAVAIL = 99, ENOBUFS = 105 };

struct event {
  u64 enter; /* CLOCK_BOOTTIME in ns, 0 when the call began before the watch */
  u64 exit;
  u64 files;  /* which table of descriptors, after the call */
  u64 before; /* likewise before it */
  s64 ret;
  u64 start; /* of the process that kind is about, CLOCK_BOOTTIME in ns */
  struct regs regs;
  u32 tgid, tid; /* in the initial PID namespace */
  u32 subject;   /* the process that kind is about, likewise */
  u32 visible;   /* likewise, in the watcher's PID namespace */
  u32 nr;
  u32 kind;
  u32 bytes; /* of stack, or of the bitmap of open descriptors, behind this */
  u32 most;  /* bytes that would have been wanted */
  u32 count; /* of numbers */
  s32 numbers[RECEIVED];
};

struct wide_event {
  struct event head;
  u8 tail[WIDE];
};

struct thread {
  u64 enter;
  u64 files;
  u64 told; /* when the stack of a close was noted last */
  u32 nr;
};

struct use {
  u64 at;
  s32 error;
  u32 nr;
};

struct slot {
  u32 tgid;
  s32 num;
};

struct fail {
  u64 ip, sp;
  u32 tgid;
  u16 nr, error;
};

struct process {
  u64 at, start, files;
  u32 tgid, parent, visible, bytes, most, unused;
};

struct {
  NUMBER(type, RINGBUF);
  NUMBER(max_entries, 1 << 24);
} ring SEC(".maps");

/* The watched processes, and when each executed a program last. */
struct {
  NUMBER(type, HASH);
  NUMBER(max_entries, 1 << 16);
  NUMBER(map_flags, NO_PREALLOC);
  TYPE(key, u32);
  TYPE(value, u64);
} watch SEC(".maps");

struct {
  NUMBER(type, CGROUP_ARRAY);
  NUMBER(max_entries, 1);
  TYPE(key, u32);
  TYPE(value, u32);
} cgroups SEC(".maps");

struct {
  NUMBER(type, TASK_STORAGE);
  NUMBER(map_flags, NO_PREALLOC);
  TYPE(key, u32);
  TYPE(value, struct thread);
} threads SEC(".maps");

/* Of descriptors whose opening was seen. */
struct {
  NUMBER(type, HASH);
  NUMBER(max_entries, 1 << 18);
  NUMBER(map_flags, NO_PREALLOC);
  TYPE(key, struct slot);
  TYPE(value, struct use);
} uses SEC(".maps");

/* Sites whose stacks are longer than FIRST. */
struct {
  NUMBER(type, LRU_HASH);
  NUMBER(max_entries, 4096);
  TYPE(key, u64);
  TYPE(value, u8);
} wide SEC(".maps");

struct {
  NUMBER(type, HASH);
  NUMBER(max_entries, 4096);
  NUMBER(map_flags, NO_PREALLOC);
  TYPE(key, struct fail);
  TYPE(value, u64);
} fails SEC(".maps");

/* Numbers whose events did not fit into the ring, and when; -1: all of a process. */
struct {
  NUMBER(type, HASH);
  NUMBER(max_entries, 1 << 14);
  NUMBER(map_flags, NO_PREALLOC);
  TYPE(key, struct slot);
  TYPE(value, u64);
} lost SEC(".maps");

struct {
  NUMBER(type, ARRAY);
  NUMBER(max_entries, 1);
  TYPE(key, u32);
  u8 (*value)[WIDE];
} scratch SEC(".maps");

const volatile u8 class_of[CALLS];
const volatile u8 by_cgroup; /* watch the cgroup, else the processes in watch */
const volatile u8 family;    /* children are watched too */
const volatile u8 uses_too;  /* the last use of each descriptor is noted */
const volatile u8 all_wide;
const volatile u32 ring_quarter; /* bytes */

u32 level;       /* of the watcher's PID namespace */
u32 only;        /* the one process that is watched, 0 when there may be several */
u64 dropped;     /* events that did not fit */
u64 dropped_all; /* events that did not fit, nor into lost: since then nothing is certain */
u64 noted;       /* events */

INLINE bool watched(u32 tgid) {
  if (only && tgid != only) return false; /* most calls of others end here */
  if (by_cgroup) return under_cgroup(&cgroups, 0) == 1;
  return map_lookup(&watch, &tgid) != NULL;
}

INLINE void drop(u32 tgid, s32 num) {
  struct slot key = {tgid, num};
  u64 now = boot_ns();
  __sync_fetch_and_add(&dropped, 1);
  if (map_update(&lost, &key, &now, ANY)) dropped_all = now;
}

/* The reader looks at the ring every few milliseconds by itself: waking it
 * costs the target more than noting the event. */
INLINE u64 waking(void) { return ring_query(&ring, 0) > ring_quarter ? RING_WAKE : RING_QUIET; }

INLINE u64 site_of(const struct event *e) { return e->regs.ip ^ (u64)e->tgid << 48 ^ (e->regs.sp & 4095) << 36; }

/* Copies up to size bytes from sp, page by page where not all of it is there. */
INLINE u32 copy_stack(u8 *to, u32 size, u64 sp) {
  if (!probe_read_user(to, size, (void *)sp)) return size;
  u32 done = 4096 - (sp & 4095);
  if (probe_read_user(to, done, (void *)sp)) return 0;
#pragma unroll
  for (u32 page = 1; page < WIDE / 4096; page++) {
    if (page >= size / 4096 || probe_read_user(to + done, 4096, (void *)(sp + done))) break;
    done += 4096;
    OPAQUE(done);
  }
  return done;
}

APART bool put(struct event *e, bool stack) {
  __sync_fetch_and_add(&noted, 1);
  struct wide_event *w;
  if (!stack) {
    struct event *r = ring_reserve(&ring, sizeof *r, 0);
    if (!r) return false;
    *r = *e;
    ring_submit(r, waking());
    return true;
  }
  u64 site = site_of(e);
  if (all_wide || map_lookup(&wide, &site)) {
    w = ring_reserve(&ring, sizeof w->head + WIDE, 0);
    if (!w) return false;
    e->most = WIDE;
    e->bytes = copy_stack(w->tail, WIDE, e->regs.sp);
  } else {
    w = ring_reserve(&ring, sizeof w->head + FIRST, 0);
    if (!w) return false;
    e->most = FIRST;
    e->bytes = copy_stack(w->tail, FIRST, e->regs.sp);
  }
  w->head = *e;
  ring_submit(w, waking());
  return true;
}

/* put_table notes an event with the bitmap of the open descriptors of files. */
INLINE bool put_table(struct event *e, struct files_struct *files) {
  struct fdtable *fdt = NULL;
  u64 *bits = NULL;
  u32 most = 0;
  READ(fdt, files->fdt);
  READ(most, fdt->max_fds);
  READ(bits, fdt->open_fds);
  __sync_fetch_and_add(&noted, 1);
  e->files = (u64)files;
  e->most = most / 8;
  struct wide_event *w;
  if (e->most <= FIRST) {
    w = ring_reserve(&ring, sizeof w->head + FIRST, 0);
    if (!w) return false;
    e->bytes = e->most;
    if (e->bytes > FIRST) e->bytes = FIRST;
    if (probe_read_kernel(w->tail, e->bytes, bits)) e->bytes = 0;
  } else {
    w = ring_reserve(&ring, sizeof w->head + WIDE, 0);
    if (!w) return false;
    e->bytes = e->most;
    if (e->bytes > WIDE) e->bytes = WIDE;
    if (probe_read_kernel(w->tail, e->bytes, bits)) e->bytes = 0;
  }
  w->head = *e;
  ring_submit(w, waking());
  return true;
}

INLINE u32 visible_pid(struct task_struct *task) {
  struct task_struct *leader = NULL;
  struct pid *pid = NULL;
  u32 depth = 0;
  s32 nr = 0;
  READ(leader, task->group_leader);
  READ(pid, leader->thread_pid);
  READ(depth, pid->level);
  if (depth >= level) READ(nr, pid->numbers[level & 31].nr);
  return nr;
}

INLINE void subject(struct event *e, struct task_struct *task) {
  struct task_struct *leader = NULL;
  READ(e->subject, task->tgid);
  READ(leader, task->group_leader);
  READ(e->start, leader->start_boottime);
  e->visible = visible_pid(task);
}

APART int entered(u32 nr) {
  if (!watched(pid_tgid() >> 32)) return 0;
  struct task_struct *task = current_task();
  struct thread *t = storage_get(&threads, task, NULL, STORAGE_CREATE);
  if (!t) return 0;
  t->enter = boot_ns();
  t->nr = nr;
  t->files = (u64)task->files;
  return 0;
}

INLINE void forget_use(u32 tgid, s32 num) {
  if (!uses_too) return;
  struct slot key = {tgid, num};
  map_delete(&uses, &key);
}

INLINE void expect_use(u32 tgid, s32 num) {
  if (!uses_too) return;
  struct slot key = {tgid, num};
  struct use none = {};
  map_update(&uses, &key, &none, ANY);
}

INLINE void used(u32 tgid, s32 num, u32 nr, s64 ret) {
  if (!uses_too) return;
  struct slot key = {tgid, num};
  struct use *u = map_lookup(&uses, &key);
  if (!u) return;
  u->at = boot_ns();
  u->nr = nr;
  u->error = ret < 0 ? -ret : 0;
}

INLINE bool exhausted(u32 class, s64 ret) {
  switch (-ret) {
  case EAGAIN: return class == C_CLONE || class == C_CLONE3;
  case ENOMEM:
  case ENFILE:
  case EMFILE:
  case ENOBUFS:
  case EADDRNOTAVAIL: return true;
  }
  return false;
}

/* failed counts, and notes the first of each site with its stack. */
INLINE void failed(struct event *e, s64 error) {
  struct fail key = {e->regs.ip, e->regs.sp, e->tgid, e->nr, error};
  u64 one = 1, *n = map_lookup(&fails, &key);
  if (!n && !map_update(&fails, &key, &one, NEW_ONLY)) {
    e->kind = E_FAIL;
    if (!put(e, true)) __sync_fetch_and_add(&dropped, 1);
    return;
  }
  if (!n) n = map_lookup(&fails, &key);
  if (n) __sync_fetch_and_add(n, 1);
}

INLINE bool bpf_gives(u32 command) {
  /* MAP_CREATE PROG_LOAD OBJ_GET PROG_GET_FD_BY_ID MAP_GET_FD_BY_ID
   * RAW_TRACEPOINT_OPEN BTF_LOAD BTF_GET_FD_BY_ID LINK_CREATE
   * LINK_GET_FD_BY_ID ENABLE_STATS ITER_CREATE TOKEN_CREATE */
  const u64 giving = 1ull << 0 | 1ull << 5 | 1ull << 7 | 1ull << 13 | 1ull << 14 | 1ull << 17 | 1ull << 18 |
                     1ull << 19 | 1ull << 28 | 1ull << 30 | 1ull << 32 | 1ull << 33 | 1ull << 36;
  return command < 64 && giving >> command & 1;
}

/* pidfd gives where clone stores the descriptor of the child, 0 for nowhere. */
INLINE u64 pidfd_at(u32 class, const struct regs *r) {
  enum { CLONE_PIDFD = 0x1000 };
  u64 flags_and_pidfd[2] = {};
  if (class == C_CLONE) return r->di & CLONE_PIDFD ? r->dx : 0;
  probe_read_user(flags_and_pidfd, sizeof flags_and_pidfd, (void *)r->di);
  return flags_and_pidfd[0] & CLONE_PIDFD ? flags_and_pidfd[1] : 0;
}

/* received lists the descriptors in the first control message of a msghdr. */
INLINE void received(struct event *e) {
  struct {
    u64 control, length;
  } msg = {};
  struct {
    u64 length;
    s32 level, type;
  } head = {};
  enum { CONTROL = 32, SOL_SOCKET = 1, SCM_RIGHTS = 1 };
  if (probe_read_user(&msg, sizeof msg, (void *)(e->regs.si + CONTROL)) || msg.length < sizeof head + 4) return;
  if (probe_read_user(&head, sizeof head, (void *)msg.control)) return;
  if (head.level != SOL_SOCKET || head.type != SCM_RIGHTS || head.length < sizeof head + 4) return;
  u64 n = (head.length - sizeof head) / 4;
  if (n > RECEIVED) n = RECEIVED;
  if (!probe_read_user(e->numbers, n * 4, (void *)(msg.control + sizeof head))) e->count = n;
}

INLINE void closed(struct event *e, struct thread *t) {
  enum { SAMPLE_NS = 50 * 1000 * 1000 };
  bool stack = false;
  if (t && e->exit - t->told > SAMPLE_NS) {
    t->told = e->exit;
    stack = true;
  }
  forget_use(e->tgid, e->regs.di);
  if (!put(e, stack)) drop(e->tgid, e->regs.di);
}

APART int done(u32 nr, s64 ret) {
  u64 id = pid_tgid();
  u32 tgid = id >> 32;
  if (!watched(tgid) || nr >= CALLS) return 0;
  struct task_struct *task = current_task();
  struct regs *regs = task_regs(task);
  u32 class = class_of[nr];
  if (class == C_USE || class == C_EPOLL) {
    u64 num = 0;
    probe_read_kernel(&num, sizeof num, &regs->di);
    used(tgid, num, nr, ret);
    if (class == C_EPOLL) {
      probe_read_kernel(&num, sizeof num, &regs->dx);
      used(tgid, num, nr, ret);
    }
    if (!exhausted(class, ret)) return 0;
  }
  if ((class == C_MEMORY || class == C_CLOSE) && ret < 0 && (class == C_CLOSE ? ret == -EBADF : ret != -ENOMEM))
    return 0;
  if (class == C_MEMORY && ret >= 0) return 0;

  struct event e = {
      .exit = boot_ns(), .files = (u64)task->files, .ret = ret, .tgid = tgid, .tid = id, .nr = nr, .kind = E_CALL};
  probe_read_kernel(&e.regs, sizeof e.regs, regs);
  struct thread *t = storage_get(&threads, task, NULL, STORAGE_CREATE);
  e.before = e.files;
  if (t && t->nr == nr) {
    e.enter = t->enter;
    if (t->files) e.before = t->files;
  }
  s32 two[2] = {-1, -1};
  switch (class) {
  case C_CLOSE: closed(&e, t); return 0;
  case C_BRK:
    if (e.regs.di && (u64)ret < e.regs.di) failed(&e, ENOMEM);
    return 0;
  case C_RECVMSG:
    used(tgid, e.regs.di, nr, ret);
    if (ret >= 0) received(&e);
    break;
  case C_FCNTL:
    /* F_DUPFD and F_DUPFD_CLOEXEC */
    if ((u32)e.regs.si != 0 && (u32)e.regs.si != 1030) {
      used(tgid, e.regs.di, nr, ret);
      return 0;
    }
    break;
  }
  if (ret < 0) {
    if (exhausted(class, ret)) failed(&e, -ret);
    return 0;
  }
  switch (class) {
  case C_UNSHARE:
  case C_CLOSE_RANGE:
    if (e.files != e.before) {
      e.kind = E_TABLE;
      if (!put_table(&e, (void *)e.files)) drop(tgid, -1);
      return 0;
    }
    if (class == C_CLOSE_RANGE && !put(&e, true)) drop(tgid, -1);
    return 0;
  case C_PAIR_0: probe_read_user(two, sizeof two, (void *)e.regs.di); break;
  case C_PAIR_3: probe_read_user(two, sizeof two, (void *)e.regs.r10); break;
  case C_CLONE:
  case C_CLONE3: {
    u64 at = pidfd_at(class, &e.regs);
    if (!ret || !at || probe_read_user(two, 4, (void *)at)) return 0;
    break;
  }
  case C_DUP:
    if (e.regs.di == e.regs.si) return 0;
    two[0] = ret;
    break;
  case C_BPF:
    if (!bpf_gives(e.regs.di)) return 0;
    two[0] = ret;
    break;
  case C_SIGNALFD:
    if ((s32)e.regs.di != -1) return 0;
    two[0] = ret;
    break;
  case C_LANDLOCK:
    if ((u32)e.regs.dx) return 0;
    two[0] = ret;
    break;
  case C_SECCOMP:
    /* SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER */
    if ((u32)e.regs.di != 1 || !(e.regs.si & 8)) return 0;
    two[0] = ret;
    break;
  case C_RECVMSG:
    if (!e.count) return 0;
    if (!put(&e, true)) drop(tgid, -1);
    return 0;
  default: two[0] = ret;
  }
  e.numbers[0] = two[0];
  e.numbers[1] = two[1];
  e.count = two[1] >= 0 ? 2 : two[0] >= 0 ? 1 : 0;
  if (two[0] >= 0) expect_use(tgid, two[0]);
  if (two[1] >= 0) expect_use(tgid, two[1]);
  if (!put(&e, true)) {
    drop(tgid, two[0]);
    if (two[1] >= 0) drop(tgid, two[1]);
  }
  return 0;
}

/* The contexts of the tracepoints syscalls/sys_enter_X and sys_exit_X, as
 * their format files in tracefs say. */
struct call_enter {
  u64 common;
  u32 nr;
};

struct call_exit {
  u64 common;
  u32 nr;
  s64 ret;
};

SEC("tracepoint") int enter_call(struct call_enter *c) { return entered(c->nr); }

SEC("tracepoint") int exit_call(struct call_exit *c) { return done(c->nr, c->ret); }

enum { USER_CS = 0x33 }; /* of 64-bit code, asm/segment.h */

SEC("raw_tracepoint") int enter_any(u64 *c) {
  u64 nr = c[1], cs = 0;
  if (nr >= CALLS || !class_of[nr] || !watched(pid_tgid() >> 32)) return 0;
  probe_read_kernel(&cs, 2, &((struct regs *)c[0])->cs);
  return cs == USER_CS ? entered(nr) : 0;
}

SEC("raw_tracepoint") int exit_any(u64 *c) {
  struct regs *regs = (void *)c[0];
  u64 nr = 0, cs = 0;
  probe_read_kernel(&nr, sizeof nr, &regs->orig_ax);
  if (nr >= CALLS || !class_of[nr] || !watched(pid_tgid() >> 32)) return 0;
  probe_read_kernel(&cs, 2, &regs->cs);
  return cs == USER_CS ? done(nr, c[1]) : 0;
}

SEC("raw_tracepoint") int on_fork(u64 *c) {
  struct task_struct *parent = (void *)c[0], *child = (void *)c[1];
  u64 never = 0;
  u32 tgid = pid_tgid() >> 32;
  if (!family || !watched(tgid)) return 0;
  struct event e = {.exit = boot_ns(), .tgid = tgid, .tid = pid_tgid(), .kind = E_FORK};
  subject(&e, child);
  if (e.subject == tgid) return 0;
  if (map_update(&watch, &e.subject, &never, ANY)) drop(tgid, -1);
  struct files_struct *files = NULL;
  READ(files, parent->files);
  e.before = (u64)files;
  READ(files, child->files);
  struct thread *t = storage_get(&threads, current_task(), NULL, 0);
  if (t) {
    e.enter = t->enter;
    e.nr = t->nr;
  }
  if (!put_table(&e, files)) drop(e.subject, -1);
  return 0;
}

SEC("raw_tracepoint") int on_exec(u64 *c) {
  struct task_struct *task = (void *)c[0];
  u32 tgid = pid_tgid() >> 32;
  if (!watched(tgid)) return 0;
  struct event e = {.exit = boot_ns(), .tgid = tgid, .tid = pid_tgid(), .kind = E_EXEC};
  subject(&e, task);
  struct files_struct *files = NULL;
  map_update(&watch, &tgid, &e.exit, ANY);
  READ(files, task->files);
  if (!put_table(&e, files)) drop(tgid, -1);
  return 0;
}

SEC("raw_tracepoint") int on_exit(u64 *c) {
  struct task_struct *task = (void *)c[0];
  u32 tgid = pid_tgid() >> 32;
  if (!watched(tgid)) return 0;
  struct signal_struct *signal = NULL;
  s32 live = 0;
  READ(signal, task->signal);
  READ(live, signal->live.counter);
  if (live > 0) return 0;
  struct event e = {.exit = boot_ns(), .tgid = tgid, .tid = pid_tgid(), .kind = E_EXIT};
  subject(&e, task);
  map_delete(&watch, &tgid);
  if (!put(&e, false)) drop(tgid, -1);
  return 0;
}

/* Lists all processes, and the open descriptors of the watched ones. */
SEC("iter/task") int list(struct bpf_iter__task *c) {
  struct task_struct *task = c->task, *other = NULL;
  if (!task) return 0;
  void *seq = c->meta->seq;
  struct files_struct *files = NULL;
  struct process p = {.at = boot_ns(), .tgid = task->tgid};
  READ(other, task->group_leader);
  READ(files, other->files);
  /* A process may go on without its first thread. */
  if (task->pid != task->tgid && files) return 0;
  files = task->files;
  p.files = (u64)files;
  READ(p.start, other->start_boottime);
  READ(other, task->real_parent);
  READ(p.parent, other->tgid);
  p.visible = visible_pid(task);
  u32 zero = 0;
  u8 *bits = map_lookup(&scratch, &zero);
  u64 *in = map_lookup(&watch, &p.tgid);
  if (bits && in && files) {
    struct fdtable *fdt = NULL;
    u64 *from = NULL;
    READ(fdt, files->fdt);
    READ(p.most, fdt->max_fds);
    READ(from, fdt->open_fds);
    p.most /= 8;
    p.bytes = p.most > WIDE ? WIDE : p.most;
    if (p.bytes > WIDE || probe_read_kernel(bits, p.bytes, from)) p.bytes = 0;
  }
  seq_write(seq, &p, sizeof p);
  u32 n = p.bytes;
  if (bits && n > 0 && n <= WIDE) seq_write(seq, bits, n);
  return 0;
}

/* Tells the depth of the watcher's PID namespace. */
SEC("iter/task") int own_level(struct bpf_iter__task *c) {
  struct task_struct *task = c->task;
  if (!task || task->tgid != (s32)(pid_tgid() >> 32)) return 0;
  struct pid *pid = NULL;
  READ(pid, task->thread_pid);
  READ(level, pid->level);
  return 0;
}
