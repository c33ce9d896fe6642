/* workers N COUNT: forks N workers that each lose a list of three jobs, one of
 * them held by the program alone; then one more child that becomes COUNT. A
 * table that lives as long as the program is never freed, and still reachable. */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct job {
  struct job *next;
  char what[92];
};

static struct store *table;

static struct job *job_new(struct job *next) {
  struct job *j = checked(malloc(sizeof *j)); /* want memory 104 */
  j->next = next;
  memset(j->what, '.', sizeof j->what);
  return j;
}

/* Loses a list: its first job directly, the others by way of it. */
static void lose_jobs(void) {
  struct job *first = job_new(job_new(job_new(NULL)));
  while (first) {
    struct job *next = first->next;
#ifdef CLEAN
    free(first);
#endif
    first = next;
  }
}

/* Takes pages for the answer and gives them back in the clean twin only. */
static void lose_pages(void) {
  char *pages = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* want mapping 65536 */
  if (pages == MAP_FAILED) {
    perror("mmap");
    exit(70);
  }
  pages[0] = 1;
#ifdef CLEAN
  munmap(pages, 65536);
#endif
}

static int work(int number) {
  char name[NAME_SIZE];
  snprintf(name, sizeof name, "worker %d", number);
  store_add(table, name);
  lose_jobs();
  if (number == 0) lose_pages();
  printf("%s done\n", name);
  return 0;
}

/* Waits for all children; 1 when one of them did not end well. */
static int reap(void) {
  int status, bad = 0;
  while (wait(&status) > 0) bad |= status != 0;
  return bad;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: workers N COUNT\n");
    return 2;
  }
  table = store_new();
  for (int i = 0; i < atoi(argv[1]); i++) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
      perror("fork");
      return 70;
    }
    if (pid == 0) return work(i);
  }
  fflush(stdout);
  if (fork() == 0) {
    execl(argv[2], argv[2], "/dev/null", (char *)NULL);
    perror(argv[2]);
    _exit(127);
  }
  return reap();
}
