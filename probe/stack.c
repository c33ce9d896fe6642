/* The walk up the target's stack, by the tables that stanch compiled from
 * .eh_frame. It runs inside the target: it reads nothing but its own tables
 * and the stack between sp and limit, whatever the tables say. */
#include "probe.h"

/* Copies the module that holds pc. stanch may be writing the list that a hook
 * of long ago still reads; so what is copied is checked before it is used. */
static bool module_of(const struct books *b, u64 pc, struct module *out) {
  u32 now = load(&b->module_now) & 1;
  const struct module *m = (const struct module *)b->module[now];
  u32 lo = 0, n = load(&b->modules[now]);
  if (n > MODULES) return false;
  for (u32 hi = n; lo < hi;) {
    u32 mid = (lo + hi) / 2;
    if (load(&m[mid].end) <= pc)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (lo == n) return false;
  out->start = load(&m[lo].start);
  out->base = load(&m[lo].base);
  out->rows = load(&m[lo].rows);
  out->count = load(&m[lo].count);
  u64 bytes = (u64)out->count * sizeof(struct row), from = out->rows - (u64)b;
  return pc >= out->start && pc >= out->base && pc - out->base <= UINT32_MAX && from < b->size &&
         bytes <= b->size - from;
}

static bool row_of(const struct books *b, u64 pc, struct row *out) {
  struct module m;
  if (!module_of(b, pc, &m)) return false;
  u32 at = (u32)(pc - m.base);
  const struct row *rows = (const struct row *)m.rows;
  u32 lo = 0, hi = m.count;
  while (lo < hi) {
    u32 mid = lo + (hi - lo) / 2;
    if (rows[mid].pc <= at)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (lo == 0) return false;
  *out = rows[lo - 1];
  return true;
}

/* The rule for pc, remembered. Two words that must match each other need no
 * lock (Hyatt's lockless hash table). */
static bool rule(struct books *b, u64 pc, struct row *out) {
  struct cached_row *c = (struct cached_row *)b->cache + ((pc * 0x9e3779b97f4a7c15ull) >> 52) % ROW_CACHE;
  u64 salt = pc ^ (u64)load(&b->epoch) << 48;
  u64 w = load(&c->row);
  if ((load(&c->check) ^ w) == salt && w != 0) {
    out->cfa_off = (int32_t)w;
    out->rbp_off = (int16_t)(w >> 32);
    out->cfa = (u8)(w >> 48);
    out->flags = (u8)(w >> 56);
    return true;
  }
  if (!row_of(b, pc, out)) return false;
  w = (u32)out->cfa_off | (u64)(u16)out->rbp_off << 32 | (u64)out->cfa << 48 | (u64)out->flags << 56;
  store(&c->row, w);
  store(&c->check, w ^ salt);
  return true;
}

/* Where the frame pointer at hand comes from. Most functions save and restore
 * it without ever finding a frame by it: only when one does, the walk depends
 * on it. */
enum origin { KNOWN, REGISTER, WORD };

struct walk {
  u64 lo, limit;
  struct notebook *book; /* null: not taken down */
  u32 first, words, reach;
  bool uses_bp;
  enum origin bp;
  u64 bp_at;
};

static bool readable(const struct walk *w, u64 at) {
  return at >= w->lo && at < w->limit && w->limit - at >= 8 && (at & 7) == 0;
}

static void take_down(struct walk *w, u64 at, u64 v) {
  struct notebook *k = w->book;
  if (!k) return;
  u64 off = at - w->lo;
  if (w->words == NOTE_WORDS || off > UINT32_MAX - 8) {
    w->book = 0; /* too much to remember */
    return;
  }
  k->word[w->first + w->words++] = (struct noted){.value = v, .at = off};
  if (off + 8 > w->reach) w->reach = (u32)off + 8;
}

static bool get(struct walk *w, u64 at, u64 *v) {
  if (!readable(w, at)) return false;
  *v = load((const u64 *)at);
  take_down(w, at, *v);
  return true;
}

static bool get_bp(struct walk *w, u64 at, u64 *bp) {
  if (!readable(w, at)) return false;
  *bp = load((const u64 *)at);
  w->bp = WORD;
  w->bp_at = at;
  return true;
}

/* bp, which the walk now depends on. */
static u64 by(struct walk *w, u64 bp) {
  if (w->bp == WORD) take_down(w, w->bp_at, bp);
  if (w->bp == REGISTER) w->uses_bp = true;
  w->bp = KNOWN;
  return bp;
}

struct notebook *notebook_of(struct books *b, u32 *number) {
  if (*number == 0) {
    if (load(&b->notebooks_used) >= NOTEBOOKS) return 0;
    u32 n = add(&b->notebooks_used, 1) + 1;
    if (n > NOTEBOOKS) return 0;
    *number = n;
  }
  return *number <= NOTEBOOKS ? (struct notebook *)b->notes + (*number - 1) : 0;
}

static u64 mix(u64 h, u64 v) { return (h ^ v) * 0x9e3779b97f4a7c15ull; }

/* How deep a call is, and from where. */
static u64 call_of(u64 sp) { return mix(sp, load((const u64 *)sp) << 16); }

static u8 *guess_of(struct notebook *k, u64 h) { return &k->guess[(h >> 57) % NOTES]; }
static u32 *next_of(struct notebook *k, u32 level, u64 h) { return &k->next[level][(h >> 57) % NOTES]; }

/* The two places of a walk go by the call, and by its callers as far as it is
 * known where their addresses are: many calls come through one function that
 * wraps the allocator. */
static struct note *places_of(struct notebook *k, u64 h, u64 sp, u64 limit) {
  for (u32 level = 0; level < 2; level++) {
    u64 off = load(next_of(k, level, h));
    if (off == 0 || (off & 7) || off + 8 > limit - sp) break;
    h = mix(h, load((const u64 *)(sp + off)) << 16);
  }
  return &k->note[(h >> 57) % (NOTES / 2) * 2];
}

/* The same of a walk that was just made; says where the addresses are. */
static struct note *places_for(struct notebook *k, const struct walk *w) {
  const struct noted *word = &k->word[w->first];
  u64 h = call_of(w->lo);
  for (u32 level = 0; level < 2; level++) {
    bool more = level + 1 < w->words;
    store(next_of(k, level, h), more ? (u32)word[level + 1].at : 0);
    if (!more) break;
    h = mix(h, word[level + 1].value << 16);
  }
  return &k->note[(h >> 57) % (NOTES / 2) * 2];
}

FAST bool holds(const struct books *b, const struct notebook *k, const struct note *n, u64 sp, u64 bp, u64 limit) {
  if (n->sp != sp || n->limit != limit || n->version != load(&b->tables)) return false;
  if (n->uses_bp && n->bp != bp) return false;
  u32 words = n->words;
  if (n->first + words > BOOK_WORDS || n->reach > limit - sp) return false;
  const struct noted *word = &k->word[n->first];
  u64 differ = 0;
  for (u32 i = 0; i < words; i += 4) /* stack_walk fills the last four up */
    for (u32 j = i; j < i + 4; j++) differ |= load((const u64 *)(sp + word[j].at)) ^ word[j].value;
  return differ == 0;
}

static __attribute__((noinline)) struct note *find_further(const struct books *b, struct notebook *k, u64 h, u64 sp,
                                                           u64 bp, u64 limit) {
  struct note *n = places_of(k, h, sp, limit);
  for (u32 way = 0; way < 2; way++, n++) {
    if (!holds(b, k, n, sp, bp, limit)) continue;
    store(guess_of(k, h), (u8)(n - k->note));
    return n;
  }
  return 0;
}

struct note *note_find(const struct books *b, struct notebook *k, u64 sp, u64 bp, u64 limit) {
  u64 h = call_of(sp);
  struct note *n = &k->note[load(guess_of(k, h)) % NOTES];
  return holds(b, k, n, sp, bp, limit) ? n : find_further(b, k, h, sp, bp, limit);
}

/* Makes room for the words of a walk. */
static u32 first_word(struct notebook *k) {
  if (load(&k->used) <= BOOK_WORDS - NOTE_WORDS) return load(&k->used);
  for (u32 i = 0; i < NOTES; i++) store(&k->note[i].sp, 0);
  store(&k->used, 0);
  return 0;
}

/* Keeps a walk, all but its stack and flags. */
static struct note *keep(const struct walk *w, u64 bp, u32 version) {
  struct notebook *k = w->book;
  u32 words = w->words;
  for (; words & 3; words++) k->word[w->first + words] = k->word[w->first]; /* the first stands for none */
  struct note *n = places_for(k, w);
  if (n->sp != 0 && (n[1].sp == 0 || k->turn++ & 1)) n++;
  store(&n->sp, 0);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  n->bp = bp;
  n->limit = w->limit;
  n->version = version;
  n->reach = w->reach;
  n->first = (u16)w->first;
  n->words = (u16)words;
  n->uses_bp = w->uses_bp;
  store(&k->used, w->first + words);
  store(guess_of(k, call_of(w->lo)), (u8)(n - k->note));
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  store(&n->sp, w->lo);
  return n;
}

enum step { MORE, DONE, CUT };

/* One step outwards: sp, bp and pc become the caller's. */
static enum step out_of(struct books *b, struct walk *w, u64 at, u64 *sp, u64 *bp, u64 *pc, bool *interrupted) {
  struct row r;
  if (!rule(b, at, &r)) return CUT;
  if (r.flags & ROW_OUTERMOST) return DONE;
  u64 cfa, ra;
  *interrupted = false;
  switch (r.cfa) {
  case CFA_SP: cfa = *sp + (u64)(i64)r.cfa_off; break;
  case CFA_BP: cfa = by(w, *bp) + (u64)(i64)r.cfa_off; break;
  case CFA_DEREF:
    if (!get(w, by(w, *bp) + (u64)(i64)r.cfa_off, &cfa)) return CUT;
    break;
  case CFA_PLT: cfa = *sp + 8 + ((at & 15) >= (u64)r.cfa_off ? 8 : 0); break;
  case CFA_SIGNAL: {
    u64 frame = *sp + (u64)(i64)r.cfa_off, to;
    if (!get(w, frame, &to) || !get(w, frame + 8, &ra) || !get_bp(w, frame - 40, bp)) return CUT;
    if (to <= *sp || to >= w->limit) return CUT; /* another stack */
    *sp = to;
    *pc = ra;
    *interrupted = true;
    return ra ? MORE : DONE;
  }
  case CFA_FRAME:
    if (by(w, *bp) < *sp || (*bp & 7)) return CUT;
    cfa = *bp + 16;
    if (!get_bp(w, *bp, bp)) return CUT;
    r.rbp_off = BP_SAME;
    r.flags = 0;
    break;
  default: return CUT;
  }
  if (cfa < *sp + 8 || !get(w, cfa - 8, &ra)) return CUT;
  if (r.flags & ROW_BP_AT_BP) {
    if (!get_bp(w, by(w, *bp) + (u64)(i64)r.rbp_off, bp)) return CUT;
  } else if (r.rbp_off == BP_LOST) {
    *bp = 0;
    w->bp = KNOWN;
  } else if (r.rbp_off != BP_SAME) {
    if (!get_bp(w, cfa + (u64)(i64)r.rbp_off, bp)) return CUT;
  }
  *sp = cfa;
  *pc = ra;
  return ra ? MORE : DONE;
}

u32 stack_walk(struct books *b, u64 sp, u64 bp, u64 limit, u64 *out, u64 *hash, bool *cut, struct notebook *book,
               struct note **note) {
  struct walk w = {.lo = sp, .limit = limit, .book = book, .bp = REGISTER};
  u64 with = bp;
  u32 version = load(&b->tables);
  if (book) w.first = first_word(book);
  u32 max = b->max_frames < MAX_FRAMES ? b->max_frames : MAX_FRAMES;
  u32 n = 0;
  u64 pc, h = load(&b->epoch);
  *cut = true;
  if (get(&w, sp, &pc) && max > 0) {
    sp += 8;
    bool interrupted = false;
    for (;;) {
      /* A return address is looked up inside its call instruction, an
       * interrupted instruction as it is. stanch subtracts one from each. */
      out[n] = pc + interrupted;
      h = (h ^ out[n]) * 0xff51afd7ed558ccdull;
      h ^= h >> 32;
      n++;
      if (n == max) break;
      enum step s = out_of(b, &w, pc - !interrupted, &sp, &bp, &pc, &interrupted);
      if (s == DONE) *cut = false;
      if (s != MORE) break;
    }
  }
  *hash = h;
  *note = w.book && w.words ? keep(&w, with, version) : 0;
  return n;
}
