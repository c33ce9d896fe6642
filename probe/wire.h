/* What the probe and stanch share: the layout of the probe's memory in the
 * target. gen.go turns the structs below into offsets for entry_amd64.S and
 * for Go, so each fact stands here once.
 *
 * The probe occupies three ranges of the target:
 *
 *   text  r-x  header (struct header), hooks with their trampolines, C code
 *   near  rw   struct near: what the fast paths touch, at a fixed distance
 *              from the text. MADV_WIPEONFORK: a forked child sees zeros, and
 *              zeros mean "not for you"
 *   data  rw   struct books and the tables behind it, bounded. A snapshot of
 *              the target, which is a forked child, still holds them
 *
 * stanch maps all three and reads and writes them from outside. The probe
 * makes no system call. All numbers are little endian.
 */
#ifndef STANCH_PROBE_WIRE_H
#define STANCH_PROBE_WIRE_H

#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

/* "stanch" and two bytes that no text has; in memory order. */
#define PROBE_MAGIC 0x01ff68636e617473ull
#define PROBE_VERSION 4

#define NEAR_DISTANCE                                                                                                  \
  0x13000 /* from the start of the text to struct near; an odd number of pages that nobody else maps executable */
#define HEAD_ROOM 8192        /* of struct header; the code follows */
#define PATCHES 192           /* places that can be hooked */
#define SITES 128             /* of them, system calls of libc */
#define STUB 64               /* bytes of code for each of those */
#define REGIONS 8             /* data ranges */
#define SLOTS 4096            /* threads with books of their own */
#define SLOT_SHIFT 7          /* log2(sizeof(struct slot)) */
#define AIM_CLASSES 4096      /* 16-byte classes: requests up to 64 KiB - 8 */
#define POOLS 16              /* functions of the program's own allocators that can be hooked */
#define ISLANDS 5             /* files that they may be in, and libc */
#define AIMS 32               /* intervals of sizes that are always recorded */
#define MEANS 7               /* sampling intervals used one after the other */
#define FILTER_MAX (1u << 20) /* counting filter of recorded addresses */
#define MAX_FRAMES 64
#define WAYS 4          /* records in a bucket of the live table, which is a cache line */
#define NEIGHBOURS 4    /* buckets behind the second place of a record that serve when both are full */
#define LEVEL0 1024     /* buckets of the first level; each level has twice as many as the one before */
#define REGION_SHIFT 16 /* log2 of the bytes whose blocks are in one level */
#define REGION_BITS 16
#define GROUP 8          /* places of the stack index that are looked at together */
#define GROUPS_NEAR 1024 /* groups of the first index; what finds no room there goes to the second */
#define FREED 16384      /* blocks that were given back are remembered */
#define EVENTS 8192      /* that wait for stanch */
#define SHARDS 8         /* threads that have stacks of their own, and count without locking */
#define MODULES 2048     /* executable ranges with unwind tables */
#define ROW_CACHE 4096   /* remembered rows of the unwind tables */
#define NOTES 128        /* walks that a thread remembers */
#define NOTE_WORDS 72    /* stack words of one at most */
#define BOOK_WORDS 2048  /* of all of them */
#define NOTEBOOKS 128    /* threads that remember any */
#define WEIGHT_ONE 65536 /* a weight of 1 in sums of weights */
#define TCB_ROOM_MAX 12288
#define CALLS 512        /* numbers of system calls */
#define CALL_VALUES 16   /* values of an argument that one may be restricted to */
#define CALL_WHENS 8     /* such restrictions */
#define INPUTS 64        /* large requests whose descriptor is remembered */
#define INPUT_SIZE 65536 /* bytes of the smallest of them; the fast paths leave all such requests to the slow ones */

/* One changed function: enough to undo it after stanch was killed. */
struct patch {
  u64 at;     /* where the five bytes of the jump stand; 0: unused */
  u64 target; /* where it jumps */
  u8 old[16]; /* what stood there */
  u8 len;     /* bytes of whole instructions displaced, at least 5 */
  u8 hook;    /* index in hooks.def */
  u8 flags;
  u8 _[5];
};

struct region {
  u64 start;
  u64 size;
};

/* The first bytes of the text. Constant once the probe is placed, except that
 * stanch adds data ranges. */
