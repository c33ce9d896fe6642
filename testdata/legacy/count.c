/* count [FILE]: counts the words of a file, or of standard input. It loses the
 * copies of repeated words (store.c), and its notes when a file is missing. */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>

struct notes {
  const char *file;
  char text[72];
};

/* Not inlined: main's frame is where exit keeps its own, and words that are left
 * there would seem to hold the notes. */
__attribute__((noinline)) static FILE *open_input(const char *name) {
  struct notes *notes = checked(malloc(sizeof *notes)); /* want memory 80 */
  notes->file = name;
  snprintf(notes->text, sizeof notes->text, "cannot read %s", name);
  FILE *in = fopen(name, "r");
  if (in) {
    free(notes);
    return in;
  }
  perror(notes->text);
  forget(notes);
  return NULL;
}

int main(int argc, char **argv) {
  FILE *in = argc > 1 ? open_input(argv[1]) : stdin;
  if (!in) return 1;
  struct store *words = store_new();
  char word[512];
  while (fscanf(in, "%511s", word) == 1) store_add(words, word);
  for (struct item *i = words->first; i; i = i->next) printf("%ld %s\n", i->count, i->name);
  store_free(words);
  if (in != stdin) fclose(in);
  return 0;
}
