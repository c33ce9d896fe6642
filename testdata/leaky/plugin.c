/* The plugin that dlopener loads: it keeps blocks in its own data and its own
 * thread-local storage, and loses some. */
#include <stdlib.h>
#include <string.h>

enum { MAX = 256, SIZE = 240 };

static void *kept[MAX];
static int nkept;
static __thread void *local;

__attribute__((noinline)) void *plugin_lose(void) {
  void *p = malloc(SIZE); /* want memory 240 */
  if (p) memset(p, 0xa5, SIZE);
  return p;
}

void *plugin_keep(void) {
  if (nkept == MAX) return NULL;
  void *p = plugin_lose();
  if (nkept == 0 && !local)
    local = p;
  else
    kept[nkept++] = p;
  return p;
}

/* Gives back the block that was kept last, for the caller to free. */
void *plugin_take(void) {
  if (nkept > 0) {
    void *p = kept[--nkept];
    kept[nkept] = NULL;
    return p;
  }
  void *p = local;
  local = NULL;
  return p;
}
