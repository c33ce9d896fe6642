/* Runs the probe's C natively and checks it: the statistics of the sampler,
 * the tables under threads, the walker on stacks made by hand. Prints one line
 * a check; exits 1 when one fails. The test compiles it together with the sources in probe/. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "probe.h"

struct near near;
static int failed;

#define CHECK(ok, ...)                                                                                                 \
  do {                                                                                                                 \
    if (!(ok)) {                                                                                                       \
      failed = 1;                                                                                                      \
      printf("%s:%d: ", __FILE__, __LINE__);                                                                           \
      printf(__VA_ARGS__);                                                                                             \
      printf("\n");                                                                                                    \
    }                                                                                                                  \
  } while (0)

static void *map(size_t n) {
  void *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) exit(2);
  return p;
}

/* Counts the records. */
static u64 live(const struct books *b) {
  u64 n = 0;
  for (u64 i = 0; i < (u64)(LEVEL0 << (b->level + 1)) - LEVEL0; i++)
    for (int w = 0; w < WAYS; w++) n += ((struct bucket *)b->buckets)[i].rec[w].key != 0;
  return n;
}

static struct books *new_books(u32 levels, u64 stacks, u64 frames) {
  struct books *b = map(1 << 20);
  b->size = 1 << 20;
  b->buckets = (u64)map((LEVEL0 << levels) * sizeof(struct bucket));
  b->regions = (u64)map(1 << REGION_BITS);
  b->level_max = levels - 1;
  b->stacks = (u64)map(stacks * sizeof(struct stack));
  b->stacks_max = stacks;
  b->stacks_used = 2;
  b->index[0] = (u64)map(4 * GROUP * 8);
  b->index_mask[0] = 3;
  b->index[1] = (u64)map(stacks * 8);
  b->index_mask[1] = stacks / GROUP - 1;
  b->frames = (u64)map(frames * 8);
  b->frames_max = frames;
  b->cache = (u64)map(ROW_CACHE * sizeof(struct cached_row));
  b->module[0] = (u64)map(2 * MODULES * sizeof(struct module));
  b->module[1] = b->module[0] + MODULES * sizeof(struct module);
  b->freed = (u64)map(FREED * sizeof(struct freed));
  b->events = (u64)map(EVENTS * sizeof(struct event));
  b->notes = (u64)map(sizeof(struct notebook) * NOTEBOOKS);
  b->max_frames = 64;
  return b;
}

/* The intervals are exponential: mean and variance, and the share below a few
 * quantiles, each within five standard errors. */
static void check_interval(void) {
  const u64 means[] = {1, 1000, 512 << 10, 3 << 20, 1ull << 30};
  for (unsigned m = 0; m < sizeof means / sizeof *means; m++) {
    u64 rng = 0x1234567 + m;
    const int n = 400000;
    double sum = 0, squares = 0, mean = (double)means[m];
    int below[3] = {0};
    const double at[3] = {0.1, 1, 3};
    for (int i = 0; i < n; i++) {
      double v = ((double)sample_interval(&rng, means[m]) + 0.5) / mean;
      sum += v;
      squares += v * v;
      for (int q = 0; q < 3; q++) below[q] += v < at[q];
    }
    if (means[m] == 1) continue; /* rounding to whole bytes dominates */
    CHECK(fabs(sum / n - 1) < 5 / sqrt(n), "mean %g: sample mean is %g", mean, sum / n);
    CHECK(fabs(squares / n - 2) < 5 * sqrt(20.0 / n), "mean %g: second moment is %g", mean, squares / n);
    for (int q = 0; q < 3; q++) {
      double want = 1 - exp(-at[q]), have = (double)below[q] / n;
      CHECK(fabs(want - have) < 5 * sqrt(want * (1 - want) / n), "mean %g: P(<%g) is %g, not %g", mean, at[q], have,
            want);
    }
  }
  u64 rng = 1;
  CHECK(sample_interval(&rng, 0) > INT64_MAX / 4, "mean 0 is not never");
}

static void check_weight(void) {
  const u64 means[] = {1, 4096, 512 << 10, 1ull << 35};
  for (unsigned m = 0; m < sizeof means / sizeof *means; m++) {
    for (double s = 0; s < 1e14; s = s * 1.37 + 1) {
      u64 size = (u64)s;
      double want = -1 / expm1(-((double)size + 1) / (double)means[m]);
      double have = (double)sample_weight(size, means[m]) / WEIGHT_ONE;
      CHECK(fabs(have - want) < 1e-5 + want * 1e-5, "size %llu mean %llu: weight %g, not %g", (unsigned long long)size,
            (unsigned long long)means[m], have, want);
    }
  }
  CHECK(sample_weight(123, 0) == WEIGHT_ONE, "weight without sampling");
}

