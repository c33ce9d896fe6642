/* The threads, races, forks, execs and children of fdmodel.c, which says what
 * they are for. */

/* ---- forks that end soon ---- */

static int running; /* threads that take turns in this process */
static int waiting; /* children to reap */

static void reap(void) {
  int status;
  if (waitpid(-1, &status, 0) < 0) fixture_die("waitpid");
  if (status != 0) violation("a child did not exit with 0", status);
  waiting--;
}

static void reap_all(void) {
  while (waiting > 0) reap();
}

/* Makes this process a child that has no threads and no link. */
static void enter_child(int parent, uint64_t random) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) _exit(0);
  s.pid = getpid();
  s.generation++;
  s.random = random;
  s.link = -1;
  s.threads = running = waiting = 0;
  for (int n = 0; n < MAX; n++)
    if (s.at[n].guarded && !s.at[n].unknown && __start_ops[s.at[n].by[0]] == &op_pair_link) s.at[n].guarded = false;
}

static void spend(long calls);

/* Becomes the same program again, with what is not close-on-exec. */
static _Noreturn void exec_self(void) {
  reap_all();
  struct call c = {0};
  int fd = (int)perform(&op_memory_state, &c);
  if (fd < 0 || pwrite(fd, &s, sizeof s, 0) != sizeof s) fixture_die("write state");
  char number[16];
  snprintf(number, sizeof number, "%d", fd);
  execl(s.exe, "fdmodel", "continue", number, NULL);
  fixture_die("exec");
  _exit(70);
}

static _Noreturn void end_child(void) {
  spend(s.budget);
  reap_all();
  _exit(0);
}

static void fork_step(void) {
  long calls = 20 + rnd(100);
  bool exec = rnd(2);
  uint64_t random = s.random ^ 0x5555;
  int parent = s.pid;
  s.budget -= calls;
  pid_t pid = fork();
  if (pid < 0) fixture_die("fork");
  if (pid == 0) {
    enter_child(parent, random);
    s.budget = calls;
    if (exec) {
      spend(calls / 2);
      exec_self();
    }
    end_child();
  }
  if (++waiting == 3) reap();
}

static void spawn_step(void) {
  char *const argv[] = {"fdmodel", "nothing", NULL};
  pid_t pid;
  int status;
  if (posix_spawn(&pid, s.exe, NULL, NULL, argv, environ) || waitpid(pid, &status, 0) < 0) fixture_die("spawn");
}

static void step(void) {
  uint32_t dice = rnd(1000);
  if (dice < 3 && s.generation < 2)
    fork_step();
  else if (dice < 4)
    spawn_step();
  else if (dice < 12)
    take_step(s.pid);
  else if (dice < 30)
    accept_step();
  else if (rnd(BUSY) < (uint32_t)open_now)
    close_step();
  else
    open_step();
}

/* ---- threads ---- */

static struct worker {
  sem_t go;
  uint32_t steps;
  bool race;
  uint64_t random;
} workers[THREADS];
static sem_t finished;

/* How often each number was opened in the race that runs, and by which calls.
 * Once: it was that call, if the number is open in the end. Never: what was
 * there before it still is. */
static struct {
  uint32_t times;
  uint8_t by[POSSIBLE];
} raced[MAX];

static void race_note(long n, const struct op *op) {
  uint32_t i = __atomic_fetch_add(&raced[n].times, 1, __ATOMIC_RELAXED);
  if (i < POSSIBLE) raced[n].by[i] = index_of(op);
}

/* What is guarded does not change while a race runs. */
static bool taboo(int n) { return s.at[n].guarded || streams[n]; }

static void race_step(uint64_t *random) {
  struct call c = {.a = (int)draw(random, RANGE), .b = (int)draw(random, RANGE)};
  bool closing = draw(random, 2);
  const struct op *op = choose(random, closing, RACY);
  if (closing) {
    if (taboo(c.a)) return;
    for (c.b = c.a; c.b < c.a + 2 && !taboo(c.b + 1);) c.b++;
  } else if (op->effect == ONTO && (taboo(c.b) || c.a == c.b)) {
    return;
  }
  long r = make(op, &c, draw(random, 16));
  if (r < 0) return;
  if (op->effect == NEW || op->effect == ONTO) race_note(r, op);
  if (op->effect == TWO) {
    race_note(c.two[0], op);
    race_note(c.two[1], op);
  }
}

