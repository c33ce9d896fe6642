/* Several names for one place. */
int __lib_get(int n) { return n + 1; }
int get(int n) __attribute__((weak, alias("__lib_get")));
static int get_here(int n) __attribute__((alias("__lib_get"), used));

int real_name(int n) { return n + 2; }
int a(int n) __attribute__((weak, alias("real_name")));

static int chosen(int n) { return n + 3; }
static void *choose(void) { return chosen; }
int picked(int n) __attribute__((ifunc("choose")));

__asm__(".text\n.globl bare_label\nbare_label:\nnop\nnop\nnop\nret\n.type sized,@function\nsized:\nnop\ninner:\nnop\nret\n.size sized, .-sized\n");

int main(int n, char **v) { return get(n) + a(n) + picked(n) + get_here(n); }
