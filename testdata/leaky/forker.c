/* A parent that forks all the time while a thread allocates. Each child
 * allocates, frees, checks its blocks and exits; every fourth one is a vfork
 * and an exec. "check" answers "ok N children" or the first violation. */
#include "fixture.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

static volatile int stop;
static const char *volatile violation;
static long children, failed_forks;

static NOINLINE int work(unsigned seed) {
  unsigned char *blocks[64];
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < 64; i++) {
      size_t size = 1 + (seed + (unsigned)(i * 37 + round)) % 900;
      blocks[i] = (unsigned char *)malloc(size);
      if (!blocks[i]) return 1;
      memset(blocks[i], i, size);
    }
    for (int i = 0; i < 64; i++) {
      if (blocks[i][0] != i) return 2;
      blocks[i] = (unsigned char *)realloc(blocks[i], 1000);
      if (!blocks[i] || blocks[i][0] != i) return 3;
    }
    for (int i = 0; i < 64; i++) free(blocks[i]);
  }
  return 0;
}

static void *allocate(void *arg) {
  struct timespec rest = {0, 500000};
  for (unsigned i = 0; !stop; i++) {
    if (work(i)) violation = "the parent's blocks changed";
    nanosleep(&rest, NULL);
  }
  return arg;
}

static NOINLINE void one_child(long i) {
  int status;
  pid_t pid;
  if (i % 4 == 3) {
    pid = vfork();
    if (pid == 0) {
      execl("/bin/true", "true", (char *)NULL);
      _exit(80);
    }
  } else {
    pid = fork();
    if (pid == 0) _exit(work((unsigned)i));
  }
  if (pid < 0) {
    failed_forks++;
    return;
  }
  pid_t got;
  while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {
  }
  if (got != pid) violation = "waitpid returned another child";
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) violation = "a child failed";
  children++;
}

static void *fork_always(void *arg) {
  struct timespec rest = {0, 5000000};
  for (long i = 0; !stop; i++) {
    one_child(i);
    nanosleep(&rest, NULL);
  }
  return arg;
}

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(176); /* want memory 176 */
    fill(p, 176);
    lose(p, 176);
  }
}

static void keep(long n) { keep_blocks(n, 176); }

static void other(const char *line) {
  char answer[200];
  if (strcmp(line, "check") != 0)
    snprintf(answer, sizeof answer, "violation: unknown command\n");
  else if (violation)
    snprintf(answer, sizeof answer, "violation: %s\n", violation);
  else
    snprintf(answer, sizeof answer, "ok %ld children, %ld forks refused\n", children, failed_forks);
  say(answer);
}

int main(void) {
  fixture_init();
  pthread_t a, f;
  if (pthread_create(&a, NULL, allocate, NULL) || pthread_create(&f, NULL, fork_always, NULL)) fixture_die("thread");
  static const struct program p = {leak, keep, free_blocks, other};
  int status = serve(&p);
  stop = 1;
  pthread_join(f, NULL);
  pthread_join(a, NULL);
  return status;
}