struct header {
  u64 magic;
  u32 version;
  u32 text_size;
  u8 build[16]; /* hash of the blob: the same text may be used again */
  u64 near_size;
  u32 owner_pid;   /* stanch, in its own PID namespace */
  u32 used;        /* a function jumped here once: some thread may still return */
  u64 owner_start; /* its start time, clock ticks after boot */
  struct region data[REGIONS];
  struct region island[ISLANDS]; /* pages within reach of other files: r-x, they begin with the magic */
  struct patch patch[PATCHES];
};

_Static_assert(sizeof(struct header) <= HEAD_ROOM, "the code follows the header");

/* What one thread knows, found by a hash of its fs:0. */
struct slot {
  u64 owner;   /* fs:0; plus 1 while a hook of this thread is at work; 0 free */
  i64 counter; /* bytes to go until the next sample */
  u64 calls;   /* allocations seen */
  u64 busy;    /* the stack pointer of the hook at work */
  u64 rng;
  u64 lo, hi;     /* this thread's stack as stanch verified it; reads stay below hi */
  u64 slow;       /* hooks that left the fast path */
  u64 timed;      /* how many of those were timed */
  u64 cycles;     /* and how long they took, in ticks of rdtsc */
  u64 releases;   /* recorded blocks freed */
  u32 mean;       /* the sampling interval under which counter was drawn */
  u32 notebook;   /* which one, from 1; 0 none yet */
  u16 shard;      /* of the stacks, from 1; 0 none */
  u8 sharded;     /* it has asked for one */
  u8 walking;     /* its scratch and notebook are being written */
  u32 freed_hook; /* the last release of this thread: its hook, address and stack pointer */
  u64 freed_key, freed_sp;
  u32 input; /* the descriptor last read from, plus 1; 0 none */
  u16 call;  /* the number that syscall(2) was asked for */
  u8 away;   /* children that borrow this thread's memory run: what they do to descriptors is theirs */
  u8 kept;   /* the record of a number that is being replaced was closed */
};

/* The small page of switches. A forked child reads zeros here. */
struct state {
  u64 magic;
  u32 version;
  u32 on;       /* hooks record; 0: they go straight to the original */
  u32 gen;      /* counts switches to on: a hook begun under another one keeps quiet */
  u32 lapsed;   /* the lease ran out and a hook noticed */
  u64 lease[2]; /* rdtsc until which hooks may record; written one after the other */
  u32 now;      /* the time as stanch last said it, in its own code of 20 bits */
  u32 exact;    /* every block is recorded: the filter says nothing */
  u64 books;    /* address of struct books */
  u64 filter_mask;
  u64 mean[MEANS]; /* bytes between samples; 0 never */
  u32 mean_now;    /* index into mean */
  u32 aims;
  u64 main_lo, main_hi; /* [stack]: the main thread's */
  u64 tcb_room;         /* bytes below fs:0 that surely belong to the thread's stack */
  u64 seed;
  u64 no_slot;    /* calls of threads that found no slot */
  u32 from_start; /* every block was seen: a release of another is invalid */
  u8 fds;         /* descriptors are recorded */
  u8 inputs;      /* what large requests follow upon is */
  u16 _from;
  u64 alloc_lo, alloc_hi; /* the allocator's code; what it gives back and maps is its own matter */
  u64 libc_lo, libc_hi;   /* libc's: what it maps for itself is left out */
  struct pool {
    u8 alloc, free;      /* what the function does */
    u8 size, count, ptr; /* which arguments, from 1 */
    u8 _[3];
  } pool[POOLS];
  struct {
    u64 min, max;
  } aim[AIMS];
};

/* Everything the fast paths touch. filter is last: only as much of it is
 * mapped as filter_mask reaches. */
struct near {
  struct state state;
  u8 _page[4096 - sizeof(struct state)];
  struct slot slot[SLOTS];
  u8 aim[AIM_CLASSES]; /* by (size + 7) / 16: not 0, look closer */
  u8 filter[FILTER_MAX];
};

/* A row of an unwind table; see internal/unwind/row.go, whose format it is. */
struct row {
  u32 pc;
  int32_t cfa_off;
  u8 cfa;
  u8 flags;
  int16_t rbp_off;
};

