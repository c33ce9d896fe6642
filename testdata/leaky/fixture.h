/* What the test programs share: the line protocol on stdin and stdout, the log
 * of what became of each block, and the means to forget a pointer.
 *
 * A program prints "ready", then answers each line it reads:
 *   leak N   keep N   free N   ->  "ok"
 *   list     ->  "list mask=0x...", a line "FATE 0xADDRESS SIZE" per block in
 *                the order of events (the last fate of an address holds; the
 *                address is xor-ed with the mask), "end"
 *   quit     ->  exit 0; so does the end of stdin
 *
 * Nothing here allocates from the heap, and nothing keeps an address as it is:
 * neither the log, nor the output, nor (as far as C can say) old stack frames
 * and registers. Compiled with -DCLEAN, a program does the same work and frees
 * what it would have lost. */
#ifndef FIXTURE_H
#define FIXTURE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone, unused))

#ifndef FIXTURE_LOG
#define FIXTURE_LOG (1u << 20) /* entries */
#endif
#ifndef FIXTURE_KEPT
#define FIXTURE_KEPT (1u << 17) /* blocks that keep_blocks can hold */
#endif

/* Flips bits in the low 48 too, so that no tagged pointer is left. */
static const uint64_t fixture_mask = 0x5aa53c96f00d5a50u;

enum fate { LOST, INDIRECT, KEPT, FREED };

struct fixture_entry {
  uint64_t addr; /* xor-ed */
  uint32_t size;
  uint32_t fate;
};

static struct fixture_entry *fixture_log;
static uint32_t fixture_logged;
/* volatile: in a program that never frees them, nothing else reads it. */
static void *volatile fixture_kept[FIXTURE_KEPT];
static uint32_t fixture_kept_sizes[FIXTURE_KEPT];
static uint32_t fixture_nkept;

static inline void fixture_die(const char *what) {
  dprintf(2, "%s: %s\n", what, strerror(errno));
  _exit(70);
}

/* Notes the fate of a block. Threads may call it at the same time. */
static inline void note(enum fate fate, void *p, size_t size) {
  uint32_t i = __atomic_fetch_add(&fixture_logged, 1, __ATOMIC_RELAXED);
  if (i >= FIXTURE_LOG) {
    errno = ENOSPC;
    fixture_die("fixture log");
  }
  fixture_log[i].addr = (uint64_t)(uintptr_t)p ^ fixture_mask;
  fixture_log[i].size = (uint32_t)size;
  fixture_log[i].fate = (uint32_t)fate;
}

/* Fills a block with bytes that are no pointer, those behind the requested size
 * too: what lay there before may still point somewhere. */
static inline void fill(void *p, size_t size) {
  if (!p) fixture_die("allocate");
  size_t usable = malloc_usable_size(p);
  memset(p, 0xa5, usable > size ? usable : size);
}

/* Ends a block's use: loses it, or frees it in the clean twin. The caller
 * forgets its pointers. */
static inline void lose(void *p, size_t size) {
#ifdef CLEAN
  note(FREED, p, size);
  free(p);
#else
  note(LOST, p, size);
#endif
}

/* Overwrites the stack below the caller and the registers a call may clobber,
 * so that pointers left by what ran before are gone. */
