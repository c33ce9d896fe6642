/* What testdata/cores/make.sh runs under several versions of glibc: a bit of
 * everything in a heap as small as can be, with its list on stdout, and then a
 * wait for ever, during which a core is taken. It compiles with glibc 2.28. */
#define FIXTURE_LOG 2048
#define FIXTURE_KEPT 512
#include "fixture.h"

#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>

enum { LARGE = 150 << 10, THREADS = 2 };

struct node {
  struct node *next;
  char *text;
};

static NOINLINE void *make(size_t size) {
  void *p = malloc(size);
  fill(p, size);
  return p;
}

static NOINLINE void direct(void) {
  static const size_t sizes[] = {1, 24, 25, 64, 400, 1032, 1033, 5000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    lose(make(sizes[i]), sizes[i]);
    hold(make(sizes[i]), sizes[i]);
    lose(make(sizes[i]), sizes[i]);
  }
}

static NOINLINE void lists(void) {
  struct node *head = NULL;
  for (int i = 0; i < 6; i++) {
    struct node *n = (struct node *)make(sizeof *n);
    n->text = (char *)make(90);
    n->next = head;
    head = n;
  }
  note(LOST, head, sizeof *head);
  note(INDIRECT, head->text, 90);
  for (struct node *n = head->next; n; n = n->next) {
    note(INDIRECT, n, sizeof *n);
    note(INDIRECT, n->text, 90);
  }
}

static NOINLINE void cycle(void) {
  struct node *a = (struct node *)make(sizeof *a), *b = (struct node *)make(sizeof *b);
  a->next = b;
  b->next = a;
  note(LOST, a, sizeof *a);
  note(INDIRECT, b, sizeof *b);
}

static NOINLINE void mapped(void) {
  char *p = (char *)malloc(LARGE), *q = (char *)malloc(LARGE), *r = (char *)malloc(LARGE),
       *s = (char *)memalign(32 << 10, LARGE);
  if (!p || !q || !r || !s) fixture_die("malloc");
  memset(p, 1, 32);
  memset(q, 1, 32);
  memset(r, 1, 32);
  memset(s, 1, 32);
  lose(p, LARGE);
  hold(q, LARGE);
  note(FREED, r, LARGE);
  free(r);
  lose(s, LARGE);
}

static NOINLINE void aligned(void) {
  void *p = memalign(256, 300), *q = memalign(1024, 80);
  fill(p, 300);
  fill(q, 80);
  lose(p, 300);
  hold(q, 80);
}

/* Free blocks in every place: more than seven of a size overflow the thread
 * cache into fast bins or the unsorted bin, from where a large request moves
 * them into small and large bins. */
static NOINLINE void freed(void) {
  static const size_t sizes[] = {24, 40, 104, 136, 520, 1032, 1200, 3000};
  void *p[12];
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    size_t size = sizes[i];
    int n = size < 1000 ? 12 : 3;
    for (int k = 0; k < n; k++) {
      p[k] = make(size);
      if (k % 3 == 0)
        lose(make(40), 40);
      else if (k % 3 == 1)
        hold(make(40), 40);
    }
    for (int k = 0; k < n; k++) {
      note(FREED, p[k], size);
      free(p[k]);
    }
    if (i == 5) hold(make(9000), 9000);
  }
}

static sem_t done;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static __thread void *volatile local;

static void *work(void *arg) {
  pthread_mutex_lock(&one_at_a_time);
  direct();
  lists();
  freed();
  local = make(72);
  note(KEPT, local, 72);
  scrub();
  pthread_mutex_unlock(&one_at_a_time);
  sem_post(&done);
  for (;;) pause();
  return arg;
}

static NOINLINE void fill_main_arena(void) {
  direct();
  lists();
  cycle();
  aligned();
  freed();
  mapped();
}

int main(void) {
  fixture_init();
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  mallopt(M_TOP_PAD, 0);
  fill_main_arena();
  scrub();
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 128 << 10);
  sem_init(&done, 0, 0);
  for (int i = 0; i < THREADS; i++) {
    pthread_t t;
    if (pthread_create(&t, &small, work, NULL)) fixture_die("thread");
    while (sem_wait(&done)) {
    }
  }
  scrub();
  fixture_list();
  for (;;) pause();
}
