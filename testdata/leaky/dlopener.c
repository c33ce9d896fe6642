/* Loads the plugin named by its argument at "load" and unloads it at "unload";
 * keep, leak and free go through the plugin. "cycle N" loads, uses and unloads
 * it N times. */
#include "fixture.h"

#include <dlfcn.h>

enum { SIZE = 240 };

static const char *path;
static void *library;
static void *(*plugin_lose)(void), *(*plugin_keep)(void), *(*plugin_take)(void);

static void find(void *function, const char *name) {
  void *p = dlsym(library, name);
  if (!p) {
    dprintf(2, "%s\n", dlerror());
    _exit(70);
  }
  memcpy(function, &p, sizeof p);
}

static void load(void) {
  if (library) return;
  library = dlopen(path, RTLD_NOW);
  if (!library) {
    dprintf(2, "%s\n", dlerror());
    _exit(70);
  }
  find(&plugin_lose, "plugin_lose");
  find(&plugin_keep, "plugin_keep");
  find(&plugin_take, "plugin_take");
}

static void release(long n) {
  while (library && n-- > 0) {
    void *p = plugin_take();
    if (!p) return;
    note(FREED, p, SIZE);
    free(p);
  }
}

static void unload(void) {
  if (!library) return;
  release(1000);
  dlclose(library);
  library = NULL;
}

static void leak(long n) {
  load();
  while (n-- > 0) {
    void *p = plugin_lose();
    lose(p, SIZE);
  }
}

static void keep(long n) {
  load();
  while (n-- > 0) {
    void *p = plugin_keep();
    if (p) note(KEPT, p, SIZE);
  }
}

static void other(const char *line) {
  long n;
  if (strcmp(line, "load") == 0) {
    load();
  } else if (strcmp(line, "unload") == 0) {
    unload();
  } else if (sscanf(line, "cycle %ld", &n) == 1) {
    while (n-- > 0) {
      load();
      keep(3);
      unload();
    }
  } else {
    say("violation: unknown command\n");
    return;
  }
  say("ok\n");
}

int main(int argc, char **argv) {
  fixture_init();
  if (argc != 2) {
    dprintf(2, "usage: dlopener PLUGIN\n");
    return 2;
  }
  path = argv[1];
  static const struct program p = {leak, keep, release, other};
  return serve(&p);
}