/* The estimator as a whole: what the hooks do with a counter, weighted. */
static void check_unbiased(void) {
  const u64 sizes[] = {8, 16, 24, 100, 1000, 40000, 600000, 5000000};
  const u64 mean = 64 << 10;
  u64 rng = 99;
  double n[8] = {0}, var[8] = {0};
  i64 counter = sample_interval(&rng, mean);
  const int rounds = 800000;
  for (int i = 0; i < rounds; i++) {
    unsigned k = (unsigned)i % 8;
    counter -= (i64)sizes[k] + 1;
    if (counter >= 0) continue;
    double w = (double)sample_weight(sizes[k], mean) / WEIGHT_ONE;
    n[k] += w;
    var[k] += w * (w - 1); /* of a Horvitz-Thompson estimate */
    counter = sample_interval(&rng, mean);
  }
  for (int k = 0; k < 8; k++)
    CHECK(fabs(n[k] - rounds / 8.0) <= 5 * sqrt(var[k]) + 1, "size %llu: estimated %g of %g (deviation %g)",
          (unsigned long long)sizes[k], n[k], rounds / 8.0, sqrt(var[k]));
}

static void check_live(void) {
  struct books *b = new_books(3, 64, 1024); /* 28672 records */
  struct record r, old;
  u64 n = 0, began[3] = {0};
  for (u64 key = 0x10000; n < 40000; key += 16, n++) {
    r = record_of(key, key, (u32)n, 0xabcde, REC_EXACT);
    u32 level = b->level;
    if (!live_insert(b, live_home(b, r.key), &r, &old)) break;
    CHECK(old.key == 0, "replaced something");
    if (b->level != level) began[b->level] = n;
  }
  CHECK(began[1] > 4096 * 6 / 10 && began[2] > 12288 * 6 / 10, "levels began at %lu and %lu records", began[1],
        began[2]);
  CHECK(n >= 28672 * 9 / 10, "full at %lu of 28672 records", n);
  CHECK(live(b) == n, "live is %lu", live(b));
  r = record_of(0x10000 + 16 * (n - 1), 1, 7, 0, 0);
  CHECK(live_insert(b, live_home(b, r.key), &r, &old) && record_stack(&old) == n - 1,
        "a second insert does not give the first");
  CHECK(live(b) == n, "live counts the replacement");
  CHECK(live_take(b, live_home(b, 0x10020), 0x10020, &r) && record_stack(&r) == 2 && record_size(&r) == 0x10020 &&
            record_mean(&r) == REC_EXACT && r.key >> KEY_TIME_SHIFT == 0xbcde && (r.info >> REC_TIME_SHIFT & 15) == 0xa,
        "take gives another record");
  CHECK(!live_take(b, live_home(b, 0x10020), 0x10020, &r), "taken twice");
  CHECK(!live_take(b, live_home(b, 0x10030 | KEY_POOL), 0x10030 | KEY_POOL, &r), "a block of a pool is none of malloc");
  CHECK(!live_take(b, live_home(b, 0x30), 0x30, &r), "found what is not there");
  /* A full table takes new blocks where old ones were, in any level. */
  for (u64 i = 0; i < 1000; i++) live_take(b, live_home(b, 0x10040 + 16 * i), 0x10040 + 16 * i, &r);
  u64 more = 0;
  for (u64 key = 1 << 30; more < 4000; key += 16) {
    r = record_of(key, 1, 1, 0, 0);
    more += live_insert(b, live_home(b, r.key), &r, &old);
    if (key > (1 << 30) + 16 * 20000) break;
  }
  CHECK(more >= 900, "only %lu of 1001 places were taken again", more);
  /* What has an old record in another level is looked for when asked. */
  live_take(b, live_home(b, 0x11000 + 16 * (n - 1000)), 0x11000 + 16 * (n - 1000), &r);
  b->distrust = 1;
  r = record_of(0x10000, 5, 5, 0, 0);
  live_insert(b, live_home(b, r.key), &r, &old);
  CHECK(old.key != 0 && record_stack(&old) == 0, "the old record is not found");
  /* Sizes beyond 64 GiB are kept in pages. */
  r = record_of(0x20, (3ull << 40) + 5, 1, 0, 0);
  CHECK(record_size(&r) == (3ull << 40) + 4096, "size %lu", record_size(&r));
}

/* Any block may be the next to go, and the new one be anywhere: levels that are
 * half empty are enough for ever. */
static void check_churn(void) {
  enum { ALIVE = 32000, APART = 112 };
  struct books *b = new_books(6, 64, 1024); /* 258048 records */
  static u64 keys[ALIVE];
  struct record r, old;
  u64 rng = 7, fresh = 0x7f0000000000;
  for (u64 i = 0; i < ALIVE; i++) {
    r = record_of(keys[i] = fresh, i, 1, 0, REC_EXACT);
    CHECK(live_insert(b, live_home(b, r.key), &r, &old) && old.key == 0, "no room");
    fresh += APART;
  }
  u32 level = b->level;
  for (u64 n = 0; n < 50 * ALIVE; n++) {
    rng = rng * 6364136223846793005u + 1;
    u64 i = (rng >> 33) % ALIVE;
    CHECK(live_take(b, live_home(b, keys[i]), keys[i], &r) && record_size(&r) == i, "round %lu: block %lu is not found",
          n, i);
    if (rng >> 62 == 0) { /* some are allocated elsewhere */
      keys[i] = fresh;
      fresh += APART;
    }
    r = record_of(keys[i], i, 1, 0, REC_EXACT);
    CHECK(live_insert(b, live_home(b, r.key), &r, &old) && old.key == 0, "round %lu: no room", n);
  }
  CHECK(b->level == level, "%u levels for as many blocks as %u could hold", b->level + 1, level + 1);
  CHECK(live(b) == ALIVE, "live is %lu", live(b));
}

