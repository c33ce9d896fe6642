/* More waiting system calls of harm.cc: on time, futexes, signals, children,
 * queues, locks, native AIO. The rules are those of harm_calls.h. */
#ifndef HARM_WAITS_H
#define HARM_WAITS_H

#include "harm_calls.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

namespace {

/* --- time --- */

void nanosleep_timed(part *p) {
  int64_t t = now_ns();
  expect(p, nanosleep(&T_spec, nullptr) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void clock_nanosleep_timed(part *p) {
  int64_t t = now_ns();
  expect(p, clock_nanosleep(CLOCK_REALTIME, 0, &T_spec, nullptr) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void clock_nanosleep_until(part *p) {
  int64_t t = now_ns();
  timespec until = in_ms(CLOCK_MONOTONIC, T);
  expect(p, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == 0, "not 0");
  expect_time(p, t, T, 0);
}

/* --- futexes --- */

bool set_semaphore(part *p) {
  p->p = new sem_t;
  return sem_init(static_cast<sem_t *>(p->p), 0, 0) == 0;
}

void sem_timed(part *p) {
  int64_t t = now_ns();
  timespec until = in_ms(CLOCK_REALTIME, T);
  expect(p, sem_timedwait(static_cast<sem_t *>(p->p), &until) < 0 && errno == ETIMEDOUT, "not ETIMEDOUT");
  expect_time(p, t, T, 0);
}

void sem_woken(part *p) {
  arm(p);
  expect(p, sem_wait(static_cast<sem_t *>(p->p)) == 0, "not 0");
  expect_woken(p);
}

void wake_semaphore(part *p) { sem_post(static_cast<sem_t *>(p->p)); }

struct condition {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
  bool woken = false;
};

bool set_condition(part *p) {
  p->p = new condition;
  return true;
}

void cond_timed(part *p) {
  condition *c = static_cast<condition *>(p->p);
  int64_t t = now_ns();
  timespec until = in_ms(CLOCK_REALTIME, T);
  pthread_mutex_lock(&c->lock);
  int r;
  while ((r = pthread_cond_timedwait(&c->cond, &c->lock, &until)) == 0) {
  }
  pthread_mutex_unlock(&c->lock);
  expect(p, r == ETIMEDOUT, "not ETIMEDOUT");
  expect_time(p, t, T, 0);
}

void cond_woken(part *p) {
  condition *c = static_cast<condition *>(p->p);
  arm(p);
  pthread_mutex_lock(&c->lock);
  while (!c->woken) pthread_cond_wait(&c->cond, &c->lock);
  c->woken = false;
  pthread_mutex_unlock(&c->lock);
  expect_woken(p);
}

void wake_condition(part *p) {
  condition *c = static_cast<condition *>(p->p);
  pthread_mutex_lock(&c->lock);
  c->woken = true;
  pthread_cond_signal(&c->cond);
  pthread_mutex_unlock(&c->lock);
}

void futex_timed(part *p) {
  static int word = 5;
  int64_t t = now_ns();
  expect(p, syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &T_spec, nullptr, 0) < 0 && errno == ETIMEDOUT,
         "not ETIMEDOUT");
  expect_time(p, t, T, 0);
}

/* --- signals and children: this process's other threads block these --- */

void sigtimedwait_timed(part *p) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 5);
  int64_t t = now_ns();
  expect(p, sigtimedwait(&set, nullptr, &T_spec) < 0 && errno == EAGAIN, "not EAGAIN");
  expect_time(p, t, T, 0);
}

void sigwaitinfo_woken(part *p) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 6);
  arm(p);
  expect(p, sigwaitinfo(&set, &info) == SIGRTMIN + 6, "not the signal");
  expect_woken(p);
}

void wake_sigwait(part *p) { expect(p, syscall(SYS_tgkill, getpid(), p->tid, SIGRTMIN + 6) == 0, "tgkill"); }

std::atomic<int> suspended;
void on_suspended(int) { suspended++; }

bool set_sigsuspend(part *) {
  struct sigaction action = {};
  action.sa_handler = on_suspended;
  return sigaction(SIGRTMIN + 7, &action, nullptr) == 0;
}

void sigsuspend_woken(part *p) {
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, SIGRTMIN + 7);
  int before = suspended;
  arm(p);
  expect(p, sigsuspend(&set) < 0 && errno == EINTR, "not EINTR");
  expect(p, suspended == before + 1, "ended without its signal");
  expect_woken(p);
}

void wake_sigsuspend(part *p) { expect(p, syscall(SYS_tgkill, getpid(), p->tid, SIGRTMIN + 7) == 0, "tgkill"); }

bool set_signalfd(part *p) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 8);
  p->a = signalfd(-1, &set, SFD_CLOEXEC);
  return p->a >= 0;
}

void read_signalfd(part *p) {
  signalfd_siginfo info;
  arm(p);
  expect(p, read(p->a, &info, sizeof info) == sizeof info && static_cast<int>(info.ssi_signo) == SIGRTMIN + 8,
         "not the signal");
  expect_woken(p);
}

void wake_signalfd(part *p) { expect(p, syscall(SYS_tgkill, getpid(), p->tid, SIGRTMIN + 8) == 0, "tgkill"); }

std::atomic<int> sigchlds;
void on_sigchld(int) { sigchlds++; }

bool set_sigchld(part *) {
  struct sigaction action = {};
  action.sa_handler = on_sigchld;
  action.sa_flags = SA_RESTART;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return sigaction(SIGCHLD, &action, nullptr) == 0;
}

/* Waits for any child: one that is not ours must never come, and SIGCHLD comes
 * once for each of ours. SA_RESTART makes the wait go on after a handler. The
 * child shares the descriptors: copies would keep open what others close. */
