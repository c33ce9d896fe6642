/* The target of the harm suite: a program that would notice if somebody
 * disturbed it. Some fifty threads and four processes repeat small stories
 * whose ends they know: waiting system calls that must not end early, late or
 * with EINTR, checksummed blocks, exceptions, restartable sequences, signals
 * at 1 kHz, ends of streams, locks. Commands:
 *
 *   check           ->  "ok" and counters, once every part has moved on since
 *                       the question; else "violation: " and the first ones
 *   load low|high   ->  "ok"; how busy the busy parts are
 *   load off        ->  "ok" once all parts rest between two rounds: then the
 *                       number of descriptors and children is always the same
 *   margin MS       ->  "ok"; how much later than due a call may end (2000)
 *   late MS         ->  "ok"; how late a peer may see an end of stream (1000)
 *   break           ->  "ok"; plants a violation, to test the tester
 *   quit            ->  exit 0, or 1 after a violation */
#include "harm.h"
#include "harm_calls.h"
#include "harm_memory.h"
#include "harm_net.h"
#include "harm_state.h"
#include "harm_uring.h"
#include "harm_waits.h"

namespace {

#define PART(name, setup, once, wake)                                                                                  \
  {                                                                                                                    \
    name, setup, once, wake, {}, {}, {}, {}, {}, 0, 0, 0, 0, nullptr, {}                                               \
  }

part parts[] = {
    PART("malloc 0", set_hammer, hammer_once, nullptr),
    PART("malloc 1", set_hammer, hammer_once, nullptr),
    PART("malloc 2", set_hammer, hammer_once, nullptr),
    PART("exceptions 0", nullptr, exceptions_once, nullptr),
    PART("exceptions 1", nullptr, exceptions_once, nullptr),
    PART("rseq 0", set_rseq, rseq_once, nullptr),
    PART("rseq 1", set_rseq, rseq_once, nullptr),
    PART(
        "rseq audit",
        [](part *) {
          rseq_hold = 0;
          part p = {};
          p.name = "rseq 0";
          return set_rseq(&p);
        },
        rseq_audit_once, nullptr),
    PART("registers 0", set_registers, registers_once, nullptr),
    PART("registers 1", set_registers, registers_once, nullptr),
    PART("ticks", set_ticks, ticks_once, nullptr),
    PART("queued signals", set_queue, queue_once, nullptr),
    PART("signal sender", nullptr, send_once, nullptr),
    PART("closing", set_closing, closing_once, nullptr),
    PART("server", set_server, server_once, nullptr),
    PART("lock between processes", nullptr, lock_once, nullptr),
    PART("epoll_wait timed", set_eventfd, epoll_wait_timed, nullptr),
    PART("epoll_pwait timed", set_eventfd, epoll_pwait_timed, nullptr),
    PART("epoll_wait", set_eventfd, epoll_wait_woken, ring_eventfd),
    PART("poll timed", set_eventfd, poll_timed, nullptr),
    PART("poll", set_eventfd, poll_woken, ring_eventfd),
    PART("ppoll timed", set_eventfd, ppoll_timed, nullptr),
    PART("select timed", set_eventfd, select_timed, nullptr),
    PART("pselect", set_eventfd, pselect_woken, ring_eventfd),
    PART("read eventfd", set_eventfd, read_eventfd, ring_eventfd),
    PART("read timerfd", set_timerfd, read_timerfd, nullptr),
    PART("accept timed", set_listener_timed, accept_timed, nullptr),
    PART("accept", set_listener, accept_woken, wake_accept),
    PART("recv timed", set_pair, recv_timed, nullptr),
    PART("recvmsg timed", set_pair, recvmsg_timed, nullptr),
    PART("recv", set_pair, recv_woken, wake_byte),
    PART("send timed", set_full_pair, send_timed, nullptr),
    PART("write socket", set_full_pair, send_woken, wake_drain),
    PART("read pipe", set_pipe, read_woken, wake_byte),
    PART("write pipe", set_full_pipe, send_woken, wake_drain),
    PART("nanosleep", nullptr, nanosleep_timed, nullptr),
    PART("clock_nanosleep", nullptr, clock_nanosleep_timed, nullptr),
    PART("clock_nanosleep until", nullptr, clock_nanosleep_until, nullptr),
    PART("sem_timedwait", set_semaphore, sem_timed, nullptr),
    PART("sem_wait", set_semaphore, sem_woken, wake_semaphore),
    PART("cond_timedwait", set_condition, cond_timed, nullptr),
    PART("cond_wait", set_condition, cond_woken, wake_condition),
    PART("futex timed", nullptr, futex_timed, nullptr),
    PART("sigtimedwait", nullptr, sigtimedwait_timed, nullptr),
    PART("sigwaitinfo", nullptr, sigwaitinfo_woken, wake_sigwait),
    PART("sigsuspend", set_sigsuspend, sigsuspend_woken, wake_sigsuspend),
    PART("read signalfd", set_signalfd, read_signalfd, wake_signalfd),
    PART("waitpid", set_sigchld, wait_child, nullptr),
    PART("semtimedop", set_sysv_semaphore, semtimedop_timed, nullptr),
    PART("semop", set_sysv_semaphore, semop_woken, wake_semop),
    PART("msgrcv", set_message_queue, msgrcv_woken, wake_msgrcv),
    PART("mq_timedreceive", set_posix_queue, mq_timed, nullptr),
    PART("flock", set_locks, flock_woken, wake_flock),
    PART("fcntl lock", set_locks, fcntl_lock_woken, wake_fcntl_lock),
    PART("io_getevents timed", set_aio, io_getevents_timed, nullptr),
    PART("io_getevents", set_aio, io_getevents_woken, ring_eventfd),
    PART("io_uring_enter timed", set_uring, uring_timed, nullptr),
    PART("io_uring_enter", set_uring, uring_woken, ring_eventfd),
};

/* Ends the waits of parts that armed themselves, 40 ms later. */
void *wake_parts(void *) {
  for (;;) {
    for (part &p : parts) {
      if (!p.wake || p.armed != 1 || now_ns() - p.armed_at < 40000000) continue;
      p.armed = 2;
      p.wake(&p);
      p.armed = 3;
    }
    rest_for(5000);
  }
  return nullptr;
}

void say_state(const char *good) {
  char answer[1400];
  if (shared->failed && violations == 0) violation("peer: %s", shared->failure);
  if (violations > 0) {
    int n = snprintf(answer, sizeof answer, "violation: %ld in all", violations.load());
    for (auto &text : violation_texts)
      if (text[0]) n += snprintf(answer + n, sizeof answer - static_cast<size_t>(n), " | %s", text);
    snprintf(answer + n, sizeof answer - static_cast<size_t>(n), "\n");
  } else {
    snprintf(answer, sizeof answer, "%s\n", good);
  }
  say(answer);
}

/* Every part must move on: one that hangs is a violation too. */
void check() {
  const int n = sizeof parts / sizeof *parts;
  long before[n], total = 0;
  char text[900], off[400] = "";
  for (int i = 0; i < n; i++) before[i] = parts[i].count;
  int64_t give_up = now_ns() + (8000 + margin_ms) * 1000000;
  for (int i = 0; i < n; i++) {
    part *p = &parts[i];
    total += p->count;
    if (p->off) {
      size_t used = strlen(off);
      snprintf(off + used, sizeof off - used, " off=%s", p->name);
    }
    while (!p->off && !parking && p->count == before[i] && now_ns() < give_up) rest_for(2000);
    if (!p->off && !parking && p->count == before[i]) violation("%s: stands still", p->name);
  }
#ifdef RSEQ_SIG
  long aborts = rseq_aborts;
#else
  long aborts = 0;
#endif
  snprintf(text, sizeof text, "ok rounds=%ld ticks=%ld signals=%ld ends=%ld worst_end_us=%ld rseq_aborts=%ld%s", total,
           ticks.load(), received.load(), shared->ends.load(), shared->worst_us.load(), aborts, off);
  say_state(text);
}

void set_load(const char *how) {
  rest_us = strcmp(how, "high") == 0 ? 300 : 15000;
  parking = strcmp(how, "off") == 0;
  if (!parking) {
    say_state("ok");
    return;
  }
  int64_t give_up = now_ns() + (8000 + margin_ms) * 1000000;
  for (part &p : parts) {
    while (!p.off && !p.parked && now_ns() < give_up) rest_for(2000);
    if (!p.off && !p.parked) violation("%s: did not come to rest", p.name);
  }
  say_state("ok");
}

/* Waits for a command in a read whose registers are checked. */
bool read_line(char *line, size_t size) {
  size_t n = 0;
  for (;;) {
    char c;
    long r = checked_syscall("read of stdin", SYS_read, 0, reinterpret_cast<uint64_t>(&c), 1);
    if (r < 0) violation("read of stdin: error %ld", -r);
    if (r <= 0) return false;
    if (c == '\n') {
      line[n] = 0;
      return true;
    }
    if (n < size - 1) line[n++] = c;
  }
}

void start_thread(void *(*body)(void *), void *arg) {
  pthread_t t;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 256 << 10);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  if ((errno = pthread_create(&t, &small, body, arg))) fixture_die("thread");
}

} // namespace