struct job {
  struct books *b;
  u64 base;
  u64 missing;
  u16 shard;
};

static void *hammer(void *arg) {
  struct job *j = arg;
  struct record r, old;
  u64 frames[4] = {1, 2, 3, j->base};
  for (int round = 0; round < 200; round++) {
    for (u64 i = 0; i < 400; i++) {
      u32 stack = stack_intern(j->b, frames, 3 + (i & 1), 77 + i % 50 + (i & 1 ? j->base : 0), 0, j->shard, 9);
      stack_acquired(j->b, j->shard, stack, i, 0);
      r = record_of(j->base + i * 16, i, stack, 1, REC_EXACT);
      if (!live_insert(j->b, live_home(j->b, r.key), &r, &old)) j->missing++;
    }
    for (u64 i = 0; i < 400; i++) {
      if (!live_take(j->b, live_home(j->b, j->base + i * 16), j->base + i * 16, &r)) j->missing++;
      if (record_size(&r) != i) j->missing++;
      /* Half of them as another thread would. */
      stack_released(j->b, i & 2 ? j->shard : j->shard + 9, record_stack(&r), record_size(&r), 0);
    }
  }
  return 0;
}

static void check_threads(void) {
  struct books *b = new_books(4, 1024, 65536);
  pthread_t t[4];
  struct job j[4];
  for (u64 i = 0; i < 4; i++) {
    j[i] = (struct job){b, 0x7f0000000000 + i * 0x100000, 0, i < 2 ? (u16)i : 0};
    pthread_create(&t[i], 0, hammer, &j[i]);
  }
  u64 acquired = 0, released = 0, missing = 0;
  for (int i = 0; i < 4; i++) {
    pthread_join(t[i], 0);
    missing += j[i].missing;
  }
  for (u64 i = 0; i < b->stacks_used; i++) {
    struct stack *s = (struct stack *)b->stacks + i;
    acquired += s->acq_n;
    released += s->rel_n + s->far_n;
    CHECK(s->acq_bytes == s->rel_bytes + s->far_bytes, "stack %llu: bytes differ", (unsigned long long)i);
    CHECK(i < 2 || s->n == 3 || s->n == 4, "stack %llu has %d frames", (unsigned long long)i, s->n);
  }
  CHECK(missing == 0, "%llu records missing", (unsigned long long)missing);
  CHECK(live(b) == 0, "%llu records left", (unsigned long long)live(b));
  CHECK(acquired == 4 * 200 * 400 && released == acquired, "acquired %llu released %llu", (unsigned long long)acquired,
        (unsigned long long)released);
  CHECK(b->lost_stacks == 0, "stacks lost");
}

static void check_full(void) {
  struct books *b = new_books(1, 64, 100);
  u64 frames[10] = {0};
  for (u64 i = 0; i < 200; i++) {
    frames[0] = i + 1;
    u32 s = stack_intern(b, frames, 10, i * 0x9e3779b97f4a7c15ull, STACK_EXACT, 0, 10);
    CHECK(s >= 1 && s < b->stacks_max, "stack %u", s);
    stack_acquired(b, 0, s, 10, 0);
  }
  u64 n = 0;
  for (u64 i = 0; i < b->stacks_max; i++) n += ((struct stack *)b->stacks)[i].acq_n;
  CHECK(n == 200, "%llu of 200 counted", (unsigned long long)n);
  CHECK(b->lost_stacks > 0, "loss not counted");
}

static void filter(void) {
  u8 cell = 0;
  for (int i = 0; i < 100; i++) filter_add(&cell);
  for (int i = 0; i < 99; i++) filter_drop(&cell);
  CHECK(cell == 1, "filter is %d", cell);
  for (int i = 0; i < 1000; i++) filter_add(&cell);
  for (int i = 0; i < 1000; i++) filter_drop(&cell);
  CHECK(cell == 128, "a full filter cell is %d", cell);
}

static const struct row rows[] = {
    {0x000, 8, CFA_SP, 0, 0},                /* leaf: return address at sp */
    {0x100, 16, CFA_SP, 0, -16},             /* rbp pushed */
    {0x200, 16, CFA_BP, 0, -16},             /* rbp frame */
    {0x300, 0, CFA_NONE, 0, 0},              /* unknown */
    {0x400, 8, CFA_SP, ROW_OUTERMOST, 0},    /* the end */
    {0x500, 0, CFA_FRAME, 0, 0},             /* assumed frame pointer */
    {0x600, 160, CFA_SIGNAL, ROW_SIGNAL, 0}, /* signal frame */
    {0x700, -8, CFA_DEREF, 2, -16},          /* realigned */
    {0x800, 0, CFA_OTHER, 0, 0},
};

