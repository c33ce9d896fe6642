/* Maps, unmaps and moves memory, and makes threads; each command says what it
 * leaves held, as "ok KIND ADDRESS SIZE ..." */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define KB ((size_t)1 << 10)

NOINLINE static char *map(size_t n) {
  char *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) abort();
  return p;
}

static void *nothing(void *arg) { return arg; }
static void *detaches(void *arg) {
  pthread_detach(pthread_self());
  return arg;
}

NOINLINE static pthread_t thread(void *(*f)(void *), pthread_attr_t *how) {
  pthread_t t;
  if (pthread_create(&t, how, f, 0)) abort();
  return t;
}

NOINLINE static void *churn(void *arg) {
  for (int i = 0; i < 200; i++) {
    char *p = map(64 * KB), *q;
    munmap(p + 16 * KB, 16 * KB);
    q = mremap(p + 32 * KB, 32 * KB, 256 * KB, MREMAP_MAYMOVE);
    munmap(q, 256 * KB);
    munmap(p, 16 * KB);
  }
  return arg;
}

static char answer[4096];
static void holds(const char *kind, const void *p, size_t n) {
  sprintf(answer + strlen(answer), " %s %lu %zu", kind, (unsigned long)p, n);
}

int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    strcpy(answer, "ok");
    if (!strncmp(line, "plain", 5)) {
      char *p = map(100 * KB), *q = map(5000);
      munmap(q, 5000);
      holds("mapping", p, 100 * KB);
    } else if (!strncmp(line, "hole", 4)) {
      char *p = map(64 * KB);
      munmap(p + 16 * KB, 8 * KB);
      holds("mapping", p, 16 * KB);
      holds("mapping", p + 24 * KB, 40 * KB);
    } else if (!strncmp(line, "fixed", 5)) {
      char *p = map(64 * KB);
      mmap(p + 32 * KB, 16 * KB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      holds("mapping", p, 32 * KB);
      holds("mapping", p + 32 * KB, 16 * KB);
      holds("mapping", p + 48 * KB, 16 * KB);
    } else if (!strncmp(line, "move", 4)) {
      char *p = map(64 * KB), *to = map(1024 * KB), *q;
      q = mremap(p, 64 * KB, 128 * KB, MREMAP_MAYMOVE | MREMAP_FIXED, to + 512 * KB);
      if (q != to + 512 * KB) abort();
      munmap(to, 512 * KB);
      munmap(to + 640 * KB, 384 * KB);
      holds("mapping", q, 128 * KB);
    } else if (!strncmp(line, "shrink", 6)) {
      char *p = map(64 * KB);
      if (mremap(p, 64 * KB, 12 * KB, 0) != p) abort();
      holds("mapping", p, 12 * KB);
    } else if (!strncmp(line, "fail", 4)) {
      char *p = map(64 * KB);
      if (munmap(p + 1, 64 * KB) == 0) abort();
      if (mremap(p, 64 * KB, (size_t)1 << 50, 0) != MAP_FAILED) abort();
      holds("mapping", p, 64 * KB);
    } else if (!strncmp(line, "break", 5)) {
      char *p = sbrk(32 * KB);
      sbrk(-(long)(8 * KB));
      holds("mapping", p, 24 * KB);
    } else if (!strncmp(line, "blocks", 6)) {
      /* The allocator maps for these; libc for the thread's stack. */
      for (int i = 0; i < 20; i++) free(malloc((size_t)1 << (10 + i % 16)));
      pthread_join(thread(nothing, 0), 0);
    } else if (!strncmp(line, "threads", 7)) {
      pthread_attr_t how;
      pthread_attr_init(&how);
      pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
      thread(nothing, &how);
      pthread_detach(thread(nothing, 0));
      thread(detaches, 0);
      pthread_join(thread(nothing, 0), 0);
      usleep(100000);
      holds("thread", (void *)thread(nothing, 0), 0);
    } else if (!strncmp(line, "churn", 5)) {
      pthread_t t[4];
      for (int i = 0; i < 4; i++)
        if (pthread_create(&t[i], 0, churn, 0)) abort();
      for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    } else if (!strncmp(line, "quit", 4)) {
      return 0;
    }
    puts(answer);
  }
  return 0;
}
