/* A daemon in the sandboxes that systemd and others make. Two threads allocate,
 * check and free blocks all the time; "leak N" loses blocks of 296 bytes. "check"
 * answers "ok" once both have moved on. Usage: hardened MODE
 *
 *   service  NoNewPrivileges, SystemCallFilter=@system-service (kill the
 *            process), MemoryDenyWriteExecute by a second filter (EPERM)
 *   errno    the same, with EPERM instead of the kill
 *   narrow   only the calls that the program itself makes from then on (kill)
 *   quiet    the same, with EPERM
 *   mdwe     prctl(PR_SET_MDWE), Linux 6.3; says "unsupported" without it
 *   strict   seccomp's strict mode; one thread, nothing is allocated */
enum { MAX_THREADS = 2, LIVE = 64, LOST_SIZE = 296 };

#include "workers.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

/* Each block holds its own number many times over. */
static void *work(void *arg) {
  long me = (long)(intptr_t)arg;
  uint64_t *live[LIVE] = {NULL};
  unsigned seed = 17u + (unsigned)me;
  for (uint64_t n = 0;; n++) {
    uint64_t **at = &live[rand_r(&seed) % LIVE];
    if (*at) {
      size_t words = (*at)[0];
      for (size_t i = 2; i < words; i++)
        if ((*at)[i] != (*at)[1]) broken = "a block has changed";
      free(*at);
    }
    size_t words = 4 + (size_t)rand_r(&seed) % 200;
    *at = malloc(words * sizeof **at);
    if (!*at) fixture_die("malloc");
    (*at)[0] = words;
    for (size_t i = 1; i < words; i++) (*at)[i] = n;
    if (n % 64 == 0) {
      struct timespec t = {0, 2000000};
      nanosleep(&t, NULL);
    }
    atomic_fetch_add(&rounds[me], 1);
  }
  return NULL;
}

#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ARCH \
  LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0), \
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), LOAD(nr)

/* What a program like this one needs to go on. */
#define OWN_CALLS \
  ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_futex), ALLOW(SYS_nanosleep), ALLOW(SYS_clock_nanosleep), \
      ALLOW(SYS_restart_syscall), ALLOW(SYS_mmap), ALLOW(SYS_munmap), ALLOW(SYS_mprotect), ALLOW(SYS_madvise), \
      ALLOW(SYS_brk), ALLOW(SYS_exit), ALLOW(SYS_exit_group), ALLOW(SYS_rt_sigreturn)

/* From `systemd-analyze syscall-filter @system-service`, the part that has a
 * number on x86-64 and matters to a server. ptrace, process_vm_writev,
 * userfaultfd, bpf, io_uring_setup, mount and their like are not in it. */
#define SERVICE_CALLS \
  OWN_CALLS, ALLOW(SYS_rt_sigaction), ALLOW(SYS_rt_sigprocmask), ALLOW(SYS_rt_sigpending), ALLOW(SYS_rt_sigsuspend), \
      ALLOW(SYS_rt_sigtimedwait), ALLOW(SYS_sigaltstack), ALLOW(SYS_kill), ALLOW(SYS_tgkill), ALLOW(SYS_clone), \
      ALLOW(SYS_clone3), ALLOW(SYS_fork), ALLOW(SYS_vfork), ALLOW(SYS_execve), ALLOW(SYS_wait4), ALLOW(SYS_waitid), \
      ALLOW(SYS_getpid), ALLOW(SYS_getppid), ALLOW(SYS_gettid), ALLOW(SYS_getuid), ALLOW(SYS_geteuid), ALLOW(SYS_getgid), \
      ALLOW(SYS_getegid), ALLOW(SYS_set_robust_list), ALLOW(SYS_get_robust_list), ALLOW(SYS_rseq), ALLOW(SYS_set_tid_address), \
      ALLOW(SYS_arch_prctl), ALLOW(SYS_prctl), ALLOW(SYS_prlimit64), ALLOW(SYS_getrlimit), ALLOW(SYS_getrusage), \
      ALLOW(SYS_sched_yield), ALLOW(SYS_sched_getaffinity), ALLOW(SYS_sched_setaffinity), ALLOW(SYS_membarrier), \
      ALLOW(SYS_clock_gettime), ALLOW(SYS_gettimeofday), ALLOW(SYS_timer_create), ALLOW(SYS_timer_settime), \
      ALLOW(SYS_timerfd_create), ALLOW(SYS_timerfd_settime), ALLOW(SYS_eventfd2), ALLOW(SYS_signalfd4), \
      ALLOW(SYS_epoll_create1), ALLOW(SYS_epoll_ctl), ALLOW(SYS_epoll_wait), ALLOW(SYS_epoll_pwait), ALLOW(SYS_poll), \
      ALLOW(SYS_ppoll), ALLOW(SYS_select), ALLOW(SYS_pselect6), ALLOW(SYS_open), ALLOW(SYS_openat), ALLOW(SYS_close), \
      ALLOW(SYS_readv), ALLOW(SYS_writev), ALLOW(SYS_pread64), ALLOW(SYS_pwrite64), ALLOW(SYS_lseek), ALLOW(SYS_fstat), \
      ALLOW(SYS_newfstatat), ALLOW(SYS_statx), ALLOW(SYS_access), ALLOW(SYS_readlink), ALLOW(SYS_getdents64), ALLOW(SYS_dup), \
      ALLOW(SYS_dup2), ALLOW(SYS_dup3), ALLOW(SYS_pipe2), ALLOW(SYS_fcntl), ALLOW(SYS_ioctl), ALLOW(SYS_flock), \
      ALLOW(SYS_socket), ALLOW(SYS_socketpair), ALLOW(SYS_bind), ALLOW(SYS_listen), ALLOW(SYS_accept4), ALLOW(SYS_connect), \
      ALLOW(SYS_sendto), ALLOW(SYS_recvfrom), ALLOW(SYS_sendmsg), ALLOW(SYS_recvmsg), ALLOW(SYS_shutdown), \
      ALLOW(SYS_getsockname), ALLOW(SYS_getpeername), ALLOW(SYS_setsockopt), ALLOW(SYS_getsockopt), ALLOW(SYS_mremap), \
      ALLOW(SYS_mlock), ALLOW(SYS_munlock), ALLOW(SYS_msync), ALLOW(SYS_mincore), ALLOW(SYS_getrandom), ALLOW(SYS_umask), \
      ALLOW(SYS_uname), ALLOW(SYS_sysinfo), ALLOW(SYS_times), ALLOW(SYS_shmat), ALLOW(SYS_shmget), ALLOW(SYS_shmdt)