static void check_walk(void) {
  struct note *none;
  struct books *b = new_books(1, 64, 100);
  struct module *m = (struct module *)b->module[0];
  m[0] = (struct module){0x1000, 0x1010, 0x1000, 0, 0, 0};
  u64 at = (u64)b + (1 << 19); /* rows are part of the data range */
  memcpy((void *)at, rows, sizeof rows);
  m[1] = (struct module){0x40000, 0x41000, 0x40000, at, sizeof rows / sizeof *rows, 0};
  m[2] = (struct module){0x50000, 0x51000, 0x50000, 0, 0, 0};
  b->modules[0] = 3;
  static u64 st[64];
  u64 out[MAX_FRAMES], hash, again;
  u64 top = (u64)&st[64];
  bool cut;

  /* hook <- leaf-like 0x40010 <- rbp frame 0x40210 <- end 0x40410 */
  memset(st, 0, sizeof st);
  st[0] = 0x40010;
  st[1] = 0x40210; /* return of the first, CFA = &st[2] */
  st[10] = 0x1234; /* saved rbp */
  st[11] = 0x40410;
  u32 n = stack_walk(b, (u64)&st[0], (u64)&st[10], top, out, &hash, &cut, 0, &none);
  CHECK(n == 3 && out[0] == 0x40010 && out[1] == 0x40210 && out[2] == 0x40410 && !cut, "plain walk: %u frames", n);
  for (int i = 0; i < 3; i++) {
    CHECK(stack_walk(b, (u64)&st[0], (u64)&st[10], top, out, &again, &cut, 0, &none) == 3 && again == hash,
          "not the same with the cache");
  }
  b->epoch = 1;
  stack_walk(b, (u64)&st[0], (u64)&st[10], top, out, &again, &cut, 0, &none);
  CHECK(again != hash, "another epoch gives the same hash");

  /* Every limit gives a shorter stack and never reads past it. */
  for (u64 limit = (u64)&st[0]; limit < top; limit += 8) {
    n = stack_walk(b, (u64)&st[0], (u64)&st[10], limit, out, &hash, &cut, 0, &none);
    CHECK(n <= 3 && (n == 3) == (limit >= (u64)&st[12]), "limit %lu: %u frames", (limit - (u64)&st[0]) / 8, n);
  }
  /* A bad rbp stops the walk. */
  n = stack_walk(b, (u64)&st[0], 1, top, out, &hash, &cut, 0, &none);
  CHECK(n == 2 && cut, "bad rbp: %u frames", n);
  /* Unknown code, code without rows, code outside of all modules. */
  const u64 unknown[] = {0x40310, 0x50010, 0x60000, 0x40810, 0};
  for (int i = 0; i < 5; i++) {
    st[0] = unknown[i];
    n = stack_walk(b, (u64)&st[0], 0, top, out, &hash, &cut, 0, &none);
    CHECK(n == 1 && cut, "unknown %#lx: %u frames", unknown[i], n);
  }
  /* Assumed frame pointers. */
  st[0] = 0x40510;
  n = stack_walk(b, (u64)&st[0], (u64)&st[10], top, out, &hash, &cut, 0, &none);
  CHECK(n == 2 && out[1] == 0x40410 && !cut, "frame pointer: %u frames", n);
  n = stack_walk(b, (u64)&st[4], (u64)&st[2], top, out, &hash, &cut, 0, &none);
  /* rbp below sp is refused; st[4] is 0, which no module holds. */
  CHECK(n == 1 && cut, "frame pointer below the stack pointer: %u frames", n);
  /* A signal frame: the handler returns to 0x40610, interrupted at 0x40410. */
  st[0] = 0x40611;
  u64 *uc = &st[1];
  uc[20] = (u64)&st[40]; /* rsp at 160 */
  uc[21] = 0x40400;      /* rip */
  uc[15] = 0x77;         /* rbp */
  n = stack_walk(b, (u64)&st[0], 0, top, out, &hash, &cut, 0, &none);
  CHECK(n == 2 && out[1] == 0x40401 && !cut, "signal frame: %u frames, %#lx", n, out[1]);
  uc[20] = 0x1000; /* another stack */
  n = stack_walk(b, (u64)&st[0], 0, top, out, &hash, &cut, 0, &none);
  CHECK(n == 1 && cut, "signal frame to another stack: %u frames", n);
  /* A realigned frame. */
  st[0] = 0x40710;
  st[9] = (u64)&st[20];
  st[8] = 0x99;
  st[19] = 0x40410;
  n = stack_walk(b, (u64)&st[0], (u64)&st[10], top, out, &hash, &cut, 0, &none);
  CHECK(n == 2 && out[1] == 0x40410 && !cut, "realigned: %u frames", n);
  /* Rows outside of the books are not believed. */
  b->epoch = 2;
  m[1].rows = (u64)b + b->size - 8;
  st[0] = 0x40010;
  n = stack_walk(b, (u64)&st[0], (u64)&st[10], top, out, &hash, &cut, 0, &none);
  CHECK(n == 1 && cut, "rows outside: %u frames", n);
  m[1].rows = at;
  /* Endless recursion ends at max_frames. */
  for (int i = 0; i < 64; i++) st[i] = 0x40010;
  b->max_frames = 20;
  n = stack_walk(b, (u64)&st[0], 0, top, out, &hash, &cut, 0, &none);
  CHECK(n == 20 && cut, "recursion: %u frames", n);
}

