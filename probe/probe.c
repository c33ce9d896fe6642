/* All C of the probe as one unit: the calls between its parts are made for each
 * allocation. */
#include "books.c"
#include "hooks.c"
#include "sample.c"
#include "sites.c"
#include "stack.c"
