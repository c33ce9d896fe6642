/* The books: held blocks by address, stacks by hash. Lock-free; every loop is
 * bounded; what finds no room is counted and left out. */
#include "probe.h"

/* A level is a table of its own. When a block finds no room in the last one,
 * the next begins, with twice as many buckets; so a program with few blocks
 * touches little memory, and nothing ever moves. A bucket that is full is
 * rare as long as the level is: the second place and its neighbours serve
 * until about two thirds of the records are taken. */
enum { PLACES = 1 + NEIGHBOURS };

static struct bucket *place(const struct books *b, u32 level, u64 key, u32 n) {
  u64 size = (u64)LEVEL0 << level;
  u64 h = n == 0 ? key * 0x9e3779b97f4a7c15ull : key * 0xd6e8feb86659fd93ull;
  u64 i = (h >> 36) + (n ? n - 1 : 0);
  return (struct bucket *)b->buckets + (size - LEVEL0) + (i & (size - 1));
}

static u32 last_level(const struct books *b) {
  u32 level = load(&b->level);
  return level < b->level_max ? level : b->level_max;
}

/* Takes a record out for the caller alone, who puts another key in its place:
 * a program that frees a block twice must not make two of us take it. */
static bool hold(struct record *at, u64 have) {
  return (have & 1) == 0 &&
         __atomic_compare_exchange_n(&at->key, &have, have | 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void fill(struct record *at, const struct record *r) {
  store(&at->info, r->info);
  __atomic_store_n(&at->key, r->key, __ATOMIC_RELEASE);
}

/* Puts r into one level; false when there is no room. */
static bool insert(struct books *b, u32 level, const struct record *r, struct record *old) {
  u64 key = r->key & KEY_MASK;
  for (u32 n = 0; n < PLACES; n++) {
    struct bucket *k = place(b, level, key, n);
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
  }
  return false;
}

bool live_insert(struct books *b, const struct record *r, struct record *old) {
  old->key = 0;
  if (load(&b->distrust)) live_take(b, r->key & KEY_MASK, old);
  u32 level = last_level(b);
  for (;; level++) {
    if (insert(b, level, r, old)) return true;
    if (level >= b->level_max) break;
    __atomic_compare_exchange_n(&b->level, &(u32){level}, level + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  }
  while (level-- > 0) /* what was freed in the levels before */
    if (insert(b, level, r, old)) return true;
  return false;
}

bool live_take(struct books *b, u64 key, struct record *r) {
  for (u32 level = last_level(b) + 1; level-- > 0;)
    for (u32 n = 0; n < PLACES; n++) {
      struct bucket *k = place(b, level, key, n);
      for (u32 i = 0; i < WAYS; i++) {
        struct record *at = &k->rec[i];
        u64 have = load(&at->key);
        if ((have & KEY_MASK) != key || !hold(at, have)) continue;
        r->key = have;
        r->info = load(&at->info);
        __atomic_store_n(&at->key, 0, __ATOMIC_RELEASE);
        return true;
      }
    }
  return false;
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
