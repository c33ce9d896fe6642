/* System calls of libc: before those that close descriptors, after those that
 * open them or read from them. A table by number has one word for each. */
#include "probe.h"

#define CLONE_VM 0x100
#define CLONE_FILES 0x400
#define CLONE3 435          /* its flags are in memory */
#define CLOSE_RANGE_MARKS 4 /* CLOSE_RANGE_CLOEXEC: nothing is closed */
#define CLOSE_RANGE_FLAGS 6
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define SCM_MOST 256 /* control messages looked at; SCM_MAX_FD of include/net/scm.h is 253 */

static u64 site_argument(const struct site *f, u32 n) {
  switch (n) {
  case 0: return f->rdi;
  case 1: return f->rsi;
  case 2: return f->rdx;
  case 3: return f->r10;
  }
  return n == 4 ? f->r8 : f->r9;
}

static u64 *word_of(const struct books *b, u64 fd) { return fd < b->fds_max ? (u64 *)b->fds + fd : 0; }

/* No number behind this was ever seen. */
static u64 fds_end(const struct books *b) {
  u64 recorded = load(&b->fds_end), open = load(&b->fds_open);
  return recorded > open ? recorded : open;
}

/* Who called the function that the site is in. */
static u32 opener(const struct site *f, struct books *b, struct slot *s, u64 fs) {
  u64 words = f->info >> SITE_CFA_SHIFT & ((1u << SITE_CFA_BITS) - 1);
  u64 saved = f->info >> SITE_BP_SHIFT & ((1u << SITE_BP_BITS) - 1);
  if (words == 0) return STACK_UNKNOWN_FD;
  u64 cfa = (u64)(f + 1) + words * 8;
  struct caller o = {.sp = cfa - 8, .bp = saved ? load((const u64 *)(cfa - saved * 8)) : f->rbp};
  u32 stack = stack_from(&o, b, s, fs, STACK_EXACT | STACK_FD);
  return stack < STACK_UNKNOWN_FD ? STACK_UNKNOWN_FD : stack;
}

/* Tells two descriptors of one number apart that one thread opened in one
 * moment. */
static u64 turn(const struct slot *s) { return s->slow << FD_TURN_SHIFT; }