/* A noted walk holds as long as everything that it read is the same. */
static void check_notes(void) {
  struct books *b = new_books(1, 64, 100);
  struct module *m = (struct module *)b->module[0];
  u64 at = (u64)b + (1 << 19);
  memcpy((void *)at, rows, sizeof rows);
  m[0] = (struct module){0x40000, 0x41000, 0x40000, at, sizeof rows / sizeof *rows, 0};
  b->modules[0] = 1;
  static u64 st[64];
  u64 out[MAX_FRAMES], hash, sp = (u64)&st[0], bp = (u64)&st[10], top = (u64)&st[64];
  bool cut;
  u32 number = 0;
  st[0] = 0x40010;
  st[1] = 0x40210;
  st[10] = 0x1234;
  st[11] = 0x40410;
  struct notebook *k = notebook_of(b, &number);
  struct note *n;
  CHECK(k && number == 1 && !note_find(b, k, sp, bp, top), "an empty notebook has a note");
  CHECK(stack_walk(b, sp, bp, top, out, &hash, &cut, k, &n) == 3 && n && n->words == 4 && n->uses_bp, "nothing noted");
  CHECK(note_find(b, k, sp, bp, top) == n, "the note does not hold");
  /* Each word that led on, and nothing else, makes a difference: what was saved
   * of rbp (word 10) does not when no frame is found by it. */
  for (int i = 0; i < 64; i++) {
    bool matters = i == 0 || i == 1 || i == 11;
    st[i] ^= 0x80;
    CHECK((note_find(b, k, sp, bp, top) == n) == !matters, "word %d", i);
    st[i] ^= 0x80;
  }
  CHECK(!note_find(b, k, sp, bp + 8, top) && !note_find(b, k, sp + 8, bp, top), "other registers");
  CHECK(!note_find(b, k, sp, bp, top - 8), "another limit");
  /* Two walks from one place, which differ further out, are both known. */
  struct note *other;
  st[11] = 0x40420;
  CHECK(stack_walk(b, sp, bp, top, out, &hash, &cut, k, &other) == 3 && other && other != n, "the second way");
  CHECK(note_find(b, k, sp, bp, top) == other, "the second way is not known");
  st[11] = 0x40410;
  CHECK(note_find(b, k, sp, bp, top) == n, "the first way is forgotten");
  b->tables++;
  CHECK(!note_find(b, k, sp, bp, top), "other tables");
  for (int i = 0; i < 64; i++) st[i] = 0x40010;
  CHECK(stack_walk(b, sp, bp, top, out, &hash, &cut, k, &n) == 64 && note_find(b, k, sp, bp, top) == n, "64 frames");
  /* A full notebook forgets all, and never what it has just noted. */
  for (int i = 0; i < 200; i++) {
    st[0] = 0x40010 + 16 * (u64)(i % 16);
    for (int deep = 0; deep < 4; deep++) {
      u64 from = (u64)&st[deep];
      if (note_find(b, k, from, bp, top)) continue;
      stack_walk(b, from, bp, top, out, &hash, &cut, k, &n);
      CHECK(n && note_find(b, k, from, bp, top) == n, "round %d: just noted, and not known", i);
      CHECK(k->used <= BOOK_WORDS && n->first + n->words <= k->used, "%u words used", k->used);
    }
  }
  number = 0;
  for (int i = 0; i < NOTEBOOKS + 5; i++, number = 0) notebook_of(b, &number);
  CHECK(notebook_of(b, &number) == 0, "more notebooks than there are");
}

/* The hooks' C, called as entry_amd64.S does. near is this program's. */
u32 probe_enter(struct frame *f);
void probe_leave(struct frame *f);

struct call {
  struct frame f;
  u64 stack[8]; /* what lies above the frame: the return address first */
};

static struct call *call_at(char *sp, u32 class, u64 a, u64 b, u32 flags) {
  struct call *c = (struct call *)sp;
  memset(c, 0, sizeof *c);
  c->f.rdi = a;
  c->f.rsi = b;
  c->f.info = class << INFO_CLASS_SHIFT | flags;
  return c;
}

static void returns(struct call *c, u64 result) {
  c->f.result = result;
  probe_leave(&c->f);
}

static struct slot *my_slot(void) {
  u64 fs;
  __asm__("mov %%fs:0, %0" : "=r"(fs));
  for (u32 i = 0; i < SLOTS; i++)
    if ((near.slot[i].owner & ~1ull) == fs) return &near.slot[i];
  return 0;
}

