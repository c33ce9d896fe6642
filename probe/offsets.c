/* Facts of wire.h for those that cannot read it: compiled to assembly, from
 * which gen.go takes the lines that begin with "->". */
#include <stddef.h>

#include "wire.h"

#define SAY(name, value) __asm__ volatile("\n-> " #name " %c0" : : "i"((long long)(value)))
#define AT(prefix, type, field, name) SAY(prefix##_##name, offsetof(struct type, field))
#define SIZE(name, type) SAY(name##_SIZE, sizeof(struct type))

void facts(void) {
  /* For entry_amd64.S as well as for Go. */
  SAY(NEAR_DISTANCE, NEAR_DISTANCE);
  AT(NEAR, near, slot, SLOT);
  AT(NEAR, near, aim, AIM);
  AT(NEAR, near, filter, FILTER);
  SAY(SLOT_SHIFT, SLOT_SHIFT);
  SAY(SLOTS, SLOTS);
  SAY(AIM_CLASSES, AIM_CLASSES);
  SAY(INFO_CLASS_SHIFT, INFO_CLASS_SHIFT);
  SAY(INFO_COUNTED, INFO_COUNTED);
  SAY(INFO_FRAMED, INFO_FRAMED);
  SAY(CLASS_ALLOC, CLASS_ALLOC);
  SAY(CLASS_CALLOC, CLASS_CALLOC);
  SAY(CLASS_ALIGN, CLASS_ALIGN);
  SAY(CLASS_REALLOC, CLASS_REALLOC);
  SAY(CLASS_REALLOCN, CLASS_REALLOCN);
  SAY(CLASS_POSIX, CLASS_POSIX);
  SAY(CLASS_FREE, CLASS_FREE);
  SAY(CLASS_NEW, CLASS_NEW);
  SIZE(FRAME, frame);
  AT(FRAME, frame, rdi, RDI);
  AT(FRAME, frame, rsi, RSI);
  AT(FRAME, frame, rdx, RDX);
  AT(FRAME, frame, rcx, RCX);
  AT(FRAME, frame, r8, R8);
  AT(FRAME, frame, r9, R9);
  AT(FRAME, frame, r10, R10);
  AT(FRAME, frame, r11, R11);
  AT(FRAME, frame, info, INFO);
  AT(FRAME, frame, rbp, RBP);
  AT(FRAME, frame, result, RESULT);

  /* struct header */
  SAY(PROBE_VERSION, PROBE_VERSION);
  SIZE(HEADER, header);
  AT(HEADER, header, magic, MAGIC);
  AT(HEADER, header, version, VERSION);
  AT(HEADER, header, text_size, TEXT);
  AT(HEADER, header, build, BUILD);
  AT(HEADER, header, near_size, NEAR);
  AT(HEADER, header, owner_pid, OWNER_PID);
  AT(HEADER, header, used, USED);
  AT(HEADER, header, owner_start, OWNER_START);
  AT(HEADER, header, data, DATA);
  AT(HEADER, header, patch, PATCH);
  SAY(REGIONS, REGIONS);
  SAY(PATCHES, PATCHES);
  SIZE(PATCH, patch);
  AT(PATCH, patch, at, AT);
  AT(PATCH, patch, target, TARGET);
  AT(PATCH, patch, old, OLD);
  AT(PATCH, patch, len, LEN);
  AT(PATCH, patch, hook, HOOK);

  /* struct near: state and slots */
  AT(STATE, state, magic, MAGIC);
  AT(STATE, state, version, VERSION);
  AT(STATE, state, on, ON);
  AT(STATE, state, gen, GEN);
  AT(STATE, state, lapsed, LAPSED);
  AT(STATE, state, lease, LEASE);
  AT(STATE, state, now, NOW);
  AT(STATE, state, exact, EXACT);
  AT(STATE, state, books, BOOKS);
  AT(STATE, state, filter_mask, FILTER_MASK);
  AT(STATE, state, mean, MEAN);
  AT(STATE, state, mean_now, MEAN_NOW);
  AT(STATE, state, aims, AIMS);
  AT(STATE, state, main_lo, MAIN_LO);
  AT(STATE, state, main_hi, MAIN_HI);
  AT(STATE, state, tcb_room, TCB_ROOM);
  AT(STATE, state, seed, SEED);
  AT(STATE, state, no_slot, NO_SLOT);
  AT(STATE, state, aim, AIM);
  SAY(AIMS, AIMS);
  SAY(MEANS, MEANS);
  SAY(FILTER_MAX, FILTER_MAX);
  SAY(TCB_ROOM_MAX, TCB_ROOM_MAX);
  SIZE(SLOT, slot);
  AT(SLOT, slot, owner, OWNER);
  AT(SLOT, slot, counter, COUNTER);
  AT(SLOT, slot, calls, CALLS);
  AT(SLOT, slot, busy, BUSY);
  AT(SLOT, slot, lo, LO);
  AT(SLOT, slot, hi, HI);
  AT(SLOT, slot, slow, SLOW);
  AT(SLOT, slot, timed, TIMED);
  AT(SLOT, slot, cycles, CYCLES);
  AT(SLOT, slot, releases, RELEASES);

  /* struct books and its tables */
  SIZE(BOOKS, books);
  AT(BOOKS, books, magic, MAGIC);
  AT(BOOKS, books, version, VERSION);
  AT(BOOKS, books, gen, GEN);
  AT(BOOKS, books, size, LENGTH);
  AT(BOOKS, books, buckets, BUCKETS);
  AT(BOOKS, books, level, LEVEL);
  AT(BOOKS, books, level_max, LEVEL_MAX);
  AT(BOOKS, books, stacks, STACKS);
  AT(BOOKS, books, stacks_max, STACKS_MAX);
  AT(BOOKS, books, stacks_used, STACKS_USED);
  AT(BOOKS, books, index, INDEX);
  AT(BOOKS, books, index_mask, INDEX_MASK);
  AT(BOOKS, books, frames, FRAMES);
  AT(BOOKS, books, frames_max, FRAMES_MAX);
  AT(BOOKS, books, frames_used, FRAMES_USED);
  AT(BOOKS, books, scratch, SCRATCH);
  AT(BOOKS, books, cache, CACHE);
  AT(BOOKS, books, module, MODULE);
  AT(BOOKS, books, modules, MODULES);
  AT(BOOKS, books, module_now, MODULE_NOW);
  AT(BOOKS, books, epoch, EPOCH);
  AT(BOOKS, books, max_frames, MAX_FRAMES);
  AT(BOOKS, books, tables, TABLES);
  AT(BOOKS, books, notes, NOTES);
  AT(BOOKS, books, notebooks_used, NOTEBOOKS_USED);
  AT(BOOKS, books, distrust, DISTRUST);
  AT(BOOKS, books, lost_live, LOST_LIVE);
  AT(BOOKS, books, lost_stacks, LOST_STACKS);
  AT(BOOKS, books, cut, CUT);
  AT(BOOKS, books, stale, STALE);
  SAY(WAYS, WAYS);
  SIZE(BUCKET, bucket);
  SAY(LEVEL0, LEVEL0);
  SAY(GROUP, GROUP);
  SAY(GROUPS_NEAR, GROUPS_NEAR);
  SIZE(REC, record);
  SAY(KEY_TIME_SHIFT, KEY_TIME_SHIFT);
  SAY(ADDRESS_BITS, ADDRESS_BITS);
  SAY(REC_SIZE_SHIFT, REC_SIZE_SHIFT);
  SAY(REC_SIZE_BITS, REC_SIZE_BITS);
  SAY(REC_TIME_SHIFT, REC_TIME_SHIFT);
  SAY(REC_MEAN_SHIFT, REC_MEAN_SHIFT);
  SAY(REC_EXACT, REC_EXACT);
  SAY(STACK_BITS, STACK_BITS);
  SIZE(STACK, stack);
  AT(STACK, stack, frames, FRAMES);
  AT(STACK, stack, n, N);
  AT(STACK, stack, flags, FLAGS);
  AT(STACK, stack, acq_n, ACQ_N);
  AT(STACK, stack, acq_bytes, ACQ_BYTES);
  AT(STACK, stack, rel_n, REL_N);
  AT(STACK, stack, rel_bytes, REL_BYTES);
  AT(STACK, stack, size, BLOCK);
  AT(STACK, stack, far_n, FAR_N);
  AT(STACK, stack, far_bytes, FAR_BYTES);
  SAY(STACK_EXACT, STACK_EXACT);
  SAY(STACK_CUT, STACK_CUT);
  SAY(STACK_POOL, STACK_POOL);
  SAY(STACK_READY, STACK_READY);
  SAY(NOTES, NOTES);
  SAY(NOTEBOOKS, NOTEBOOKS);
  SIZE(NOTE, note);
  SIZE(ROW, row);
  SAY(CFA_NONE, CFA_NONE);
  SAY(CFA_SP, CFA_SP);
  SAY(CFA_BP, CFA_BP);
  SAY(CFA_DEREF, CFA_DEREF);
  SAY(CFA_PLT, CFA_PLT);
  SAY(CFA_SIGNAL, CFA_SIGNAL);
  SAY(CFA_FRAME, CFA_FRAME);
  SAY(CFA_OTHER, CFA_OTHER);
  SAY(ROW_OUTERMOST, ROW_OUTERMOST);
  SAY(ROW_BP_AT_BP, ROW_BP_AT_BP);
  SAY(ROW_SIGNAL, ROW_SIGNAL);
  SAY(BP_LOST, BP_LOST);
  SIZE(MODULE, module);
  SAY(MODULES, MODULES);
  SAY(MAX_FRAMES, MAX_FRAMES);
  SAY(CACHED_ROW_SIZE, sizeof(struct cached_row));
  SAY(ROW_CACHE, ROW_CACHE);
  SAY(WEIGHT_ONE, WEIGHT_ONE);
}