static NOINLINE void scrub(void) {
  volatile char old[48 << 10];
  for (size_t i = 0; i < sizeof old; i++) old[i] = 0;
  if (__builtin_cpu_supports("avx")) __asm__ volatile("vzeroall");
  __asm__ volatile("xorl %%eax, %%eax\n\txorl %%ecx, %%ecx\n\txorl %%edx, %%edx\n\t"
                   "xorl %%esi, %%esi\n\txorl %%edi, %%edi\n\txorl %%r8d, %%r8d\n\t"
                   "xorl %%r9d, %%r9d\n\txorl %%r10d, %%r10d\n\txorl %%r11d, %%r11d\n\t"
                   "pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\tpxor %%xmm2, %%xmm2\n\t"
                   "pxor %%xmm3, %%xmm3\n\tpxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\t"
                   "pxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\tpxor %%xmm8, %%xmm8\n\t"
                   "pxor %%xmm9, %%xmm9\n\tpxor %%xmm10, %%xmm10\n\tpxor %%xmm11, %%xmm11\n\t"
                   "pxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\tpxor %%xmm14, %%xmm14\n\t"
                   "pxor %%xmm15, %%xmm15" ::
                       : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                         "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                         "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

/* Remembers a block where a scan can see it. */
static inline void hold(void *p, size_t size) {
  if (fixture_nkept == FIXTURE_KEPT) {
    errno = ENOSPC;
    fixture_die("kept blocks");
  }
  note(KEPT, p, size);
  fixture_kept[fixture_nkept] = p;
  fixture_kept_sizes[fixture_nkept++] = (uint32_t)size;
}

static NOINLINE void keep_blocks(long n, size_t size) {
  while (n-- > 0) {
    void *p = malloc(size);
    fill(p, size);
    hold(p, size);
  }
}

/* Frees the n blocks that were held last. */
static NOINLINE void free_blocks(long n) {
  while (n-- > 0 && fixture_nkept > 0) {
    void *p = fixture_kept[--fixture_nkept];
    fixture_kept[fixture_nkept] = NULL;
    note(FREED, p, fixture_kept_sizes[fixture_nkept]);
    free(p);
  }
}

static inline void say(const char *line) {
  size_t n = strlen(line);
  while (n > 0) {
    ssize_t w = write(1, line, n);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) fixture_die("write to stdout");
    line += w;
    n -= (size_t)w;
  }
}

static inline void fixture_list(void) {
  static const char *const fates[] = {"lost", "indirect", "kept", "freed"};
  static char out[1 << 16];
  size_t n = (size_t)snprintf(out, sizeof out, "list mask=0x%lx\n", (unsigned long)fixture_mask);
  for (uint32_t i = 0; i < fixture_logged; i++) {
    if (n > sizeof out - 100) {
      say(out);
      n = 0;
    }
    n += (size_t)snprintf(out + n, sizeof out - n, "%s 0x%lx %u\n", fates[fixture_log[i].fate],
                          (unsigned long)fixture_log[i].addr, fixture_log[i].size);
  }
  snprintf(out + n, sizeof out - n, "end\n");
  say(out);
}

/* Reads one line from stdin without its newline; 0 at the end of stdin. */
static inline int fixture_line(char *line, size_t size) {
  size_t n = 0;
  for (;;) {
    char c;
    ssize_t r = read(0, &c, 1);
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) return 0;
    if (c == '\n') {
      line[n] = 0;
      return 1;
    }
    if (n < size - 1) line[n++] = c;
  }
}

/* What a program does at each command. A null leak, keep or release does
 * nothing; other gets every line that is not one of the common commands and
 * answers it itself. */
struct program {
  void (*leak)(long n);
  void (*keep)(long n);
  void (*release)(long n);
  void (*other)(const char *line);
};

static inline void fixture_init(void) {
  fixture_log = (struct fixture_entry *)mmap(NULL, FIXTURE_LOG * sizeof *fixture_log, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (fixture_log == MAP_FAILED) fixture_die("mmap");
}

static NOINLINE void fixture_obey(void (*what)(long), long n) {
  if (what) what(n);
  scrub();
}

/* Prints "ready" and obeys until it is told to quit. */
static inline int serve(const struct program *program) {
  static char line[256];
  scrub();
  say("ready\n");
  while (fixture_line(line, sizeof line)) {
    long n = 1;
    if (sscanf(line, "leak %ld", &n) == 1) {
      fixture_obey(program->leak, n);
    } else if (sscanf(line, "keep %ld", &n) == 1) {
      fixture_obey(program->keep, n);
    } else if (sscanf(line, "free %ld", &n) == 1) {
      fixture_obey(program->release, n);
    } else if (strcmp(line, "list") == 0) {
      fixture_list();
      continue;
    } else if (strcmp(line, "quit") == 0) {
      break;
    } else {
      if (program->other) {
        program->other(line);
        scrub();
      } else {
        say("violation: unknown command\n");
      }
      continue;
    }
    say("ok\n");
  }
  return 0;
}

#endif
