/* The slow paths: an allocation that is sampled or aimed at, and every
 * operation on a block that may have a record.
 *
 * A hook never waits, never calls the system and never fails: when something
 * is missing, the original runs alone. In a forked child struct near reads as
 * zeros, even in the middle of a hook (a signal handler may fork); so each
 * pointer is loaded once, and zeros lead nowhere. */
#include "probe.h"

extern struct near near __attribute__((visibility("hidden")));

enum { WATCH_NOT = 0, WATCH_SAMPLE = 1, WATCH_EXACT = 2, WATCH_AROUND = 3 };

static inline u64 thread_pointer(void) {
  u64 fs;
  __asm__("mov %%fs:0, %0" : "=r"(fs));
  return fs;
}

static inline u64 stack_pointer(const struct frame *f) { return (u64)(f + 1); }

static u32 slot_number(const struct slot *s) { return (u32)(s - near.slot); }

/* This thread's slot; a new one when it has none yet; null when all places
 * that its hash allows are taken. */
static struct slot *slot_of(u64 fs) {
  u64 home = (fs * 0x9e3779b97f4a7c15ull) >> 52;
  for (u64 i = 0; i < 16; i++) {
    struct slot *s = &near.slot[(home ^ i) % SLOTS];
    if ((load(&s->owner) | 1) == (fs | 1)) return s;
  }
  for (u64 i = 0; i < 16; i++) {
    struct slot *s = &near.slot[(home ^ i) % SLOTS];
    if (load(&s->owner) != 0 ||
        !__atomic_compare_exchange_n(&s->owner, &(u64){0}, fs | 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
      continue;
    s->busy = 0;
    s->lo = s->hi = 0;
    s->notebook = 0;
    s->shard = s->sharded = s->walking = 0;
    s->input = 0;
    s->away = s->kept = 0;
    s->freed_key = 0;
    s->rng = (fs ^ near.state.seed) * 0x9e3779b97f4a7c15ull | 1;
    s->mean = load(&near.state.mean_now) % MEANS;
    s->counter = sample_interval(&s->rng, near.state.mean[s->mean]);
    store(&s->owner, fs);
    return s;
  }
  return 0;
}

static u64 stack_limit(const struct slot *s, u64 fs, u64 sp) {
  const struct state *st = &near.state;
  if (sp >= load(&st->main_lo) && sp < load(&st->main_hi)) return load(&st->main_hi);
  if (sp >= load(&s->lo) && sp < load(&s->hi)) return load(&s->hi);
  /* A thread that stanch has not seen yet: its stack ends at its thread
   * control block, and is at least this large. */
  if (sp < fs && fs - sp < load(&st->tcb_room)) return fs;
  return (sp | 4095) + 1;
}

/* Whether the hook that set busy is gone without leaving: siglongjmp took its
 * frame away. Only frames of one stack can be compared. */
static bool abandoned(const struct slot *s, u64 fs, u64 sp) {
  u64 busy = load(&s->busy);
  return busy == 0 || (sp >= busy && sp < stack_limit(s, fs, busy));
}

static void set_busy(struct slot *s, u64 fs, u64 sp) {
  store(&s->busy, sp);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  store(&s->owner, fs | 1);
}

/* was is the hook that this one interrupted, or 0. */
static void clear_busy(struct slot *s, u64 fs, u64 sp, u64 was) {
  if (load(&s->busy) != sp || load(&s->owner) != (fs | 1)) return;
  store(&s->busy, was);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  if (was == 0) store(&s->owner, fs);
}

static bool lease_over(u64 now) {
  struct state *st = &near.state;
  if (now <= load(&st->lease[0]) || now <= load(&st->lease[1])) return false;
  store(&st->on, 0);
  store(&st->lapsed, 1);
  return true;
}

static bool aimed(u64 size) {
  const struct state *st = &near.state;
  u64 class = (size + 7) >> 4;
  if (class < AIM_CLASSES && near.aim[class] == 0) return false;
  u32 n = load(&st->aims);
  for (u32 i = 0; i < n && i < AIMS; i++)
    if (size >= st->aim[i].min && size <= st->aim[i].max) return true;
  return false;
}

static u64 weight_of(const struct record *r) {
  u32 mean = record_mean(r);
  if (mean == REC_EXACT) return 0; /* counted plainly */
  return sample_weight(record_size(r), near.state.mean[mean % MEANS]);
}

static void released(struct books *b, const struct slot *s, const struct record *r) {
  stack_released(b, s ? s->shard : 0, record_stack(r), record_size(r), weight_of(r));
}

static u8 *cell_of(u64 key) { return &near.filter[filter_index(key, near.state.filter_mask) % FILTER_MAX]; }

static bool take(struct books *b, struct bucket *home, u64 key, struct record *r) {
  if (key == 0 || (key & ~KEY_MASK) || (key & 1)) return false;
  if (load(&near.state.exact)) return live_take(b, home, key, r);
  u8 *cell = cell_of(key);
  if (load(cell) == 0 || !live_take(b, home, key, r)) return false;
  filter_drop(cell);
  return true;
}

static bool put(struct books *b, struct bucket *home, const struct slot *s, const struct record *r) {
  struct record old;
  u64 key = r->key & KEY_MASK;
  bool pool = key & KEY_POOL, exact = load(&near.state.exact) || pool; /* the filter is malloc's */
  u8 *cell = cell_of(key);
  if (!exact) filter_add(cell); /* before the record: a free in between must see it */
  bool done = live_insert(b, home, r, &old);
  if (!done) {
    if (!exact) filter_drop(cell);
    add(&b->lost_live, 1);
  }
  if (old.key != 0) {
    if (!exact) filter_drop(cell);
    if (!pool) add(&b->stale, 1); /* one function of a pool may call another */
    released(b, s, &old);
  }
  return done;
}

/* Whether a hook of this thread is at work whose original made this call: the
 * blocks that pass between the two are the hook's matter. What a signal
 * handler does meanwhile is not: between the two lies the kernel's frame, with
 * the registers (at least 512 bytes by themselves), or they are on different
 * stacks. */
static bool inner(const struct slot *s, u64 sp) {
  u64 busy = load(&s->busy);
  return (load(&s->owner) & 1) && sp < busy && busy - sp < 1000;
}

/* The first threads get stacks of their own. */
static u16 shard_of(struct books *b, struct slot *s) {
  if (s->sharded) return s->shard;
  s->sharded = 1;
  if (load(&b->shards_used) < SHARDS) {
    u32 n = add(&b->shards_used, 1) + 1;
    if (n <= SHARDS) s->shard = (u16)n;
  }
  return s->shard;
}

/* Who called: the place of the innermost return address, and the rbp
 * that its caller has. */
struct caller {
  u64 sp, bp;
  u64 size; /* of the block at hand */
};

/* The stack table's entry for the caller. */
static u32 stack_of(const struct caller *o, struct books *b, struct slot *s, u64 fs, u8 flags) {
  u64 sp = o->sp, limit = stack_limit(s, fs, sp), hash;
  struct notebook *book = notebook_of(b, &s->notebook);
  struct note *note = book ? note_find(b, book, sp, o->bp, limit) : 0;
  if (note && (note->flags & ~STACK_CUT) == flags) {
    if (note->flags & STACK_CUT) add(&b->cut, 1);
    return note->stack;
  }
  u64 *frames = (u64 *)b->scratch + slot_number(s) % SLOTS * MAX_FRAMES;
  bool cut;
  u32 n = stack_walk(b, sp, o->bp, limit, frames, &hash, &cut, book, &note);
  if (cut) {
    add(&b->cut, 1);
    flags |= STACK_CUT;
  }
  bool exact = flags & STACK_EXACT;
  u32 stack = stack_intern(b, frames, n, hash, flags, exact ? shard_of(b, s) : 0, exact ? o->size : 0);
  if (note) {
    note->flags = flags;
    note->stack = stack;
    if (stack < 2) note->sp = 0; /* no room; there may be another time */
  }
  return stack;
}

/* The same, unless a signal handler has interrupted us there: unknown. */
static u32 stack_from(const struct caller *o, struct books *b, struct slot *s, u64 fs, u8 flags) {
  if (s->walking) return flags & STACK_EXACT ? 1 : 0;
  s->walking = 1;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  u32 stack = stack_of(o, b, s, fs, flags);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  s->walking = 0;
  return stack;
}

static u32 stack_once(const struct frame *f, struct books *b, struct slot *s, u64 fs, u8 flags) {
  return stack_from(&(struct caller){.sp = stack_pointer(f), .bp = f->rbp, .size = f->size}, b, s, fs, flags);
}

static bool within(u64 a, const u64 *lo, const u64 *hi) { return a >= load(lo) && a < load(hi); }

/* Whether this release is part of one that was just noted: an operator delete
 * that goes on to free. */
static bool continued(const struct frame *f, const struct slot *s) {
  u64 sp = stack_pointer(f);
  return f->rdi == s->freed_key && sp == s->freed_sp && (f->info & 0xff) != s->freed_hook;
}

/* The block at rdi is given back and has no record. Nothing is said when
 * blocks may have been missed, nor of what the allocator gives back itself:
 * glibc frees a thread's cache, which no function that is hooked has made. */
static void unknown(const struct frame *f, struct books *b, struct slot *s, u64 fs) {
  const struct state *st = &near.state;
  if (!load(&st->from_start) || !s || f->rdi == 0 || load(&b->lost_live) || load(&st->no_slot) || continued(f, s))
    return;
  if (within(load((const u64 *)stack_pointer(f)), &st->alloc_lo, &st->alloc_hi)) return;
  struct freed was;
  struct event e = {.kind = EVENT_INVALID, .at = f->rdi, .thread = fs, .time = load(&st->now)};
  if (freed_look(b, f->rdi, &was)) {
    e.kind = EVENT_DOUBLE;
    e.size = was.size;
    e.acquired = was.acquired;
    e.released = was.released;
  }
  e.stack = stack_once(f, b, s, fs, STACK_EXACT);
  event_put(b, &e);
}

static void enter_free(struct frame *f, struct books *b, struct slot *s, u64 fs) {
  /* The allocator is about to read what lies before the block: let that come
   * from memory at the same time as ours. */
  struct bucket *home = live_home(b, f->rdi);
  __builtin_prefetch((const void *)(f->rdi - 16));
  u64 sp = stack_pointer(f);
  bool mine = s && (!(load(&s->owner) & 1) || abandoned(s, fs, sp));
  bool part = s && inner(s, sp);
  if (mine) {
    s->walking = 0;
    set_busy(s, fs, sp);
  }
  struct record r;
  if (take(b, home, f->rdi, &r)) {
    released(b, s, &r);
    if (s) {
      s->releases++;
      if (load(&near.state.from_start)) {
        s->freed_key = f->rdi;
        s->freed_sp = sp;
        s->freed_hook = f->info & 0xff;
        f->size = 0;
        freed_note(b, f->rdi, record_stack(&r), stack_once(f, b, s, fs, STACK_EXACT), record_size(&r));
      }
    }
  } else if (s && !part) {
    f->size = 0;
    unknown(f, b, s, fs);
  }
  if (mine) clear_busy(s, fs, sp, 0);
}

static bool resizes(u32 class) { return class == CLASS_REALLOC || class == CLASS_REALLOCN; }

static u64 requested(const struct frame *f, u32 class) {
  u64 n;
  switch (class) {
  case CLASS_CALLOC: return __builtin_mul_overflow(f->rdi, f->rsi, &n) ? ~0ull : n;
  case CLASS_REALLOCN: return __builtin_mul_overflow(f->rsi, f->rdx, &n) ? ~0ull : n;
  case CLASS_ALIGN:
  case CLASS_REALLOC: return f->rsi;
  case CLASS_POSIX: return f->rdx;
  }
  return f->rdi;
}

/* Whether this request is recorded, and why. Counts its bytes. */
static u32 decide(struct frame *f, struct slot *s) {
  if (aimed(f->size)) return WATCH_EXACT;
  if (!(f->info & INFO_COUNTED)) s->counter -= (i64)f->size + 1;
  if (s->counter >= 0) return WATCH_NOT;
  f->mean = s->mean % MEANS;
  s->mean = load(&near.state.mean_now) % MEANS;
  if (s->rng == 0) s->rng = 1;
  s->counter = sample_interval(&s->rng, near.state.mean[s->mean]);
  return near.state.mean[f->mean] ? WATCH_SAMPLE : WATCH_NOT;
}

/* Remembers what this thread read from before it asked for so much. The call and
 * its depth stand for the stack: the same again is not walked again. */
static void note_input(const struct frame *f, struct books *b, struct slot *s, u64 fs) {
  u64 sp = stack_pointer(f), from = load((const u64 *)sp) ^ sp << 20;
  u64 hash = (from ^ f->size) * 0x9e3779b97f4a7c15ull;
  struct input *i = (struct input *)b->inputs + (hash >> 32) % INPUTS;
  u64 turn = load(&i->turn);
  if ((turn & 1) || !__atomic_compare_exchange_n(&i->turn, &turn, turn + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
    return;
  if (turn == 0 || load(&i->size) != f->size || load(&i->from) != from) {
    store(&i->size, f->size);
    store(&i->from, from);
    store(&i->stack, stack_once(f, b, s, fs, STACK_EXACT));
  }
  store(&i->fd, s->input - 1);
  store(&i->time, load(&near.state.now));
  __atomic_store_n(&i->turn, turn + 2, __ATOMIC_RELEASE);
}

static u32 enter_alloc(struct frame *f, struct books *b, struct slot *s, u64 fs) {
  u32 class = f->info >> INFO_CLASS_SHIFT & 0xff;
  u64 sp = stack_pointer(f);
  f->size = requested(f, class);
  f->old_key = 0;
  f->mean = 0;
  if (inner(s, sp)) return WATCH_NOT;
  f->was_busy = (load(&s->owner) & 1) && !abandoned(s, fs, sp) ? load(&s->busy) : 0;
  if (f->was_busy == 0) s->walking = 0;
  if (f->size >= INPUT_SIZE && s->input != 0 && near.state.inputs) {
    set_busy(s, fs, sp);
    note_input(f, b, s, fs);
    clear_busy(s, fs, sp, f->was_busy);
  }
  if (f->size > SIZE_MAX_SANE) return WATCH_NOT;
  s->calls++;
  f->watch = decide(f, s);
  if (f->watch == WATCH_SAMPLE && lease_over(rdtsc())) return WATCH_NOT;
  if (resizes(class)) {
    /* The old address may be given to another thread the moment the original
     * frees it, so its end is noted first and taken back if that fails. */
    struct record r;
    if (take(b, live_home(b, f->rdi), f->rdi, &r)) {
      f->old_key = r.key;
      f->old_info = r.info;
    } else {
      unknown(f, b, s, fs);
    }
  }
  if (f->watch == WATCH_NOT && (f->old_key != 0 || (f->info & INFO_FRAMED))) f->watch = WATCH_AROUND;
  if (f->watch == WATCH_NOT) return WATCH_NOT;
  f->slot = (u64)s;
  f->gen = load(&near.state.gen);
  set_busy(s, fs, sp);
  return f->watch;
}

static u64 tell(const struct frame *f, struct slot *s, struct event e) {
  struct books *b = (struct books *)load(&near.state.books);
  u64 fs = thread_pointer(), sp = stack_pointer(f), seq = 0;
  if (!b) return 0;
  bool mine = !(load(&s->owner) & 1) || abandoned(s, fs, sp);
  if (mine) {
    s->walking = 0;
    set_busy(s, fs, sp);
  }
  e.thread = fs;
  e.time = load(&near.state.now);
  if (e.kind == EVENT_MAP || e.kind == EVENT_SBRK || e.kind == EVENT_BRK || e.kind == EVENT_THREAD)
    e.stack = stack_once(f, b, s, fs, STACK_EXACT);
  seq = event_put(b, &e);
  if (mine) clear_busy(s, fs, sp, 0);
  return seq;
}

#define MREMAP_DONTUNMAP 4

/* A call that maps memory or makes threads, not for libc or the allocator
 * itself. What is given back is told before it happens: the next moment it may
 * be another thread's. */
static u32 enter_other(struct frame *f, struct slot *s) {
  const struct state *st = &near.state;
  u64 sp = stack_pointer(f), from = load((const u64 *)sp);
  if (inner(s, sp) || within(from, &st->alloc_lo, &st->alloc_hi) || within(from, &st->libc_lo, &st->libc_hi))
    return WATCH_NOT;
  f->slot = (u64)s;
  f->gen = load(&st->gen);
  f->size = 0;
  f->old_key = 0;
  switch (f->info >> INFO_CLASS_SHIFT & 0xff) {
  case CLASS_MUNMAP: f->old_key = tell(f, s, (struct event){.kind = EVENT_UNMAP, .at = f->rdi, .size = f->rsi}); break;
  case CLASS_MREMAP:
    if (f->rsi != 0 && !(f->rcx & MREMAP_DONTUNMAP))
      f->old_key = tell(f, s, (struct event){.kind = EVENT_REMAP, .at = f->rdi, .size = f->rsi});
    break;
  case CLASS_THREAD: f->old_key = tell(f, s, (struct event){.kind = EVENT_BEGIN}); break;
  case CLASS_JOIN: tell(f, s, (struct event){.kind = EVENT_JOIN, .at = f->rdi}); return WATCH_NOT;
  }
  return WATCH_AROUND;
}

static void leave_other(struct frame *f, u32 class) {
  struct slot *s = (struct slot *)f->slot;
  struct event e = {.kind = 0, .more = f->old_key};
  bool failed = f->result == ~0ull;
  switch (class) {
  case CLASS_MMAP:
    if (failed) return;
    e = (struct event){.kind = EVENT_MAP, .at = f->result, .size = f->rsi};
    break;
  case CLASS_MUNMAP:
    if ((u32)f->result == 0) return;
    e.kind = EVENT_KEPT;
    break;
  case CLASS_MREMAP:
    if (f->old_key == 0 && failed) return;
    e.kind = f->old_key ? EVENT_MOVED : EVENT_MAP;
    e.at = failed ? 0 : f->result;
    e.size = f->rdx;
    break;
  case CLASS_BRK:
    if ((u32)f->result != 0) return;
    e.kind = EVENT_BRK;
    e.at = f->rdi;
    break;
  case CLASS_SBRK:
    if (failed || f->rdi == 0) return;
    e.kind = EVENT_SBRK;
    e.at = f->result;
    e.size = f->rdi;
    break;
  case CLASS_THREAD: {
    if ((u32)f->result != 0) return;
    /* struct pthread_attr of glibc: flags at 8, ATTR_FLAG_DETACHSTATE is 1. */
    e.kind = EVENT_THREAD;
    e.at = load((const u64 *)f->rdi);
    e.size = f->rsi ? load((const u32 *)(f->rsi + 8)) & 1 : 0;
    break;
  }
  default: return;
  }
  tell(f, s, e);
}

static void record(const struct frame *f, struct books *b, struct slot *s, u64 fs, u64 key, u64 pool, u32 time) {
  bool exact = f->watch == WATCH_EXACT;
  if ((key & ~KEY_ADDRESS) || (key & 1)) { /* no allocator gives odd addresses; keys use the bit */
    add(&b->lost_live, 1);
    return;
  }
  struct bucket *home = live_home(b, key | pool);
  u32 stack = stack_once(f, b, s, fs, (exact ? STACK_EXACT : 0) | (pool ? STACK_POOL : 0));
  struct record r = record_of(key | pool, f->size, stack, time, exact ? REC_EXACT : f->mean);
  if (put(b, home, s, &r)) stack_acquired(b, s->shard, stack, f->size, weight_of(&r));
}

static u64 argument(const struct frame *f, u32 n) {
  switch (n) {
  case 1: return f->rdi;
  case 2: return f->rsi;
  case 3: return f->rdx;
  case 4: return f->rcx;
  case 5: return f->r8;
  case 6: return f->r9;
  }
  return 1; /* a count that there is not */
}

/* A function of the program's own allocator. It is not known what it calls, so
 * the slot is not busy meanwhile: malloc inside of it is seen as ever. */
static u32 enter_pool(struct frame *f, struct books *b, struct slot *s, u64 fs) {
  const struct pool *p = &near.state.pool[f->info >> INFO_POOL_SHIFT & (POOLS - 1)];
  u64 sp = stack_pointer(f);
  bool mine = !(load(&s->owner) & 1) || abandoned(s, fs, sp);
  f->slot = (u64)s;
  f->gen = load(&near.state.gen);
  f->old_key = 0;
  f->mean = 0;
  f->watch = WATCH_EXACT;
  f->size = p->size ? argument(f, p->size) : 0;
  if (__builtin_mul_overflow(f->size, argument(f, p->count), &f->size) || f->size > SIZE_MAX_SANE) f->size = 0;
  if (mine) {
    s->walking = 0;
    set_busy(s, fs, sp);
  }
  struct record r;
  u64 block = p->ptr ? argument(f, p->ptr) : 0;
  if (p->free && block != 0 && (block & ~KEY_ADDRESS) == 0 && !(block & 1) &&
      live_take(b, live_home(b, block | KEY_POOL), block | KEY_POOL, &r)) {
    if (p->alloc) {
      f->old_key = r.key;
      f->old_info = r.info;
    } else {
      released(b, s, &r);
    }
  }
  u64 limit = stack_limit(s, fs, sp);
  if ((sp & 4095) <= 4096 - 72 || (limit > sp && limit - sp >= 72)) f->info |= INFO_WORDS;
  if (mine) clear_busy(s, fs, sp, 0);
  return p->alloc ? WATCH_EXACT : WATCH_NOT;
}

static void leave_pool(struct frame *f, struct books *b) {
  struct slot *s = (struct slot *)f->slot;
  u64 fs = thread_pointer(), sp = stack_pointer(f);
  bool mine = !(load(&s->owner) & 1) || abandoned(s, fs, sp);
  if (mine) {
    s->walking = 0;
    set_busy(s, fs, sp);
  }
  if (f->old_key != 0) {
    struct record old = {.key = f->old_key, .info = f->old_info};
    if (f->result != 0 || !put(b, live_home(b, old.key), s, &old)) released(b, s, &old);
  }
  if (f->result != 0) record(f, b, s, fs, f->result, KEY_POOL, load(&near.state.now));
  if (mine) clear_busy(s, fs, sp, 0);
}

/* One call in TIMED reads the clock: to see whether stanch still lives, and how
 * long hooks take. */
#define TIMED 64

/* A hook that took longer than this many ticks (about 40 us) was not running
 * all the time: another thread had the processor. It tells nothing of cost. */
#define INTERRUPTED (1u << 17)

static void timed(struct slot *s, u64 cycles) {
  if (cycles >= INTERRUPTED) return;
  s->timed++;
  s->cycles += cycles;
}

__attribute__((visibility("hidden"))) u32 probe_enter(struct frame *f) {
  struct books *b = (struct books *)load(&near.state.books);
  if (!b) return WATCH_NOT;
  u64 fs = thread_pointer(), began = 0;
  struct slot *s = slot_of(fs);
  f->cycles = 0;
  if (!s) {
    if (lease_over(rdtsc())) return WATCH_NOT;
    add(&near.state.no_slot, 1);
  } else if (s->slow++ % TIMED == 0) {
    began = rdtsc();
    if (lease_over(began)) return WATCH_NOT;
  }
  u32 watch = WATCH_NOT;
  u32 class = f->info >> INFO_CLASS_SHIFT & 0xff;
  if (class == CLASS_FREE)
    enter_free(f, b, s, fs);
  else if (s && class == CLASS_POOL)
    watch = enter_pool(f, b, s, fs);
  else if (s && class >= CLASS_MMAP)
    watch = enter_other(f, s);
  else if (s)
    watch = enter_alloc(f, b, s, fs);
  if (began == 0) return watch;
  f->cycles = rdtsc() - began + 1;
  if (watch == WATCH_NOT) timed(s, f->cycles);
  return watch;
}

/* The result of the original: the new block, or 0. */
static u64 obtained(const struct frame *f, u32 class) {
  if (class != CLASS_POSIX) return f->result;
  return (u32)f->result == 0 ? load((u64 *)f->rdi) : 0;
}

__attribute__((visibility("hidden"))) void probe_leave(struct frame *f) {
  u64 began = f->cycles != 0 ? rdtsc() : 0;
  u32 class = f->info >> INFO_CLASS_SHIFT & 0xff;
  struct books *b = (struct books *)load(&near.state.books);
  if (!b || load(&near.state.gen) != f->gen) return;
  struct slot *s = (struct slot *)f->slot;
  if (class >= CLASS_MMAP) {
    if (class == CLASS_POOL)
      leave_pool(f, b);
    else
      leave_other(f, class);
    if (f->cycles != 0) timed(s, f->cycles + (rdtsc() - began));
    return;
  }
  u64 fs = thread_pointer();
  u64 key = obtained(f, class);
  if (f->old_key != 0) {
    struct record old = {.key = f->old_key, .info = f->old_info};
    if (key != 0 || f->size == 0) {
      released(b, s, &old);
      s->releases++;
      if (load(&near.state.from_start) && (key & KEY_ADDRESS) != (old.key & KEY_ADDRESS))
        freed_note(b, old.key & KEY_MASK, record_stack(&old), stack_once(f, b, s, fs, STACK_EXACT), record_size(&old));
    } else if (!put(b, live_home(b, old.key), s, &old)) {
      released(b, s, &old);
    }
  }
  if (key != 0 && f->watch != WATCH_AROUND) record(f, b, s, fs, key, 0, load(&near.state.now));
  if (f->cycles != 0) timed(s, f->cycles + (rdtsc() - began));
  clear_busy(s, fs, stack_pointer(f), f->was_busy);
}