static struct stack *sum(struct books *b) {
  static struct stack all;
  memset(&all, 0, sizeof all);
  for (u64 i = 0; i < b->stacks_used; i++) {
    struct stack *s = (struct stack *)b->stacks + i;
    all.acq_n += s->acq_n;
    all.acq_bytes += s->acq_n * s->size + s->acq_bytes;
    all.rel_n += s->rel_n + s->far_n;
    all.rel_bytes += (s->rel_n + s->far_n) * s->size + s->rel_bytes + s->far_bytes;
  }
  return &all;
}

static void check_hooks(void) {
  static char stack[1 << 16] __attribute__((aligned(4096)));
  struct books *b = new_books(1, 64, 1024);
  b->scratch = (u64)map((u64)SLOTS * MAX_FRAMES * 8);
  struct state *st = &near.state;
  struct record r;

  /* Zeros, as a forked child sees them: nothing happens. */
  struct call *c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 0 && my_slot() == 0, "a hook works on zeros");

  st->on = 1;
  st->gen = 7;
  st->lease[0] = st->lease[1] = ~0ull;
  st->books = (u64)b;
  st->filter_mask = 0xffff;
  st->mean[0] = 1 << 20;
  st->seed = 1;
  st->aims = 1;
  st->aim[0].min = 100;
  st->aim[0].max = 103;
  near.aim[(100 + 7) >> 4] = 1;

  /* An aimed block is recorded, its neighbour in size is not. */
  c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 2, "100 bytes are not recorded");
  CHECK((my_slot()->owner & 1) == 1, "not busy");
  returns(c, 0x1000);
  CHECK((my_slot()->owner & 1) == 0 && my_slot()->busy == 0, "still busy");
  CHECK(live(b) == 1 && near.filter[0x100] == 1, "live %lu filter %d", live(b), near.filter[0x100]);
  my_slot()->counter = 1 << 30;
  c = call_at(stack + 30000, CLASS_ALLOC, 104, 0, 0);
  CHECK(probe_enter(&c->f) == 0, "104 bytes are recorded");
  CHECK(my_slot()->counter == (1 << 30) - 105, "not counted: %ld", my_slot()->counter);
  c = call_at(stack + 30000, CLASS_ALLOC, 104, 0, INFO_COUNTED);
  CHECK(probe_enter(&c->f) == 0 && my_slot()->counter == (1 << 30) - 105, "counted twice");

  /* What runs out of its counter is sampled, with the interval it had. */
  my_slot()->counter = -1;
  st->mean[1] = 1 << 21;
  st->mean_now = 1;
  c = call_at(stack + 30000, CLASS_CALLOC, 100, 20, INFO_COUNTED);
  CHECK(probe_enter(&c->f) == 1 && c->f.size == 2000 && c->f.mean == 0, "not sampled");
  returns(c, 0x2000);
  CHECK(my_slot()->counter >= 0 && my_slot()->mean == 1, "no new interval");
  CHECK(live(b) == 2, "live %lu", live(b));

  /* An allocation that fails leaves nothing behind. */
  c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 2, "not watched");
  returns(c, 0);
  CHECK(live(b) == 2 && (my_slot()->owner & 1) == 0, "a failure is recorded");

  /* realloc: the old record goes first, and comes back when it fails. */
  c = call_at(stack + 30000, CLASS_REALLOC, 0x1000, 50, 0);
  CHECK(probe_enter(&c->f) == 3 && live(b) == 1, "realloc of a recorded block");
  CHECK(near.filter[0x100] == 0, "the filter still holds it");
  returns(c, 0);
  CHECK(live(b) == 2 && near.filter[0x100] == 1, "the record is not back");
  struct stack *s = sum(b);
  CHECK(s->rel_n == 0, "a release was counted");
  c = call_at(stack + 30000, CLASS_REALLOC, 0x1000, 101, 0);
  CHECK(probe_enter(&c->f) == 2 && live(b) == 1, "realloc to an aimed size");
  returns(c, 0x3000);
  s = sum(b);
  CHECK(live(b) == 2 && s->rel_n == 1 && s->rel_bytes == 100, "released %lu, %lu bytes", s->rel_n, s->rel_bytes);
  c = call_at(stack + 30000, CLASS_REALLOC, 0x3000, 0, 0);
  CHECK(probe_enter(&c->f) == 3, "realloc to nothing");
  returns(c, 0);
  CHECK(live(b) == 1 && sum(b)->rel_n == 2, "realloc to nothing does not release");

  /* posix_memalign stores its result. */
  u64 out = 0x4000;
  c = call_at(stack + 30000, CLASS_POSIX, (u64)&out, 64, INFO_FRAMED);
  c->f.rdx = 102;
  CHECK(probe_enter(&c->f) == 2, "posix_memalign");
  returns(c, 12); /* ENOMEM */
  CHECK(live(b) == 1, "a failure is recorded");
  c = call_at(stack + 30000, CLASS_POSIX, (u64)&out, 64, INFO_FRAMED);
  c->f.rdx = 102;
  probe_enter(&c->f);
  returns(c, 0);
  CHECK(live(b) == 2 && live_take(b, live_home(b, 0x4000), 0x4000, &r), "posix_memalign is not recorded");

  /* A call inside a call, from just below on the same stack, keeps out; a
   * release does not. */
  c = call_at(stack + 30000, CLASS_ALIGN, 64, 100, INFO_FRAMED);
  CHECK(probe_enter(&c->f) == 2, "aligned");
  struct call *in = call_at(stack + 29200, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&in->f) == 0, "a nested call is recorded");
  in = call_at(stack + 29200, CLASS_FREE, 0x2000, 0, 0);
  CHECK(probe_enter(&in->f) == 0 && live(b) == 0, "a nested release is not seen");
  CHECK(my_slot()->owner & 1, "the nested call left for the outer one");
  /* What a signal handler does meanwhile is recorded. */
  in = call_at(stack + 20000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&in->f) == 2, "the call of a signal handler is not recorded");
  returns(in, 0x5100);
  CHECK(live(b) == 1 && live_take(b, live_home(b, 0x5100), 0x5100, &r), "the signal handler's block");
  CHECK(my_slot()->owner & 1, "the signal handler left for the hook that it interrupted");
  returns(c, 0x5000);
  CHECK(live(b) == 1 && (my_slot()->owner & 1) == 0, "the outer call");

  /* A hook that siglongjmp took away: the next call from above on the same
   * stack heals it. */
  my_slot()->lo = (u64)stack;
  my_slot()->hi = (u64)stack + sizeof stack;
  c = call_at(stack + 20000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 2, "to be abandoned");
  c = call_at(stack + 19200, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 0, "below: looks nested");
  c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 2, "above: heals");
  returns(c, 0x6000);
  CHECK(live(b) == 2 && (my_slot()->owner & 1) == 0, "healed");
  /* On another stack, a signal handler's. */
  static char other[8192] __attribute__((aligned(4096)));
  c = call_at(stack + 20000, CLASS_ALLOC, 100, 0, 0);
  probe_enter(&c->f);
  in = call_at(other + 1000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&in->f) == 2, "another stack");
  returns(in, 0x7100);
  CHECK((my_slot()->owner & 1) == 1, "left for the one on the other stack");
  returns(c, 0x7000);
  CHECK((my_slot()->owner & 1) == 0 && live_take(b, live_home(b, 0x7100), 0x7100, &r), "both are done");

  /* Switched off and on while the original ran: keep out. */
  c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  probe_enter(&c->f);
  st->gen = 9;
  u64 had = live(b);
  returns(c, 0x8000);
  CHECK(live(b) == had, "recorded under another gen");
  memset(near.slot, 0, sizeof near.slot);

  /* A release that nobody saw: the new block replaces the old record. */
  for (int i = 0; i < 2; i++) {
    c = call_at(stack + 30000, CLASS_ALLOC, 103, 0, 0);
    probe_enter(&c->f);
    returns(c, 0x9000);
  }
  CHECK(b->stale == 1 && live(b) == had + 1, "stale %lu live %lu", b->stale, live(b));

  /* Sizes that no memory has, and odd addresses. */
  c = call_at(stack + 30000, CLASS_CALLOC, 1ull << 40, 1ull << 40, 0);
  CHECK(probe_enter(&c->f) == 0, "an overflowing size");
  c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  probe_enter(&c->f);
  returns(c, 0xa001);
  CHECK(b->lost_live == 1 && live(b) == had + 1, "an odd address");

  /* The lease. */
  st->lease[0] = 1;
  c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 2, "one word of the lease is enough");
  returns(c, 0);
  st->lease[1] = 1;
  for (int i = 0; i < 64 && st->on; i++) { /* one call in so many looks */
    c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
    if (probe_enter(&c->f)) returns(c, 0);
  }
  CHECK(st->on == 0 && st->lapsed == 1, "the lease is over");

  /* A child of fork in the middle of a call: all zeros. */
  memset(&near, 0, sizeof near);
  st->on = 1;
  c = call_at(stack + 30000, CLASS_FREE, 0x1000, 0, 0);
  CHECK(probe_enter(&c->f) == 0, "zeros");
  memset(&c->f, 0, sizeof c->f);
  returns(c, 0x1000);
}