static void await(sem_t *sem) {
  while (sem_wait(sem)) continue;
}

static void *work(void *arg) {
  struct worker *w = arg;
  for (;;) {
    await(&w->go);
    for (uint32_t i = 0; i < w->steps; i++) {
      if (w->race)
        race_step(&w->random);
      else
        step();
    }
    sem_post(&finished);
  }
  return NULL;
}

static void start_threads(void) {
  sem_init(&finished, 0, 0);
  for (; running < s.threads; running++) {
    pthread_t thread;
    sem_init(&workers[running].go, 0, 0);
    if (pthread_create(&thread, NULL, work, &workers[running])) fixture_die("pthread_create");
  }
}

/* Asks the kernel what a race left open. */
static void settle(void) {
  for (int n = 0; n < MAX; n++) {
    int flags = fcntl(n, F_GETFD);
    uint32_t times = raced[n].times;
    if (flags < 0) {
      if (s.at[n].open) gone(n);
    } else if (times > 0) {
      here(n, __start_ops[raced[n].by[0]]);
      struct descriptor *d = &s.at[n];
      d->possible = times <= POSSIBLE ? (uint8_t)times : 0;
      d->unknown = times > POSSIBLE;
      memcpy(d->by, raced[n].by, sizeof d->by);
      for (uint32_t i = 1; i < d->possible; i++) d->unknown |= d->by[i] != d->by[0];
      if (!d->unknown) d->possible = 1;
    } else if (!s.at[n].open) {
      violation("open after a race, by no call", n);
    }
    if (flags >= 0) s.at[n].cloexec = flags == FD_CLOEXEC;
  }
}

static void race(uint32_t steps) {
  memset(raced, 0, sizeof raced);
  s.budget -= (long)steps * running;
  for (int i = 0; i < running; i++) {
    workers[i].race = true;
    workers[i].steps = steps;
    workers[i].random = s.random + (uint64_t)i * 77;
    sem_post(&workers[i].go);
  }
  for (int i = 0; i < running; i++) await(&finished);
  (void)rnd(2);
  settle();
}

static void turn(struct worker *w, uint32_t steps) {
  w->race = false;
  w->steps = steps;
  sem_post(&w->go);
  await(&finished);
}

/* Makes that many calls. */
static void spend(long calls) {
  for (long end = s.budget - calls; s.budget > end;) {
    if (running == 0)
      step();
    else if (s.races && rnd(40) == 0)
      race(20 + rnd(40));
    else
      turn(&workers[rnd((uint32_t)running)], 1 + rnd(20));
  }
  if (rnd(8) == 0) check(); /* it is many calls */
}

/* ---- children that stay ---- */

static struct { int pid, link; } children[CHILDREN];
static int kept;

struct letter {
  char what; /* run, take, give, exec, sync, print, quit; acknowledged; 0 at the end of the link */
  int number;
};

/* Sends a letter, and some of what is open with it. */
static void post(int link, char what, int number, int rights) {
  union {
    char room[CMSG_SPACE(RIGHTS * sizeof(int))];
    struct cmsghdr align;
  } control = {0};
  struct letter letter = {what, number};
  struct iovec text = {&letter, sizeof letter};
  struct msghdr m = {.msg_iov = &text, .msg_iovlen = 1};
  if (rights > 0) {
    m.msg_control = &control;
    m.msg_controllen = CMSG_SPACE((size_t)rights * sizeof(int));
    struct cmsghdr *head = CMSG_FIRSTHDR(&m);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN((size_t)rights * sizeof(int));
    for (int i = 0; i < rights; i++) ((int *)CMSG_DATA(head))[i] = any();
  }
  if (sendmsg(link, &m, MSG_NOSIGNAL) < 0) fixture_die("sendmsg");
}

