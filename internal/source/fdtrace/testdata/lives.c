// lives.c ends descriptors in each way, fails where something has run out, and
// uses some. It begins when a line comes, and ends at the next.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define APART __attribute__((noinline)) static

APART int opener(void) { return open("/dev/null", O_RDONLY); }
APART int opener_cloexec(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
APART int closer(int fd) { return close(fd); }
APART int exhausts(void) { return dup(0); }
APART void *maps(void) { return mmap(0, 1ul << 46, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

APART int connects(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int s = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(s, (void *)&a, sizeof a) == 0) exit(3);
  return s;
}

APART void *in_thread(void *arg) {
  (void)arg;
  printf("thread %d\n", opener());
  return NULL;
}

APART int receives(int from) {
  char byte, control[CMSG_SPACE(sizeof(int))];
  struct iovec io = {&byte, 1};
  struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(from, &m, 0) != 1) exit(4);
  int fd;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
  return fd;
}

APART void sends(int to, int fd) {
  char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec io = {&byte, 1};
  struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  if (sendmsg(to, &m, 0) != 1) exit(5);
}

int main(int argc, char **argv) {
  char line[16];
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc > 1) {
    printf("after %d\n", opener());
    puts("done");
    return !fgets(line, sizeof line, stdin);
  }
  puts("ready");
  if (!fgets(line, sizeof line, stdin)) return 1;

  printf("closed %d\n", closer(opener()) ? -1 : 0);
  printf("used %d\n", connects());
  pthread_t thread;
  pthread_create(&thread, NULL, in_thread, NULL);
  pthread_join(thread, NULL);

  int two[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, two)) return 2;
  int passed = opener();
  sends(two[0], passed);
  printf("received %d\n", receives(two[1]));

  int child = fork();
  if (child == 0) {
    closer(passed);
    pause();
  }
  printf("child %d %d\n", child, passed);
  if (vfork() == 0) _exit(0);
  wait(NULL);

  struct rlimit limit, low;
  getrlimit(RLIMIT_NOFILE, &limit);
  low = limit, low.rlim_cur = 3;
  setrlimit(RLIMIT_NOFILE, &low);
  for (int i = 0; i < 5; i++)
    if (exhausts() != -1 || errno != EMFILE) return 6;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (maps() != MAP_FAILED) return 7;

  printf("kept %d\n", opener());
  printf("cloexec %d\n", opener_cloexec());
  execl("/proc/self/exe", "lives", "again", NULL);
  return 8;
}
