/* kernel.h: the little of the kernel that the programs use. Structs hold the
 * fields that are read, in any order: the loader finds where they are in the
 * running kernel (CO-RE). Helpers have the numbers of linux/bpf.h. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef _Bool bool;
enum { false, true };

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
/* What a map is, as the loader reads it from the object's BTF. */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, type) type *name
#define APART static __attribute__((noinline))
/* Keeps the compiler from reasoning further about a number than the verifier. */
#define OPAQUE(x) __asm__ volatile("" : "+r"(x))
#define KERNEL __attribute__((preserve_access_index))
#define READ(to, from) probe_read_kernel(&(to), sizeof(to), &(from))

enum { HASH = 1, ARRAY = 2, CGROUP_ARRAY = 8, LRU_HASH = 9, RINGBUF = 27, TASK_STORAGE = 29 };
enum { NO_PREALLOC = 1 };
enum { ANY = 0, NEW_ONLY = 1, STORAGE_CREATE = 1 };
enum { RING_QUIET = 1, RING_WAKE = 2 };

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const pid_tgid)(void) = (void *)14;
static long (*const under_cgroup)(void *map, u32 index) = (void *)37;
static long (*const probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*const probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static u64 (*const boot_ns)(void) = (void *)125;
static long (*const seq_write)(void *seq, const void *data, u32 len) = (void *)127;
static void *(*const ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const ring_submit)(void *data, u64 flags) = (void *)132;
static u64 (*const ring_query)(void *ring, u64 flags) = (void *)134;
static void *(*const storage_get)(void *map, void *task, void *value, u64 flags) = (void *)156;
static void *(*const current_task)(void) = (void *)158;
static void *(*const task_regs)(void *task) = (void *)175;

/* The user's registers as the kernel saves them on x86-64, asm/ptrace.h: the
 * first words of struct user_regs_struct too. */
struct regs {
  u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

struct fdtable {
  u32 max_fds;
  u64 *open_fds;
} KERNEL;

struct files_struct {
  struct fdtable *fdt;
} KERNEL;

/* Indexed by a variable, so it must have the kernel's size. */
struct upid {
  s32 nr;
  void *ns;
} KERNEL;

struct pid {
  u32 level;
  struct upid numbers[1];
} KERNEL;

struct atomic {
  s32 counter;
} KERNEL;

struct signal_struct {
  struct atomic live;
} KERNEL;

struct task_struct {
  s32 pid;
  s32 tgid;
  u64 start_boottime;
  struct task_struct *group_leader;
  struct task_struct *real_parent;
  struct pid *thread_pid;
  struct files_struct *files;
  struct signal_struct *signal;
} KERNEL;

struct bpf_iter_meta {
  void *seq;
} KERNEL;

struct bpf_iter__task {
  struct bpf_iter_meta *meta;
  struct task_struct *task;
} KERNEL;