void wait_child(part *p) {
  int before = sigchlds, status = 0;
  pid_t pid = static_cast<pid_t>(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
  if (pid == 0) {
    timespec t = {0, 30000000};
    nanosleep(&t, nullptr);
    _exit(7);
  }
  if (pid < 0) { /* pids.max may be reached */
    rest_for(50000);
    return;
  }
  pid_t got = waitpid(-1, &status, 0);
  expect(p, got == pid, "not our child");
  expect(p, WIFEXITED(status) && WEXITSTATUS(status) == 7, "not its status");
  expect(p, sigchlds == before + 1, "not one SIGCHLD");
}

/* --- System V and POSIX queues --- */

/* Has a System V object removed when this process is gone. */
void remember_id(int id, bool queue);

union semaphore_argument {
  int value;
  void *pointer;
};

bool set_sysv_semaphore(part *p) {
  p->a = semget(IPC_PRIVATE, 1, 0600);
  semaphore_argument zero = {};
  if (p->a >= 0) remember_id(p->a, false);
  return p->a >= 0 && semctl(p->a, 0, SETVAL, zero) == 0;
}

void semtimedop_timed(part *p) {
  sembuf take = {0, -1, 0};
  int64_t t = now_ns();
  expect(p, semtimedop(p->a, &take, 1, &T_spec) < 0 && errno == EAGAIN, "not EAGAIN");
  expect_time(p, t, T, 10);
}

void semop_woken(part *p) {
  sembuf take = {0, -1, 0};
  arm(p);
  expect(p, semop(p->a, &take, 1) == 0, "not 0");
  expect_woken(p);
}

void wake_semop(part *p) {
  sembuf give = {0, 1, 0};
  expect(p, semop(p->a, &give, 1) == 0, "semop");
}

struct message {
  long type;
  char text[8];
};

bool set_message_queue(part *p) {
  p->a = msgget(IPC_PRIVATE, 0600);
  if (p->a >= 0) remember_id(p->a, true);
  return p->a >= 0;
}

void msgrcv_woken(part *p) {
  message m = {};
  arm(p);
  expect(p, msgrcv(p->a, &m, sizeof m.text, 3, 0) == 5 && m.type == 3, "not the message");
  expect_woken(p);
}

void wake_msgrcv(part *p) {
  message m = {3, "word"};
  expect(p, msgsnd(p->a, &m, 5, 0) == 0, "msgsnd");
}

bool set_posix_queue(part *p) {
  char name[64];
  mq_attr attr = {};
  attr.mq_maxmsg = 2;
  attr.mq_msgsize = 16;
  snprintf(name, sizeof name, "/harm-%d", getpid());
  p->a = mq_open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600, &attr);
  if (p->a < 0) return false;
  mq_unlink(name);
  return true;
}

void mq_timed(part *p) {
  char m[16];
  int64_t t = now_ns();
  timespec until = in_ms(CLOCK_REALTIME, T);
  expect(p, mq_timedreceive(p->a, m, sizeof m, nullptr, &until) < 0 && errno == ETIMEDOUT, "not ETIMEDOUT");
  expect_time(p, t, T, 0);
}

/* --- locks between open files --- */

bool set_locks(part *p) {
  int first = memfd_create("harm", MFD_CLOEXEC);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", first);
  int second = open(path, O_RDWR | O_CLOEXEC);
  if (first < 0 || second < 0) return false;
  p->a = first;
  p->b = second; /* another open file, of the same inode */
  return true;
}

void flock_woken(part *p) {
  expect(p, flock(p->b, LOCK_EX) == 0, "the first lock");
  arm(p);
  expect(p, flock(p->a, LOCK_EX) == 0, "the second lock");
  expect_woken(p);
  expect(p, flock(p->a, LOCK_UN) == 0, "unlock");
}

void wake_flock(part *p) { expect(p, flock(p->b, LOCK_UN) == 0, "unlock by another thread"); }

int ofd_lock(int fd, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return fcntl(fd, F_OFD_SETLKW, &lock);
}

void fcntl_lock_woken(part *p) {
  expect(p, ofd_lock(p->b, F_WRLCK) == 0, "the first lock");
  arm(p);
  expect(p, ofd_lock(p->a, F_WRLCK) == 0, "the second lock");
  expect_woken(p);
  expect(p, ofd_lock(p->a, F_UNLCK) == 0, "unlock");
}

void wake_fcntl_lock(part *p) { expect(p, ofd_lock(p->b, F_UNLCK) == 0, "unlock by another thread"); }

/* --- native AIO --- */

bool set_aio(part *p) {
  aio_context_t context = 0;
  set_eventfd(p);
  if (syscall(SYS_io_setup, 8, &context)) return false;
  p->p = reinterpret_cast<void *>(context);
  return true;
}

void io_getevents_timed(part *p) {
  io_event event;
  timespec wait = T_spec;
  int64_t t = now_ns();
  expect(p, syscall(SYS_io_getevents, p->p, 1L, 1L, &event, &wait) == 0, "not 0");
  expect_time(p, t, T, 0);
}

void io_getevents_woken(part *p) {
  iocb control = {}, *list[] = {&control};
  io_event event = {};
  control.aio_data = 99;
  control.aio_fildes = static_cast<uint32_t>(p->a);
  control.aio_lio_opcode = IOCB_CMD_POLL;
  control.aio_buf = POLLIN;
  expect(p, syscall(SYS_io_submit, p->p, 1L, list) == 1, "io_submit");
  arm(p);
  expect(p, syscall(SYS_io_getevents, p->p, 1L, 1L, &event, nullptr) == 1 && event.data == 99, "not the event");
  expect_woken(p);
  drain_eventfd(p);
}

} // namespace

#endif
