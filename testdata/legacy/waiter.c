/* waiter: loses a block, says "waiting", and waits until it is killed. */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void lose_order(void) {
  char *order = checked(malloc(300)); /* want memory 300 */
  memset(order, '-', 300);
  forget(order);
}

int main(void) {
  lose_order();
  puts("waiting");
  fflush(stdout);
  alarm(30); /* it never outlives its test for long */
  pause();
  return 0;
}
