/* The books: held blocks by address, stacks by hash. Lock-free; every loop is
 * bounded; what finds no room is counted and left out. */
#include "probe.h"

/* Each address may stand in one of two buckets, which fills the table to
 * about 85 % before the first one finds no room. */
static struct bucket *bucket_of(struct books *b, u64 key, int which) {
  u64 h = key * (which ? 0xd6e8feb86659fd93ull : 0x9e3779b97f4a7c15ull);
  return (struct bucket *)b->buckets + (h >> 36 & b->bucket_mask);
}

static u32 check(u64 key, const struct record *r) {
  u64 h = (key ^ r->size_flags) * 0x9e3779b97f4a7c15ull;
  h ^= ((u64)r->time << 32 | r->stack) * 0xd6e8feb86659fd93ull;
  return (u32)(h >> 32);
}

static void copy(struct record *to, const struct record *from) {
  store(&to->size_flags, load(&from->size_flags));
  store(&to->stack, load(&from->stack));
  store(&to->time, load(&from->time));
  store(&to->sum, load(&from->sum));
}

/* Takes a record out for the caller alone, who puts another key in its place:
 * a program that frees a block twice must not make two of us take it. */
static bool hold(u64 *at, u64 key) {
  return __atomic_compare_exchange_n(at, &(u64){key}, key | 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void fill(struct bucket *k, int i, u64 key, const struct record *r) {
  copy(&k->rec[i], r);
  store(&k->rec[i].sum, check(key, r));
  __atomic_store_n(&k->key[i], key, __ATOMIC_RELEASE);
}

bool live_insert(struct books *b, u64 key, const struct record *r, struct record *old) {
  struct bucket *k[2];
  int space[2] = {0, 0};
  old->size_flags = 0;
  for (int w = 0; w < 2; w++) {
    k[w] = bucket_of(b, key, w);
    for (int i = 0; i < WAYS; i++) {
      u64 have = load(&k[w]->key[i]);
      space[w] += have == 0;
      if (have == key && hold(&k[w]->key[i], key)) {
        copy(old, &k[w]->rec[i]);
        fill(k[w], i, key, r);
        return true;
      }
    }
  }
  int first = space[1] > space[0];
  for (int w = 0; w < 2; w++) {
    struct bucket *in = k[w ^ first];
    for (int i = 0; i < WAYS; i++) {
      if (load(&in->key[i]) == 0 &&
          __atomic_compare_exchange_n(&in->key[i], &(u64){0}, key | 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        fill(in, i, key, r);
        return true;
      }
    }
  }
  return false;
}

bool live_take(struct books *b, u64 key, struct record *r) {
  for (int w = 0; w < 2; w++) {
    struct bucket *k = bucket_of(b, key, w);
    for (int i = 0; i < WAYS; i++) {
      if (load(&k->key[i]) != key || !hold(&k->key[i], key)) continue;
      copy(r, &k->rec[i]);
      __atomic_store_n(&k->key[i], 0, __ATOMIC_RELEASE);
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

u32 stack_intern(struct books *b, const u64 *frames, u32 n, u64 hash, u8 flags) {
  struct stack *all = (struct stack *)b->stacks;
  hash = (hash ^ flags) * 0x9e3779b97f4a7c15ull;
  hash ^= hash >> 32;
  if (hash == 0) hash = 1;
  for (u64 probe = 0; probe < 16; probe++) {
    u64 i = (hash + probe) & b->stack_mask;
    if (i < 2) continue;
    struct stack *s = &all[i];
    u64 have = __atomic_load_n(&s->hash, __ATOMIC_ACQUIRE);
    if (have == hash) return (u32)i;
    if (have != 0) continue;
    if (!__atomic_compare_exchange_n(&s->hash, &(u64){0}, hash, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      if (load(&s->hash) == hash) return (u32)i;
      continue;
    }
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
    __atomic_store_n(&s->flags, flags | STACK_READY, __ATOMIC_RELEASE);
    return (u32)i;
  }
  add(&b->lost_stacks, 1);
  return flags & STACK_EXACT ? 1 : 0;
}

static u64 weighted(u64 size, u64 weight) { return (u64)((u128)size * weight / WEIGHT_ONE); }

void stack_acquired(struct books *b, u32 stack, u64 size, u64 weight, u32 time) {
  struct stack *s = (struct stack *)b->stacks + (stack & b->stack_mask);
  add(&s->acq_n, weight ? weight : 1);
  add(&s->acq_bytes, weight ? weighted(size, weight) : size);
  if (weight) add(&s->events, 1);
  if (load(&s->first) == 0) store(&s->first, time);
  store(&s->last, time);
}

void stack_released(struct books *b, u32 stack, u64 size, u64 weight) {
  struct stack *s = (struct stack *)b->stacks + (stack & b->stack_mask);
  add(&s->rel_n, weight ? weight : 1);
  add(&s->rel_bytes, weight ? weighted(size, weight) : size);
}