enum {
  CFA_NONE = 0,
  CFA_SP = 1,
  CFA_BP = 2,
  CFA_DEREF = 3,
  CFA_PLT = 4,
  CFA_SIGNAL = 5,
  CFA_FRAME = 6,
  CFA_OTHER = 7,
};
enum { ROW_OUTERMOST = 1, ROW_BP_AT_BP = 2, ROW_SIGNAL = 4 };
enum { BP_SAME = 0, BP_LOST = 1 };

/* An executable range. rows is 0 where nothing is known. */
struct module {
  u64 start, end;
  u64 base; /* address of pc 0 of the rows */
  u64 rows; /* address of the first struct row */
  u32 count;
  u32 _;
};

/* One stack, or one stack for sampled and one for exact records, or one for
 * each thread that has its own. Entries are handed out in order and complete
 * before the index tells of them; one that nobody came to use has no frames
 * and no counts.
 *
 * Exact: n is a count, and bytes are what n times size leaves to be said, modulo
 * 2^64. Sampled: size is 0, n a sum of weights in 1/WEIGHT_ONE, and bytes one
 * of weighted bytes. */
struct stack {
  u32 frames; /* index of the first frame in the arena */
  u8 n;       /* frames; 0 when there was no room */
  u8 flags;
  u16 shard; /* the one thread that writes acq and rel, without locking; 0 any */
  u64 size;  /* of the first block */
  u64 acq_n, acq_bytes;
  u64 rel_n, rel_bytes;
  u64 far_n, far_bytes; /* released by other threads */
};
enum { STACK_EXACT = 1, STACK_CUT = 2, STACK_POOL = 4, STACK_FD = 8, STACK_READY = 128 };

enum { STACK_UNKNOWN_FD = 2, STACKS_UNKNOWN = 3 };

/* A place of the stack index: the upper bits of the hash, and the entry. */
#define STACK_BITS 20

/* One held block, two words.
 *   key   address (47 bits; its lowest is set while the record is written),
 *         1 bit: of a pool, 16 lower bits of the time
 *   info  stack 20 bits, size 36 bits and one that says it counts pages,
 *         4 upper bits of the time, 3 bits: mean index, or REC_EXACT
 * A bucket is a cache line. */
struct record {
  u64 key;
  u64 info;
};
struct bucket {
  struct record rec[WAYS];
};
#define ADDRESS_BITS 47
#define KEY_ADDRESS ((1ull << ADDRESS_BITS) - 1)
#define KEY_POOL (1ull << ADDRESS_BITS)
#define KEY_MASK (KEY_ADDRESS | KEY_POOL)
#define KEY_TIME_SHIFT 48
#define REC_SIZE_SHIFT 20
#define REC_SIZE_BITS 36
#define REC_TIME_SHIFT 57
#define REC_MEAN_SHIFT 61
enum { REC_EXACT = 7 };

struct cached_row {
  u64 check; /* pc ^ row ^ salt */
  u64 row;
};

/* A walk that a thread made. What a walk finds follows from where it began, the
 * tables, and the words it read: when those are the same, so is the stack. */
struct note {
  u64 sp; /* 0: nothing noted */
  u64 bp, limit;
  u32 version;      /* of the tables, books.tables */
  u32 stack;        /* entry of the stack table */
  u32 reach;        /* bytes from sp to behind the last word */
  u16 first, words; /* of the notebook's words; a multiple of 4 */
  u8 flags;         /* of the stack */
  u8 uses_bp;       /* bp mattered */
  u8 _[6];
};

/* The walks of one thread. Its words are filled from the first to the last, and
 * then all is forgotten. */
struct notebook {
  u32 used; /* words */
  u32 turn; /* which of two notes goes next */
  u64 _[7];
  u8 guess[NOTES];    /* by where a call is from: its last note */
  u32 next[2][NOTES]; /* by what is known of a call: where the next return address is, from sp */
  struct note note[NOTES];
  struct noted {
    u64 value;
    u64 at; /* bytes from sp */
  } word[BOOK_WORDS];
};

/* A block that was given back, until another one's takes the place. */
struct freed {
  u64 key;
  u32 acquired, released; /* stacks */
  u64 size;
  u64 check;
};

/* Something that stanch is told as it happens. The ring is bounded: what stanch
 * does not read in time is written over. */