#define LENGTH(list) ((unsigned short)(sizeof(list) / sizeof *(list)))

static void install(struct sock_filter *list, unsigned short n) {
  struct sock_fprog program = {n, list};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program)) fixture_die("seccomp");
}

/* As systemd writes it: a mapping must not be writable and executable at once,
 * none may become executable, no shared memory either. */
static void deny_write_execute(void) {
  struct sock_filter list[] = {
      ARCH,
      /* mmap: prot is the third argument */
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4),
      LOAD(args[2]),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_WRITE | PROT_EXEC, 9, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pkey_mprotect, 0, 3),
      LOAD(args[2]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 4, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_shmat, 0, 3),
      LOAD(args[2]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0100000 /* SHM_EXEC */, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  install(list, LENGTH(list));
}

static void allow_service(unsigned otherwise) {
  struct sock_filter list[] = {ARCH, SERVICE_CALLS, BPF_STMT(BPF_RET | BPF_K, otherwise)};
  install(list, LENGTH(list));
}

static void allow_own(unsigned otherwise) {
  struct sock_filter list[] = {ARCH, OWN_CALLS, BPF_STMT(BPF_RET | BPF_K, otherwise)};
  install(list, LENGTH(list));
}

/* Where exit_group, nanosleep and brk are deadly. */
static void be_strict(void) {
  static char line[64];
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) fixture_die("strict mode");
  say("ready\n");
  while (fixture_line(line, sizeof line) && strcmp(line, "quit") != 0) say("ok\n");
  syscall(SYS_exit, 0);
}

/* The filters must do what they are for. */
static void prove(void) {
  void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p != MAP_FAILED) broken = "memory can be writable and executable";
  p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0) broken = "memory can be made executable";
  munmap(p, 4096);
}

int main(int argc, char **argv) {
  static const struct program p = {leak, NULL, NULL, other};
  const char *mode = argc == 2 ? argv[1] : "";
  fixture_init();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fixture_die("no_new_privs");
  if (strcmp(mode, "strict") == 0) be_strict();
  if (strcmp(mode, "mdwe") == 0 && prctl(PR_SET_MDWE, 1, 0, 0, 0)) {
    say("unsupported\n");
    return 0;
  }
  nthreads = MAX_THREADS;
  for (long i = 0; i < nthreads; i++) {
    pthread_t t;
    if (pthread_create(&t, NULL, work, (void *)(intptr_t)i)) fixture_die("thread");
  }
  for (long i = 0; i < nthreads; i++)
    while (rounds[i] == 0) sched_yield();
  if (strcmp(mode, "service") == 0 || strcmp(mode, "errno") == 0) {
    deny_write_execute();
    allow_service(strcmp(mode, "errno") == 0 ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS);
    prove();
  } else if (strcmp(mode, "narrow") == 0 || strcmp(mode, "quiet") == 0) {
    allow_own(strcmp(mode, "quiet") == 0 ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS);
  } else if (strcmp(mode, "mdwe") == 0) {
    prove();
  } else {
    return 2;
  }
  return serve(&p);
}