/* Recording from the start: releases of what is not held are told. */
static void check_events(void) {
  static char stack[1 << 16] __attribute__((aligned(4096)));
  struct books *b = new_books(1, 64, 1024);
  b->scratch = (u64)map((u64)SLOTS * MAX_FRAMES * 8);
  memset(&near, 0, sizeof near);
  struct state *st = &near.state;
  struct event *ring = (struct event *)b->events;
  st->on = st->exact = st->from_start = 1;
  st->gen = 7;
  st->lease[0] = st->lease[1] = ~0ull;
  st->books = (u64)b;
  st->seed = 1;
  st->aims = 1;
  st->aim[0].max = ~0ull;
  memset(near.aim, 1, sizeof near.aim);
  struct call *c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  CHECK(probe_enter(&c->f) == 2, "not exact");
  returns(c, 0x1000);
  CHECK(near.filter[0x100] == 0, "the filter is counted");
  c = call_at(stack + 30000, CLASS_FREE, 0x1000, 0, 0);
  probe_enter(&c->f);
  CHECK(live(b) == 0 && b->events_head == 0, "an event for a block that was held");
  c = call_at(stack + 30000, CLASS_FREE, 0x1000, 0, 0);
  probe_enter(&c->f);
  CHECK(b->events_head == 1 && ring[0].seq == 1 && ring[0].kind == EVENT_DOUBLE && ring[0].at == 0x1000 &&
            ring[0].size == 100,
        "no double release: %lu", b->events_head);
  c = call_at(stack + 30000, CLASS_FREE, 0x2000, 0, 0);
  probe_enter(&c->f);
  CHECK(b->events_head == 2 && ring[1].kind == EVENT_INVALID, "no invalid release");
  c = call_at(stack + 30000, CLASS_REALLOC, 0x3000, 10, 0);
  CHECK(probe_enter(&c->f) == 2 && b->events_head == 3, "realloc of an unknown block");
  returns(c, 0);
  /* Another function that the same release goes on to; free of nothing; what
   * the allocator gives back; what may have been missed. */
  c = call_at(stack + 30000, CLASS_ALLOC, 100, 0, 0);
  probe_enter(&c->f);
  returns(c, 0x4000);
  c = call_at(stack + 30000, CLASS_FREE, 0x4000, 0, 0);
  probe_enter(&c->f);
  c = call_at(stack + 30000, CLASS_FREE, 0x4000, 0, 5);
  probe_enter(&c->f);
  c = call_at(stack + 30000, CLASS_FREE, 0, 0, 0);
  probe_enter(&c->f);
  st->alloc_lo = 0x50000;
  st->alloc_hi = 0x51000;
  c = call_at(stack + 30000, CLASS_FREE, 0x5000, 0, 0);
  c->stack[0] = 0x50010;
  probe_enter(&c->f);
  b->lost_live = 1;
  c = call_at(stack + 30000, CLASS_FREE, 0x5000, 0, 0);
  probe_enter(&c->f);
  CHECK(b->events_head == 3, "%lu events", b->events_head);

  /* Blocks of a pool are kept apart, and hold nobody up. */
  st->pool[3] = (struct pool){.alloc = 1, .size = 2, .count = 1};
  st->pool[4] = (struct pool){.free = 1, .ptr = 2};
  c = call_at(stack + 30000, CLASS_POOL, 3, 50, 3 << INFO_POOL_SHIFT);
  CHECK(probe_enter(&c->f) == 2 && c->f.size == 150 && (my_slot()->owner & 1) == 0, "a pool's function");
  CHECK(c->f.info & INFO_WORDS, "there are no stack words");
  returns(c, 0x6000);
  struct record r;
  CHECK(live(b) == 1 && !live_take(b, live_home(b, 0x6000), 0x6000, &r), "a pool's block is malloc's");
  c = call_at(stack + 30000, CLASS_POOL, 0, 0x6000, 4 << INFO_POOL_SHIFT);
  CHECK(probe_enter(&c->f) == 0 && live(b) == 0, "a pool's release");
  c = call_at(stack + 4096 * 8 - sizeof(struct frame) - 8, CLASS_POOL, 3, 50, 3 << INFO_POOL_SHIFT);
  probe_enter(&c->f);
  CHECK(!(c->f.info & INFO_WORDS), "words beyond the page, of a stack that nobody knows");
  memset(&near, 0, sizeof near);
}