struct event {
  u64 seq; /* number of the event plus one; written last */
  u32 kind;
  u32 stack;
  u64 at;
  u64 size;
  u32 acquired, released; /* of a double release */
  u64 thread;             /* fs:0 */
  u64 more;
  u32 time;
  u32 _;
};
enum {
  EVENT_INVALID = 1, /* a release of at, which is not held and never was */
  EVENT_DOUBLE = 2,  /* of what was released before */
  EVENT_MAP = 3,     /* size bytes were mapped at at */
  EVENT_UNMAP = 4,   /* size bytes at at are about to be unmapped */
  EVENT_KEPT = 5,    /* event number more, an EVENT_UNMAP, came to nothing */
  EVENT_REMAP = 6,   /* size bytes at at are about to be moved or resized */
  EVENT_MOVED = 7,   /* they were, number more: now size bytes at at; at 0: they were not */
  EVENT_BRK = 8,     /* the break is at at */
  EVENT_SBRK = 9,    /* the break was at at and has moved by size */
  EVENT_BEGIN = 10,  /* a thread is about to be created */
  EVENT_THREAD = 11, /* it was, number more: pthread_t at; size 1: nobody will join it */
  EVENT_JOIN = 12,   /* pthread_t at is joined or detached */
};

/* One descriptor, one word, by its number; 0: nothing is known.
 *   stack 20 bits, time 20 bits, 9 bits: the system call that opened it, FD_OPEN,
 *   2 bits: how the one before went, or this one if it is not open; the rest
 *   tells it from others of that number
 * A number is not open from before its close begins, and open after the call
 * that opened it has returned: so it never has two owners. */
#define FD_TIME_SHIFT 20
#define FD_CALL_SHIFT 40
#define FD_OPEN_SHIFT 49
#define FD_OPEN (1ull << FD_OPEN_SHIFT)
#define FD_HOW_SHIFT 50
#define FD_HOW (3ull << FD_HOW_SHIFT)
#define FD_TURN_SHIFT 52
enum { FD_CLOSED = 1, FD_CLOSED_RANGE = 2, FD_REPLACED = 3 };

/* What a system call does to descriptors. */
struct deed {
  u8 does; /* DOES_ */
  u8 arg;  /* which argument, from 0, that is about */
  u8 when; /* which of books.whens must hold, from 1; 0 none */
  u8 _;
};
struct when {
  u32 arg, n;
  u32 value[CALL_VALUES]; /* its lower half is one of these */
};
enum {
  DOES_NOTHING = 0,
  DOES_RETURN = 1,
  DOES_PAIR = 2,
  DOES_REPLACE = 3,
  DOES_CLOSE = 4,
  DOES_CLOSE_RANGE = 5,
  DOES_RECEIVE = 6,
  DOES_RECEIVE_ALL = 7,
  DOES_BEAR = 8, /* clone(flags), clone3(struct clone_args *) */
  DOES_LEND = 9, /* vfork: the child runs in this memory */
};

/* A request for INPUT_SIZE bytes or more, and what its thread read from last. */
struct input {
  u64 turn; /* counts; odd while it is written */
  u64 size;
  u64 from; /* of what call: tells two stacks apart */
  u32 stack;
  u32 fd;
  u32 time;
  u32 _;
};

/* What the code of a site pushes of itself. Above it are the 128 bytes below the
 * stack pointer, which a function that calls nothing may use. */
struct site {
  u64 rbp, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
  u64 back;
  u64 info; /* SITE_ */
  u8 red_zone[128];
};
#define SITE_CALL_MASK 511 /* the system call, or SITE_ANY: the one in rax before it */
#define SITE_ANY 511
#define SITE_AFTER 0x200 /* the call was made; else it is about to be */
#define SITE_READ 0x400  /* bytes come from the descriptor in rdi, and nothing else happens */
#define SITE_READS 0x800 /* they do, and more happens */
#define SITE_CFA_SHIFT 12
#define SITE_CFA_BITS 10 /* words from the stack pointer to behind the return address; 0 unknown */
#define SITE_BP_SHIFT 22
#define SITE_BP_BITS 9 /* words from there down to the caller's rbp; 0: it is in rbp */