/* Receives a letter, and what comes with it. */
static struct letter fetch(int link) {
  union {
    char room[CMSG_SPACE(RIGHTS * sizeof(int))];
    struct cmsghdr align;
  } control;
  struct letter letter = {0};
  struct iovec text = {&letter, sizeof letter};
  struct msghdr m = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  struct call c = {.a = link, .p = &m};
  const struct op *op = rnd(2) ? &op_receive : &op_receive_cloexec;
  if (perform(op, &c) < 0) fixture_die("recvmsg");
  struct cmsghdr *head = CMSG_FIRSTHDR(&m);
  if (head && head->cmsg_type == SCM_RIGHTS)
    for (size_t i = 0; i < (head->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) here(((int *)CMSG_DATA(head))[i], op);
  return letter;
}

static _Noreturn void serve_link(void) {
  start_threads();
  for (;;) {
    struct letter letter = fetch(s.link);
    switch (letter.what) {
    case 'r': spend(letter.number); break;
    case 't': break;
    case 'g': post(s.link, 'a', 0, 1 + (int)rnd(RIGHTS)); break;
    case 'x': exec_self();
    case 's':
      reap_all();
      post(s.link, 'a', 0, 0);
      break;
    case 'p':
      check();
      report();
      post(s.link, 'a', 0, 0);
      break;
    default: reap_all(); _exit(0);
    }
  }
}

static int continue_from(int fd) {
  if (pread(fd, &s, sizeof s, 0) != sizeof s) fixture_die("read state");
  for (int n = 0; n < MAX; n++) open_now += s.at[n].open;
  for (int n = 0; n < MAX; n++)
    if (s.at[n].open && s.at[n].cloexec) gone(n);
  check();
  struct call c = {.a = fd};
  perform(&op_close_other, &c);
  if (s.link < 0) end_child();
  serve_link();
}

static void keep_child(void) {
  struct call c = {0}, end = {0};
  if (perform(&op_pair_link, &c) < 0) fixture_die("socketpair");
  uint64_t random = s.random ^ 0x3333;
  int parent = s.pid;
  pid_t pid = fork();
  if (pid < 0) fixture_die("fork");
  if (pid == 0) {
    enter_child(parent, random);
    s.link = c.two[1];
    s.at[s.link].guarded = true;
    s.threads = 2;
    serve_link();
  }
  s.at[c.two[0]].guarded = true;
  children[kept].pid = pid;
  children[kept++].link = c.two[0];
  end.a = c.two[1];
  perform(&op_close_one, &end);
}

static void tell_child(int pid, int link) {
  int calls = 50 + (int)rnd(300);
  switch (rnd(6)) {
  case 0: post(link, 't', 0, 1 + (int)rnd(RIGHTS)); break;
  case 1:
    post(link, 'g', 0, 0);
    fetch(link);
    break;
  case 2: post(link, 'x', 0, 0); break;
  case 3: take_step(pid); break;
  default: s.budget -= calls; post(link, 'r', calls, 0);
  }
}

static void sequence(void) {
  start_threads();
  while (s.budget > 0) {
    spend(50 + rnd(300));
    if (kept < CHILDREN && rnd(3) == 0) keep_child();
    if (kept == 0) continue;
    uint32_t i = rnd((uint32_t)kept);
    tell_child(children[i].pid, children[i].link);
  }
  for (int i = 0; i < kept; i++) {
    post(children[i].link, 's', 0, 0);
    fetch(children[i].link);
  }
  reap_all();
}

static void report_all(void) {
  check();
  report();
  for (int i = 0; i < kept; i++) {
    post(children[i].link, 'p', 0, 0);
    fetch(children[i].link);
  }
  say("end\n");
}

static void end_children(void) {
  for (int i = 0; i < kept; i++) post(children[i].link, 'q', 0, 0);
  for (waiting += kept; waiting > 0;) reap();
}

/* Takes over what the program was started with, and guards it. */
static void adopt(int parent) {
  s.pid = getpid();
  s.link = -1;
  for (int n = 0; n < MAX; n++) {
    int flags = fcntl(n, F_GETFD);
    if (flags < 0) continue;
    open_now++;
    s.at[n] = (struct descriptor){
        .open = true, .cloexec = flags == FD_CLOEXEC, .guarded = true, .unknown = true, .pid = parent};
  }
}
