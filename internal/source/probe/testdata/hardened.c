/* Hardens itself as its argument says, then answers "check" with "ok":
 *   mdwe    no memory becomes executable that was writable (systemd's
 *           MemoryDenyWriteExecute: a seccomp filter, and prctl PR_SET_MDWE
 *           where the kernel has it)
 *   kill    a system call that is not on a short list is fatal: madvise is not
 *   notsc   reading the time stamp counter is fatal */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR offsetof(struct seccomp_data, nr)
#define ARG(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define RET(what) BPF_STMT(BPF_RET | BPF_K, what)
#define IF(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)

static void install(struct sock_filter *f, size_t n) {
  struct sock_fprog prog = {(unsigned short)n, f};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) {
    perror("seccomp");
    exit(70);
  }
}

void *volatile sink;

static void mdwe(void) {
  struct sock_filter f[] = {
      LOAD(NR),
      IF(SYS_mmap, 0, 4),
      LOAD(ARG(2)),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC),
      IF(PROT_WRITE | PROT_EXEC, 0, 5),
      RET(SECCOMP_RET_ERRNO | 1),
      IF(SYS_mprotect, 0, 3),
      LOAD(ARG(2)),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
      RET(SECCOMP_RET_ERRNO | 1),
      RET(SECCOMP_RET_ALLOW),
  };
  install(f, sizeof f / sizeof *f);
  prctl(65 /* PR_SET_MDWE, Linux 6.3 */, 1, 0, 0, 0);
}

static void lethal(void) {
  static const int list[] = {SYS_read,       SYS_write,           SYS_mmap,         SYS_munmap, SYS_brk,
                             SYS_exit_group, SYS_restart_syscall, SYS_rt_sigreturn, SYS_futex};
  struct sock_filter f[40] = {LOAD(NR)};
  size_t n = 1, calls = sizeof list / sizeof *list;
  for (size_t i = 0; i < calls; i++) f[n++] = (struct sock_filter)IF((unsigned)list[i], (unsigned char)(calls - i), 0);
  f[n++] = (struct sock_filter)RET(SECCOMP_RET_KILL_PROCESS);
  f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
  install(f, n);
}

int main(int argc, char **argv) {
  char line[100];
  if (argc != 2) return 2;
  setvbuf(stdin, 0, _IONBF, 0);
  static char buffer[1000];
  sink = malloc(1); /* whatever malloc asks once */
  setvbuf(stdout, buffer, _IOLBF, sizeof buffer);
  if (!strcmp(argv[1], "mdwe")) mdwe();
  if (!strcmp(argv[1], "kill")) lethal();
  if (!strcmp(argv[1], "notsc")) prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    if (!strncmp(line, "quit", 4)) return 0;
    for (size_t i = 0; i < 1000; i++) {
      sink = malloc(400);
      if (i % 10) free(sink);
    }
    puts("ok");
  }
  return 0;
}