/* The first bytes of the data range. Addresses are absolute. */
struct books {
  u64 magic;
  u32 version;
  u32 gen;
  u64 size;
  u64 buckets; /* levels of struct bucket, LEVEL0 << 0, LEVEL0 << 1, ... */
  u64 regions; /* u8[1 << REGION_BITS]: in which level the blocks of some addresses are */
  u32 level;   /* the last one in use */
  u32 level_max;
  u32 current; /* the one that blocks are put into */
  u32 _level;
  u64 stacks; /* struct stack[stacks_max]; the first STACKS_UNKNOWN are "unknown": sampled, exact, of descriptors */
  u64 stacks_max;
  u64 stacks_used; /* grows by itself; may run past stacks_max */
  u64 index[2];    /* groups of the stack index: u64[GROUP] each */
  u64 index_mask[2];
  u64 frames; /* u64[frames_max] */
  u64 frames_max;
  u64 frames_used; /* grows by itself; may run past frames_max */
  u64 scratch;     /* u64[SLOTS][MAX_FRAMES] */
  u64 cache;       /* struct cached_row[ROW_CACHE] */
  u64 module[2];   /* two struct module[MODULES], one in use */
  u32 modules[2];
  u32 module_now;
  u32 epoch; /* changes when code was unmapped: old addresses may mean something else */
  u32 max_frames;
  u32 tables; /* counts changes of the modules and of epoch */
  u64 notes;  /* struct notebook[NOTEBOOKS] */
  u32 notebooks_used;
  u32 shards_used;
  u64 freed;       /* struct freed[FREED] */
  u64 events;      /* struct event[EVENTS] */
  u64 events_head; /* number of the next */
  u32 distrust;    /* releases were missed: whoever puts a block looks at all levels for an old record of its address */
  u32 _;
  u64 lost_live;   /* blocks not recorded: no room in the live table */
  u64 lost_stacks; /* blocks recorded without a stack: no room for it */
  u64 cut;         /* stacks whose outermost frames are missing */
  u64 stale;       /* records replaced: a release was not seen */
  u64 fds;         /* words by number; see FD_OPEN */
  u64 fds_max;
  u64 fds_end;  /* behind the highest number that was recorded */
  u64 fds_open; /* behind the highest one that stanch has found open */
  u64 fds_lost; /* descriptors not recorded: numbers too large, threads without a slot */
  u64 calls;    /* struct deed[CALLS] */
  u64 whens;    /* struct when[CALL_WHENS] */
  u64 inputs;   /* struct input[INPUTS] */
};

/* What a slow path keeps on the stack while the original runs. Above it is the
 * return address of the hooked function. Its size is 8 modulo 16. */
struct frame {
  u64 rdi, rsi, rdx, rcx, r8, r9, r10, r11; /* as the hook was entered */
  u32 info;                                 /* HOOK_INFO */
  u32 watch;
  u64 rbp;
  u64 result;
  u64 size;
  u64 slot;
  u32 gen;
  u32 mean;
  u64 cycles;
  u64 old_key; /* realloc: the record taken out, without KEY_ADDRESS's lowest bit */
  u64 old_info;
  u64 was_busy; /* what this hook interrupted: a signal handler's */
  u64 rax;      /* as the hook was entered: of a function with variable arguments */
};

/* info: hook number, class, and how the slow path was reached. */
#define INFO_CLASS_SHIFT 8
#define INFO_COUNTED 0x10000 /* the fast path has counted the call and its bytes */
#define INFO_WORDS 0x40000   /* the caller's stack may hold arguments, which the original is to find */
#define INFO_POOL_SHIFT 24   /* which struct pool */
#define INFO_FRAMED 0x20000  /* stay around the original, so that what it calls is not counted again */

enum {
  CLASS_ALLOC = 1,    /* (size, ...) */
  CLASS_CALLOC = 2,   /* (n, size) */
  CLASS_ALIGN = 3,    /* (alignment, size) */
  CLASS_REALLOC = 4,  /* (p, size, ...) */
  CLASS_REALLOCN = 5, /* (p, n, size) */
  CLASS_POSIX = 6,    /* (void **, alignment, size) */
  CLASS_FREE = 7,     /* (p, ...) */
  CLASS_NEW = 8,      /* (size, ...), throws: watched through its nothrow form */
  CLASS_MMAP = 9,     /* not of the allocator, as are all that follow */
  CLASS_MUNMAP = 10,
  CLASS_MREMAP = 11,
  CLASS_BRK = 12,
  CLASS_SBRK = 13,
  CLASS_THREAD = 14,
  CLASS_JOIN = 15,
  CLASS_POOL = 16, /* as struct pool says */
};

#endif
