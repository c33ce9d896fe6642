/* courier DIR: a daemon of the old school. It goes into the background, writes
 * DIR/pid, and answers each line that is written into the FIFO DIR/in with one
 * in the file DIR/out, until it reads "stop". Each answer loses its session. */
#include "store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct session {
  char line[200];
};

/* Two forks and a session of its own: nobody waits for what is left. */
static void daemonise(void) {
  if (fork() != 0) _exit(0);
  setsid();
  if (fork() != 0) _exit(0);
  int null = open("/dev/null", O_RDWR);
  if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0) _exit(70);
  if (null > 2) close(null);
  alarm(30); /* it never outlives its test for long */
}

static int answer(const char *line) {
  struct session *s = checked(malloc(sizeof *s)); /* want memory 200 */
  snprintf(s->line, sizeof s->line, "%s", line);
  FILE *out = fopen("out", "a");
  if (!out) return 0;
  fprintf(out, "received %s", s->line);
  fclose(out);
  int more = strcmp(s->line, "stop\n") != 0;
  forget(s);
  return more;
}

int main(int argc, char **argv) {
  if (argc != 2 || chdir(argv[1]) < 0 || mkfifo("in", 0600) < 0) {
    perror("courier DIR");
    return 2;
  }
  daemonise();
  FILE *pid = fopen("pid.new", "w");
  if (!pid) return 70;
  fprintf(pid, "%d\n", getpid());
  fclose(pid);
  rename("pid.new", "pid");
  char line[128];
  /* Opened for writing too, so that it does not end with its first writer. */
  FILE *in = fopen("in", "r+");
  int more = in != NULL;
  while (more && fgets(line, sizeof line, in)) more = answer(line);
  if (in) fclose(in);
  unlink("pid");
  return 0;
}
