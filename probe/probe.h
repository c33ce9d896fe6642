/* What the parts of the probe say to each other. */
#ifndef STANCH_PROBE_H
#define STANCH_PROBE_H

#include <stdbool.h>

#include "wire.h"

#pragma GCC visibility push(hidden)

/* For what each hook does, and for what one in a thousand does. */
#define FAST static inline __attribute__((always_inline))
#define SLOW static __attribute__((noinline, cold))

#define load(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define add(p, v) __atomic_fetch_add(p, v, __ATOMIC_RELAXED)

typedef unsigned __int128 u128;
static inline u64 mulhi(u64 a, u64 b) { return (u64)(((u128)a * b) >> 64); }

/* (hi * 2^64 + lo) / d; hi must be less than d. */
static inline u64 divide(u64 hi, u64 lo, u64 d) {
  u64 q, r;
  __asm__("divq %4" : "=a"(q), "=d"(r) : "0"(lo), "1"(hi), "r"(d) : "cc");
  return q;
}

static inline u64 rdtsc(void) {
  u32 lo, hi;
  __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
  return (u64)hi << 32 | lo;
}

/* Bytes until the next sample of a Poisson process with this mean: an
 * exponentially distributed number. rng is any number but 0 and is moved on.
 * mean 0 means never. */
i64 sample_interval(u64 *rng, u64 mean);

/* How many blocks of this size one sampled block stands for, in 1/WEIGHT_ONE:
 * 1 / (1 - exp(-(size + 1) / mean)). mean is below 2^36. */
u64 sample_weight(u64 size, u64 mean);

/* Takes the stack whose innermost return address is at sp, with the caller's
 * rbp, into out; reads nothing below sp and nothing at or above limit. Gives
 * the number of frames, their hash, and whether the outermost are missing.
 * book, when not null, takes down what was read: in *note, whose stack and flags
 * are the caller's to fill in, or null when it was too much. */
u32 stack_walk(struct books *b, u64 sp, u64 bp, u64 limit, u64 *out, u64 *hash, bool *cut, struct notebook *book,
               struct note **note);

/* This thread's notebook, whose number is 0 at first; null when all are taken. */
struct notebook *notebook_of(struct books *b, u32 *number);

/* The walk with these arguments, if it would find again what is noted; else null. */
struct note *note_find(const struct books *b, struct notebook *book, u64 sp, u64 bp, u64 limit);

/* The entry of the stack table for these frames; 0 or 1 (exact) when it is
 * full. size is that of the block at hand. */
u32 stack_intern(struct books *b, const u64 *frames, u32 n, u64 hash, u8 flags, u16 shard, u64 size);

/* Count a block; weight 0 for an exact one. shard is this thread's. */
void stack_acquired(struct books *b, u16 shard, u32 stack, u64 size, u64 weight);
void stack_released(struct books *b, u16 shard, u32 stack, u64 size, u64 weight);

/* The live table. insert returns false when there is no room; what it
 * replaces (a block whose release nobody saw) is in *old, its key 0 when there
 * was none. take removes. Keys are those under KEY_MASK. home, the
 * first place of a key, is where both begin; it is being brought from memory. */
struct bucket *live_home(struct books *b, u64 key);
bool live_insert(struct books *b, struct bucket *home, const struct record *r, struct record *old);
bool live_take(struct books *b, struct bucket *home, u64 key, struct record *r);

#define SIZE_MAX_SANE (1ull << 46) /* more than an address space: the original will refuse it */

static inline struct record record_of(u64 key, u64 size, u32 stack, u32 time, u32 mean) {
  u64 coded = size >> REC_SIZE_BITS ? (size + 4095) >> 12 | 1ull << REC_SIZE_BITS : size;
  return (struct record){
      .key = key | (u64)time << KEY_TIME_SHIFT,
      .info = stack | coded << REC_SIZE_SHIFT | (u64)(time >> 16 & 15) << REC_TIME_SHIFT | (u64)mean << REC_MEAN_SHIFT,
  };
}
static inline u32 record_stack(const struct record *r) { return (u32)r->info & ((1u << STACK_BITS) - 1); }
static inline u32 record_mean(const struct record *r) { return (u32)(r->info >> REC_MEAN_SHIFT); }
static inline u64 record_size(const struct record *r) {
  u64 n = r->info >> REC_SIZE_SHIFT & ((1ull << REC_SIZE_BITS) - 1);
  return r->info >> (REC_SIZE_SHIFT + REC_SIZE_BITS) & 1 ? n << 12 : n;
}

/* Blocks that were given back. lookup is false when it is not remembered. */
void freed_note(struct books *b, u64 key, u32 acquired, u32 released, u64 size);
bool freed_look(struct books *b, u64 key, struct freed *out);

/* Tells stanch; gives the number of the event plus one, its seq. */
u64 event_put(struct books *b, const struct event *e);

static inline u64 filter_index(u64 key, u64 mask) { return key >> 4 & mask; }
void filter_add(u8 *cell);
void filter_drop(u8 *cell);

#pragma GCC visibility pop

#endif
