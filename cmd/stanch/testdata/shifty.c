/* A program that changes under the eyes of who watches it: "exec" makes it
 * start itself anew ("ready" again), "exit" ends it with status 0. */
#include "fixture.h"

static char **arguments;

static void leak(long n) {
  while (n-- > 0) {
    void *p = malloc(400);
    fill(p, 400);
    lose(p, 400);
  }
}

static void other(const char *line) {
  if (strcmp(line, "exit") == 0) _exit(0);
  if (strcmp(line, "exec") == 0) {
    execv("/proc/self/exe", arguments);
    fixture_die("exec");
  }
  say("violation: unknown command\n");
}

int main(int argc, char **argv) {
  static const struct program p = {leak, NULL, NULL, other};
  (void)argc;
  arguments = argv;
  fixture_init();
  return serve(&p);
}