int main() {
  fixture_init();
  /* Threads take only the signals that are theirs. */
  sigset_t all, fatal;
  sigemptyset(&fatal);
  for (int sig : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP}) sigaddset(&fatal, sig);
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  pthread_sigmask(SIG_UNBLOCK, &fatal, nullptr);

  start_peers();
  handle_queue();
  for (part &p : parts) start_thread(run_part, &p);
  start_thread(wake_parts, nullptr);
  for (int i = 0; i < 500; i++) {
    bool all_started = true;
    for (part &p : parts) all_started = all_started && (p.off || p.count > 0);
    if (all_started) break;
    rest_for(10000);
  }
  say("ready\n");

  static char line[256];
  while (read_line(line, sizeof line) && strcmp(line, "quit") != 0) {
    long n;
    if (strcmp(line, "check") == 0) {
      check();
    } else if (strncmp(line, "load ", 5) == 0) {
      set_load(line + 5);
    } else if (sscanf(line, "margin %ld", &n) == 1) {
      margin_ms = n;
      say_state("ok");
    } else if (sscanf(line, "late %ld", &n) == 1) {
      shared->late_limit_us = n * 1000;
      say_state("ok");
    } else if (strcmp(line, "break") == 0) {
      violation("planted");
      say("ok\n");
    } else {
      say("violation: unknown command\n");
    }
  }
  _exit(violations > 0 || shared->failed);
}