static void fd_opened(struct books *b, struct slot *s, u64 fd, u32 stack, u32 call) {
  u64 *at = word_of(b, fd);
  if (!at) {
    add(&b->fds_lost, 1);
    return;
  }
  u64 old = load(at);
  u64 word = stack | (u64)load(&near.state.now) << FD_TIME_SHIFT | (u64)call << FD_CALL_SHIFT | FD_OPEN |
             (old & FD_OPEN ? 0 : old & FD_HOW) | turn(s);
  old = __atomic_exchange_n(at, word, __ATOMIC_RELAXED);
  if (old & FD_OPEN) stack_released(b, s->shard, (u32)old & ((1u << STACK_BITS) - 1), 0, 0);
  stack_acquired(b, s->shard, stack, 0, 0);
  for (u64 end = load(&b->fds_end); end <= fd;)
    if (__atomic_compare_exchange_n(&b->fds_end, &end, fd + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
}

/* One that nobody saw opening is noted too: the next of that number is another. */
static void fd_closes(struct books *b, const struct slot *s, u64 fd, u64 how) {
  u64 *at = word_of(b, fd);
  if (!at || fd >= fds_end(b)) return;
  u64 old = load(at);
  u64 word = (old & FD_OPEN ? old & ~(FD_OPEN | FD_HOW) : s ? turn(s) : 0) | how << FD_HOW_SHIFT;
  if (!__atomic_compare_exchange_n(at, &old, word, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return;
  if (old & FD_OPEN) stack_released(b, s ? s->shard : 0, (u32)old & ((1u << STACK_BITS) - 1), 0, 0);
}

/* dup2 onto a number closes what it was. It may fail, so its record is only laid
 * aside, and comes back in fd_replaced. */
static void fd_replaces(struct books *b, struct slot *s, u64 fd) {
  u64 *at = word_of(b, fd);
  s->kept = 0;
  if (!at) return;
  u64 old = load(at);
  if ((old & FD_OPEN) &&
      __atomic_compare_exchange_n(at, &old, old & ~FD_OPEN, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    s->kept = 1;
}

static void fd_replaced(const struct site *f, struct books *b, struct slot *s, u64 fs, u64 fd, u32 call) {
  u64 *at = word_of(b, fd);
  u64 old = at ? load(at) : 0;
  bool kept = s->kept && at && !(old & FD_OPEN);
  s->kept = 0;
  if ((i64)f->rax < 0) {
    if (kept) __atomic_compare_exchange_n(at, &old, old | FD_OPEN, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return;
  }
  if (kept) {
    stack_released(b, s->shard, (u32)old & ((1u << STACK_BITS) - 1), 0, 0);
    store(at, (old & ~FD_HOW) | (u64)FD_REPLACED << FD_HOW_SHIFT);
  }
  fd_opened(b, s, fd, opener(f, b, s, fs), call);
}

static void closes_range(struct books *b, const struct slot *s, u64 first, u64 last, u64 flags) {
  u64 end = fds_end(b);
  if ((flags & ~(u64)CLOSE_RANGE_FLAGS) || (flags & CLOSE_RANGE_MARKS) || first > last) return;
  for (; first <= last && first < end; first++) fd_closes(b, s, first, FD_CLOSED_RANGE);
}

/* struct msghdr of <bits/socket.h>: msg_control at 32, msg_controllen at 40;
 * struct cmsghdr: length, level at 8, type at 12, data at 16. */
static void received(const struct site *f, struct books *b, struct slot *s, u64 fs, u64 message, u32 call) {
  u64 at = load((const u64 *)(message + 32)), left = load((const u64 *)(message + 40));
  for (u32 n = 0; at != 0 && left >= 16 && n < SCM_MOST; n++) {
    u64 size = load((const u64 *)at);
    if (size < 16 || size > left) return;
    if (load((const u32 *)(at + 8)) == SOL_SOCKET && load((const u32 *)(at + 12)) == SCM_RIGHTS) {
      u32 stack = opener(f, b, s, fs);
      for (u64 i = 16; i + 4 <= size; i += 4) fd_opened(b, s, load((const u32 *)(at + i)), stack, call);
    }
    u64 step = (size + 7) & ~7ull;
    if (step >= left) return;
    at += step;
    left -= step;
  }
}

/* Whether a child is made that runs in this memory with descriptors of its own.
 * It has this thread's slot, and this thread waits for it. */
static bool lends(const struct site *f, u32 does, u32 call) {
  if (does == DOES_LEND) return true;
  u64 flags = call == CLONE3 ? load((const u64 *)f->rdi) : f->rdi;
  return (flags & (CLONE_VM | CLONE_FILES)) == CLONE_VM;
}

static void site_before(const struct site *f, struct books *b, struct slot *s, const struct deed *c) {
  switch (c->does) {
  case DOES_CLOSE: fd_closes(b, s, (u32)site_argument(f, c->arg), FD_CLOSED); break;
  case DOES_CLOSE_RANGE:
    closes_range(b, s, (u32)site_argument(f, c->arg), (u32)site_argument(f, c->arg + 1u),
                 site_argument(f, c->arg + 2u));
    break;
  case DOES_REPLACE:
    if (s && (u32)f->rdi != (u32)site_argument(f, c->arg)) fd_replaces(b, s, (u32)site_argument(f, c->arg));
    break;
  }
}

static bool counts(const struct site *f, const struct books *b, const struct deed *c) {
  if (c->when == 0) return true;
  const struct when *w = (const struct when *)b->whens + (c->when - 1);
  u32 have = (u32)site_argument(f, w->arg);
  for (u32 i = 0; i < w->n && i < CALL_VALUES; i++)
    if (w->value[i] == have) return true;
  return false;
}

static void site_after(const struct site *f, struct books *b, struct slot *s, u64 fs, const struct deed *c, u32 call) {
  if (c->does == DOES_REPLACE) {
    if ((u32)f->rdi != (u32)site_argument(f, c->arg)) fd_replaced(f, b, s, fs, (u32)site_argument(f, c->arg), call);
    return;
  }
  if ((i64)f->rax < 0 || !counts(f, b, c)) return;
  u64 at = site_argument(f, c->arg);
  switch (c->does) {
  case DOES_RETURN: fd_opened(b, s, f->rax, opener(f, b, s, fs), call); break;
  case DOES_PAIR: {
    u32 stack = opener(f, b, s, fs);
    fd_opened(b, s, load((const u32 *)at), stack, call);
    fd_opened(b, s, load((const u32 *)(at + 4)), stack, call);
    break;
  }
  case DOES_RECEIVE: received(f, b, s, fs, at, call); break;
  case DOES_RECEIVE_ALL: /* struct mmsghdr has 64 bytes */
    for (u64 i = 0; i < f->rax; i++) received(f, b, s, fs, at + i * 64, call);
    break;
  }
}

static void at_site(const struct site *f, struct books *b, struct slot *s, u64 fs) {
  bool after = f->info & SITE_AFTER;
  u32 call = f->info & SITE_CALL_MASK;
  if (after && (f->info & (SITE_READ | SITE_READS)) && s && (i64)f->rax > 0) s->input = (u32)f->rdi + 1;
  if (!near.state.fds) return;
  if (call == SITE_ANY) {
    if (!s) return;
    if (!after) s->call = f->rax < CALLS ? (u16)f->rax : 0;
    call = s->call;
  }
  const struct deed *c = (const struct deed *)b->calls + call % CALLS;
  if (c->does == DOES_BEAR || c->does == DOES_LEND) {
    if (!s || !lends(f, c->does, call)) return;
    if (!after)
      s->away++;
    else if (f->rax != 0 && s->away > 0)
      s->away--;
    return;
  }
  if (s && s->away) return;
  if (!after)
    site_before(f, b, s, c);
  else if (s)
    site_after(f, b, s, fs, c, call);
  else
    add(&b->fds_lost, 1);
}

__attribute__((visibility("hidden"))) void probe_site(struct site *f) {
  struct books *b = (struct books *)load(&near.state.books);
  if (!b) return;
  u64 fs = thread_pointer(), began = 0, sp = (u64)(f + 1);
  struct slot *s = slot_of(fs);
  if (!s) {
    if (lease_over(rdtsc())) return;
  } else if (s->slow++ % TIMED == 0) {
    began = rdtsc();
    if (lease_over(began)) return;
  }
  bool mine = s && (!(load(&s->owner) & 1) || abandoned(s, fs, sp));
  if (mine) {
    s->walking = 0;
    set_busy(s, fs, sp);
  }
  at_site(f, b, s, fs);
  if (mine) clear_busy(s, fs, sp, 0);
  if (began) timed(s, rdtsc() - began);
}
