/* A process to look at: says where its things are, and ends with its input. */
#include <stdio.h>
#include <unistd.h>

int initialised = 7;
static int hidden_counter;
static char wide[1 << 20];

__attribute__((noinline)) static int wait_for_end(void) {
  char c;
  return (int)read(0, &c, 1);
}

__attribute__((noinline)) int exported(void) { return wait_for_end() + hidden_counter; }

int main(void) {
  printf("ready %p %p %p %p\n", (void *)&initialised, (void *)&hidden_counter, (void *)&wide[4096 * 8 + 5], (void *)exported);
  fflush(stdout);
  return exported() + wide[3];
}