static void *claim(void *arg) {
  struct call *c = call_at((char *)arg, CLASS_ALLOC, 1 << 20, 0, 0);
  probe_enter(&c->f);
  return my_slot();
}

/* Threads get a slot each; one that finds none passes. */
static void check_slots(void) {
  static char stack[4096] __attribute__((aligned(4096)));
  struct books *b = new_books(1, 64, 64);
  memset(&near, 0, sizeof near);
  near.state.on = 1;
  near.state.books = (u64)b;
  near.state.lease[0] = ~0ull;
  near.state.seed = 1;
  void *mine = claim(stack);
  CHECK(mine != 0 && claim(stack) == mine, "a thread has another slot");
  pthread_t t;
  void *theirs = 0;
  pthread_create(&t, 0, claim, stack);
  pthread_join(t, &theirs);
  CHECK(theirs != 0 && theirs != mine, "two threads share a slot");
  memset(near.slot, 0xee, sizeof near.slot);
  CHECK(claim(stack) == 0 && near.state.no_slot == 1, "no slot was free");
}

int main(void) {
  check_notes();
  check_hooks();
  check_events();
  check_slots();
  check_interval();
  check_weight();
  check_unbiased();
  check_live();
  check_churn();
  check_threads();
  check_full();
  filter();
  check_walk();
  if (!failed) printf("ok\n");
  return failed;
}
