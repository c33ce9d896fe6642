/* The books: held blocks by address, stacks by hash. Lock-free; every loop is
 * bounded; what finds no room is counted and left out. */
#include "probe.h"

/* A level is a table of its own, with twice as many buckets as the one before;
 * so a program with few blocks touches little memory, and nothing ever moves.
 * The blocks of one region of addresses are in one level, the one that took
 * blocks when the first of them came; only when a block finds no room there, it
 * and those to come go to the level that takes blocks now: one that is large and
 * half empty, or a new one. */
enum { PLACES = 1 + NEIGHBOURS };

FAST struct bucket *place(const struct books *b, u32 level, u64 key, u32 n) {
  u64 size = (u64)LEVEL0 << level;
  u64 h = n == 0 ? key * 0x9e3779b97f4a7c15ull : key * 0xd6e8feb86659fd93ull;
  u64 i = (h >> 36) + (n ? n - 1 : 0);
  return (struct bucket *)b->buckets + (size - LEVEL0) + (i & (size - 1));
}

/* Takes a record out for the caller alone, who puts another key in its place:
 * a program that frees a block twice must not make two of us take it. */
FAST bool hold(struct record *at, u64 have) {
  return (have & 1) == 0 &&
         __atomic_compare_exchange_n(&at->key, &have, have | 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

FAST void fill(struct record *at, const struct record *r) {
  store(&at->info, r->info);
  __atomic_store_n(&at->key, r->key, __ATOMIC_RELEASE);
}

/* The level of an address's region, plus 1; 0 when none is known. Regions may
 * share it: then it leads to the wrong level, and the others are looked at. */
FAST u8 *region_of(const struct books *b, u64 key) {
  u64 region = key >> REGION_SHIFT;
  return (u8 *)b->regions + ((region ^ region >> REGION_BITS) & ((1u << REGION_BITS) - 1));
}

FAST u32 allowed(const struct books *b, u32 level) { return level < b->level_max ? level : b->level_max; }

FAST u32 level_of(const struct books *b, u64 key) {
  u8 *region = region_of(b, key);
  u32 known = load(region);
  if (known == 0) store(region, (u8)(known = load(&b->current) + 1));
  return allowed(b, known - 1);
}

struct bucket *live_home(struct books *b, u64 key) {
  struct bucket *home = place(b, level_of(b, key), key & KEY_MASK, 0);
  __builtin_prefetch(home);
  return home;
}

/* Puts r into a bucket; false when there is no room. */
FAST bool put_at(struct bucket *k, const struct record *r, struct record *old) {
  u64 key = r->key & KEY_MASK;
  struct record *space = 0;
  for (u32 i = 0; i < WAYS; i++) {
    struct record *at = &k->rec[i];
    u64 have = load(&at->key);
    if (have == 0) {
      space = space ? space : at;
    } else if ((have & KEY_MASK) == key && hold(at, have)) {
      old->key = have;
      old->info = load(&at->info);
      fill(at, r);
      return true;
    }
  }
  for (; space && space < k->rec + WAYS; space++)
    if (load(&space->key) == 0 &&
        __atomic_compare_exchange_n(&space->key, &(u64){0}, r->key | 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
      fill(space, r);
      return true;
    }
  return false;
}

/* Puts r into one level, where the blocks of its region then go; false when
 * there is no room. */
SLOW bool insert(struct books *b, u32 level, const struct record *r, struct record *old) {
  u64 key = r->key & KEY_MASK;
  for (u32 n = 0; n < PLACES; n++)
    if (put_at(place(b, level, key, n), r, old)) {
      u8 *region = region_of(b, key);
      if (load(region) != level + 1) store(region, (u8)(level + 1));
      return true;
    }
  return false;
}

/* Whether about half of a level is free, judged by a few buckets of it. */
static bool half_free(const struct books *b, u32 level, u64 seed) {
  enum { LOOKS = 16 };
  u32 space = 0;
  for (u64 n = 0; n < LOOKS; n++) {
    const struct bucket *k = place(b, level, (seed + n) * 0xff51afd7ed558ccdull, 0);
    for (u32 i = 0; i < WAYS; i++) space += load(&k->rec[i].key) == 0;
  }
  return space >= LOOKS * WAYS / 2;
}

/* The level that blocks are put into now that one is full: one of the last
 * four, or a new one. Others may have chosen meanwhile. */
static u32 next_level(struct books *b, u32 full, u64 seed) {
  u32 last = allowed(b, load(&b->level)), to = last < b->level_max ? last + 1 : full;
  for (u32 back = 0; back < 4 && back <= last; back++) {
    if (last - back == full || !half_free(b, last - back, seed)) continue;
    to = last - back;
    break;
  }
  if (to == last + 1)
    __atomic_compare_exchange_n(&b->level, &(u32){last}, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  __atomic_compare_exchange_n(&b->current, &(u32){full}, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return allowed(b, load(&b->current));
}

SLOW bool insert_elsewhere(struct books *b, const struct record *r, struct record *old) {
  u64 key = r->key & KEY_MASK;
  u32 level = level_of(b, key), now = allowed(b, load(&b->current));
  if (insert(b, level, r, old) || (now != level && insert(b, now, r, old))) return true;
  if (insert(b, next_level(b, now, key), r, old)) return true;
  for (level = allowed(b, load(&b->level)) + 1; level-- > 0;) /* wherever something was freed */
    if (insert(b, level, r, old)) return true;
  return false;
}

bool live_insert(struct books *b, struct bucket *home, const struct record *r, struct record *old) {
  old->key = 0;
  if (load(&b->distrust)) live_take(b, home, r->key & KEY_MASK, old);
  return put_at(home, r, old) || insert_elsewhere(b, r, old);
}

FAST bool take_at(struct bucket *k, u64 key, struct record *r) {
  for (u32 i = 0; i < WAYS; i++) {
    struct record *at = &k->rec[i];
    u64 have = load(&at->key);
    if ((have & KEY_MASK) != key || !hold(at, have)) continue;
    r->key = have;
    r->info = load(&at->info);
    __atomic_store_n(&at->key, 0, __ATOMIC_RELEASE);
    return true;
  }
  return false;
}

SLOW bool take_elsewhere(struct books *b, u64 key, struct record *r) {
  u32 likely = level_of(b, key);
  for (u32 n = 1; n < PLACES; n++)
    if (take_at(place(b, likely, key, n), key, r)) return true;
  for (u32 level = allowed(b, load(&b->level)) + 1; level-- > 0;)
    for (u32 n = 0; n < PLACES && level != likely; n++)
      if (take_at(place(b, level, key, n), key, r)) return true;
  return false;
}

bool live_take(struct books *b, struct bucket *home, u64 key, struct record *r) {
  return take_at(home, key, r) || take_elsewhere(b, key, r);
}

/* A cell that reached 128 stays: whoever counts down must know that it was
 * counted up, and 128 hooks cannot be between the test and the addition. */
void filter_add(u8 *cell) {
  if (load(cell) < 128) add(cell, 1);
}

void filter_drop(u8 *cell) {
  u8 n = load(cell);
  if (n > 0 && n < 128) add(cell, (u8)-1);
}

/* A new entry, complete; 0 when there is no room for it. */
static u32 new_stack(struct books *b, const u64 *frames, u32 n, u8 flags, u16 shard, u64 size) {
  if (load(&b->stacks_used) >= b->stacks_max) return 0;
  u64 i = add(&b->stacks_used, 1);
  if (i >= b->stacks_max) return 0;
  struct stack *s = (struct stack *)b->stacks + i;
  u64 at = load(&b->frames_used);
  if (at + n <= b->frames_max) at = add(&b->frames_used, n);
  if (at + n <= b->frames_max) {
    u64 *to = (u64 *)b->frames + at;
    for (u32 j = 0; j < n; j++) store(&to[j], frames[j]);
    store(&s->frames, (u32)at);
    store(&s->n, (u8)n);
  } else {
    add(&b->lost_stacks, 1);
  }
  store(&s->shard, shard);
  store(&s->size, size);
  __atomic_store_n(&s->flags, flags | STACK_READY, __ATOMIC_RELEASE);
  return (u32)i;
}

#define STACK_INDEX ((1ull << STACK_BITS) - 1)

u32 stack_intern(struct books *b, const u64 *frames, u32 n, u64 hash, u8 flags, u16 shard, u64 size) {
  hash = (hash ^ flags ^ (u64)shard << 8) * 0x9e3779b97f4a7c15ull;
  hash ^= hash >> 32;
  if (hash >> STACK_BITS == 0) hash |= 1ull << 63;
  u32 mine = 0;
  for (u32 g = 0; g < 3; g++) {
    u64 which = g ? 1 : 0, group = g ? hash ^ (g - 1) : hash;
    u64 *at = (u64 *)b->index[which] + (group & b->index_mask[which]) * GROUP;
    for (u32 i = 0; i < GROUP; i++) {
      u64 have = __atomic_load_n(&at[i], __ATOMIC_ACQUIRE);
      if (have == 0) {
        if (mine == 0) mine = new_stack(b, frames, n, flags, shard, size);
        if (mine == 0) goto full;
        u64 entry = (hash & ~STACK_INDEX) | mine;
        if (__atomic_compare_exchange_n(&at[i], &have, entry, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return mine;
      }
      if ((have ^ hash) >> STACK_BITS == 0) return (u32)(have & STACK_INDEX);
    }
  }
full:
  add(&b->lost_stacks, 1);
  return flags & STACK_EXACT ? 1 : 0;
}

static u64 weighted(u64 size, u64 weight) { return (u64)((u128)size * weight / WEIGHT_ONE); }

static struct stack *entry(struct books *b, u32 stack) {
  return (struct stack *)b->stacks + (stack < b->stacks_max ? stack : 0);
}

/* One instruction: a signal handler of this thread may count too. */
static void bump(u64 *p, u64 v) { __asm__ volatile("addq %1, %0" : "+m"(*p) : "er"(v) : "cc"); }

void stack_acquired(struct books *b, u16 shard, u32 stack, u64 size, u64 weight) {
  struct stack *s = entry(b, stack);
  u64 n = weight ? weight : 1, bytes = weight ? weighted(size, weight) : size - s->size;
  if (shard != 0 && load(&s->shard) == shard) {
    bump(&s->acq_n, n);
    if (bytes) bump(&s->acq_bytes, bytes);
  } else {
    add(&s->acq_n, n);
    if (bytes) add(&s->acq_bytes, bytes);
  }
}

void stack_released(struct books *b, u16 shard, u32 stack, u64 size, u64 weight) {
  struct stack *s = entry(b, stack);
  u64 n = weight ? weight : 1, bytes = weight ? weighted(size, weight) : size - s->size;
  if (shard != 0 && load(&s->shard) == shard) {
    bump(&s->rel_n, n);
    if (bytes) bump(&s->rel_bytes, bytes);
  } else {
    add(&s->far_n, n);
    if (bytes) add(&s->far_bytes, bytes);
  }
}

static struct freed *freed_at(const struct books *b, u64 key) {
  return (struct freed *)b->freed + ((key * 0x9e3779b97f4a7c15ull) >> 40) % FREED;
}

static u64 freed_check(const struct freed *f) {
  return (f->key ^ (u64)f->acquired << 32 ^ f->released) * 0x9e3779b97f4a7c15ull ^ f->size;
}

void freed_note(struct books *b, u64 key, u32 acquired, u32 released, u64 size) {
  struct freed f = {.key = key, .acquired = acquired, .released = released, .size = size}, *to = freed_at(b, key);
  store(&to->key, f.key);
  store(&to->acquired, f.acquired);
  store(&to->released, f.released);
  store(&to->size, f.size);
  store(&to->check, freed_check(&f)); /* two writers at once: it does not match */
}

bool freed_look(struct books *b, u64 key, struct freed *out) {
  struct freed *from = freed_at(b, key);
  out->key = load(&from->key);
  out->acquired = load(&from->acquired);
  out->released = load(&from->released);
  out->size = load(&from->size);
  return out->key == key && load(&from->check) == freed_check(out);
}

u64 event_put(struct books *b, const struct event *e) {
  u64 n = add(&b->events_head, 1);
  struct event *to = (struct event *)b->events + n % EVENTS;
  store(&to->seq, 0);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  store(&to->kind, e->kind);
  store(&to->stack, e->stack);
  store(&to->at, e->at);
  store(&to->size, e->size);
  store(&to->acquired, e->acquired);
  store(&to->released, e->released);
  store(&to->thread, e->thread);
  store(&to->more, e->more);
  store(&to->time, e->time);
  __atomic_store_n(&to->seq, n + 1, __ATOMIC_RELEASE);
  return n + 1;
}
