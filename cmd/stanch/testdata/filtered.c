/* A program that sandboxes itself: after two lost blocks any mmap or munmap
 * kills it; then it loses three more, and its child four. */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile nowhere;

__attribute__((noinline)) static void lose(int n) {
  for (int i = 0; i < n; i++) {
    nowhere = malloc(77);
    nowhere = NULL;
  }
}

int main(void) {
  lose(2);
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 90;
  lose(3);
  pid_t child = fork();
  if (child == 0) {
    lose(4);
    exit(0);
  }
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) return 91;
  return 0;
}
