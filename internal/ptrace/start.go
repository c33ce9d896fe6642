package ptrace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// Start stops all threads of t. When one does not stop in time (a vfork
// parent, an uninterruptible sleep), or the process may not be traced, all are
// released and the error says which thread or which check; it wraps ErrStuck,
// proc.ErrDenied, proc.ErrUnsupported or proc.ErrGone. Threads that end
// meanwhile are no error. ctx ends waiting.
//
// A target that is stopped by a signal (SIGSTOP) can be held too, and is
// still stopped by it afterwards.
func Start(ctx context.Context, t *proc.Target, o Options) (*Stop, error) {
	return start(ctx, t, o, 0)
}

// start is Start for all threads, or for only one of them when that is not 0.
func start(ctx context.Context, t *proc.Target, o Options, only int) (*Stop, error) {
	family := following(t.ID)
	if err := refuse(t); err != nil {
		return nil, err
	}
	l, err := outlookOf(t, only == 0)
	if err != nil {
		return nil, err
	}
	s := &Stop{target: t, opts: o, outlook: l, family: family, only: only, filters: map[int]filterSet{}}
	if family != nil {
		s.tracer = family.tracer
	} else {
		s.tracer = newTracer()
	}
	err = ErrReleased
	s.tracer.do(func() { err = s.begin(ctx) })
	if err != nil {
		s.endTracer()
		s.awaitDetached()
		return nil, err
	}
	for _, th := range s.threads {
		if th.state == stopped {
			s.public = append(s.public, th.Thread)
		}
	}
	slices.SortFunc(s.public, func(a, b Thread) int { return s.order(a.TID) - s.order(b.TID) })
	s.timer = time.AfterFunc(s.left(), s.expire)
	return s, nil
}

// order sorts threads: the main thread, then by number.
func (s *Stop) order(tid int) int {
	if tid == s.target.ID.PID {
		return 0
	}
	return tid
}

// begin runs on the tracing thread. After an error nothing is held but what
// the end of that thread lets go.
func (s *Stop) begin(ctx context.Context) error {
	if s.tracer.turn != nil {
		s.tracer.hurry()
	}
	err := s.hold(ctx)
	if err == nil {
		err = s.open()
	}
	if err != nil {
		s.easeTracer()
		for _, th := range s.threads {
			if th.state == stopped {
				_ = s.letGoOn(th) // fails for one that was killed, and only then
			}
		}
		if s.family == nil { // else the family looks after those that stop later
			s.letGo()
		}
	}
	return err
}

// afterwards bounds how long a stop that was given up waits for the threads
// that it had told to stop. They run meanwhile.
const afterwards = 5 * time.Second

// letGo detaches the threads that were told to stop and had not yet when the
// stop was given up, each as it stops. The end of the tracing thread would
// detach them too, but a call that the interrupt broke off would then return
// EINTR. Threads in uninterruptible sleep are left to that end.
func (s *Stop) letGo() {
	deadline := time.Now().Add(afterwards)
	for try := 0; time.Now().Before(deadline); try++ {
		waiting := 0
		for _, th := range s.threads {
			if th.state != running || !th.told {
				continue
			}
			err := s.settle(th, try)
			switch {
			case th.state == stopped:
				_ = detach(th.TID) // fails for one that was killed, and only then
				th.state = ended
			case err == nil && th.state == running && !s.sleeps(th.TID, try):
				waiting++
			}
		}
		if waiting == 0 {
			return
		}
		breathe(try)
	}
}

// sleeps reports whether a thread is in uninterruptible sleep, which it looks
// for now and then.
func (s *Stop) sleeps(tid, try int) bool {
	if try%100 != 99 {
		return false
	}
	st, err := readThreadStat(s.target.Path("task", strconv.Itoa(tid)))
	return err != nil || st.state == 'D'
}

// hold seizes every thread while the target runs, then interrupts all, and
// goes on until a look at the list of threads finds none that is not held.
func (s *Stop) hold(ctx context.Context) error {
	if s.family == nil {
		defer s.rescue()()
	}
	known := map[int]bool{}
	const passes = 8 // a target that makes threads all the time is caught by the interrupts below
	for range passes {
		found, err := s.seizeNew(known)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			break
		}
	}
	if len(s.threads) == 0 {
		return fmt.Errorf("pid %d has no thread that can be stopped: %w", s.target.ID.PID, proc.ErrGone)
	}
	if err := s.target.Check(); err != nil {
		return err // the PID may have got a new owner before the first thread was seized
	}
	s.began = time.Now()
	deadline := s.began.Add(s.opts.stopWait())
	for _, th := range s.threads {
		s.interrupt(th)
	}
	for {
		if err := s.collect(ctx, deadline); err != nil {
			return err
		}
		found, err := s.seizeNew(known)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return s.check()
		}
		for _, th := range found {
			s.interrupt(th)
		}
	}
}

// check looks at what was collected once every thread stands still.
func (s *Stop) check() error {
	live := 0
	for _, th := range s.threads {
		if th.state != stopped {
			continue
		}
		live++
		if !native(&th.Regs) {
			return fmt.Errorf("%s runs 32-bit code: %w", describe(s.target, th.TID), proc.ErrUnsupported)
		}
	}
	if live == 0 {
		return fmt.Errorf("pid %d ended while it was being stopped: %w", s.target.ID.PID, proc.ErrGone)
	}
	return nil
}

func (s *Stop) interrupt(th *thread) {
	if th.state != running || th.parked {
		return
	}
	th.told = true
	if interrupt(th.TID) != nil {
		th.state = ended // ESRCH
	}
}

// seizeNew attaches to the threads that are listed and not known yet.
func (s *Stop) seizeNew(known map[int]bool) ([]*thread, error) {
	tids, err := s.target.Threads()
	if err != nil {
		return nil, err
	}
	var found []*thread
	for _, tid := range tids {
		if known[tid] {
			continue
		}
		known[tid] = true
		if s.only != 0 && tid != s.only {
			continue
		}
		st, err := readThreadStat(s.target.Path("task", strconv.Itoa(tid)))
		if err != nil || st.state == 'Z' || st.state == 'X' || st.worker() {
			continue // ended, or never runs user code
		}
		if s.family != nil {
			if th := s.adopt(tid); th != nil {
				found = append(found, th)
			}
			continue
		}
		switch err := s.attach(tid); {
		case err == nil:
			th := &thread{Thread: Thread{TID: tid}}
			s.threads = append(s.threads, th)
			found = append(found, th)
		case errors.Is(err, unix.ESRCH) || s.over(tid):
		default:
			return nil, s.refused(tid, err)
		}
	}
	return found, nil
}

// adopt takes over a thread that the target's family traces already; nil when
// it stands at its end.
func (s *Stop) adopt(tid int) *thread {
	tr := s.family.tracees[tid]
	if tr == nil {
		// The news of it is still to come.
		tr = &tracee{tid: tid, of: s.family.members[s.target.ID.PID], born: true}
		s.family.tracees[tid] = tr
	}
	if tr.state == leaving {
		return nil
	}
	th := &thread{Thread: Thread{TID: tid}, parked: tr.state == parked}
	s.threads = append(s.threads, th)
	return th
}

// attach seizes one thread. The kernel says EPERM also of a thread that is
// just ending, and of a main thread that is just being replaced by the one
// that called execve, so that word is believed only when it stays.
func (s *Stop) attach(tid int) error {
	var err error
	for try := range 12 {
		err = seize(tid, seizeOptions)
		if !errors.Is(err, unix.EPERM) || s.over(tid) {
			return err
		}
		breathe(try)
	}
	return err
}

// over reports whether a thread has ended.
func (s *Stop) over(tid int) bool {
	st, err := readThreadStat(s.target.Path("task", strconv.Itoa(tid)))
	return err != nil || st.state == 'Z' || st.state == 'X'
}

// collect waits until every thread stands still or has ended.
func (s *Stop) collect(ctx context.Context, deadline time.Time) error {
	for try := 0; ; try++ {
		waiting := 0
		for _, th := range s.threads {
			if th.state != running {
				continue
			}
			if err := s.settle(th, try); err != nil {
				return err
			}
			if th.state == running {
				waiting++
			}
		}
		if waiting == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return s.stuck()
		}
		breathe(try)
	}
}

// settle takes the news of one thread that was told to stop.
func (s *Stop) settle(th *thread, try int) error {
	if th.parked {
		return s.stopped(th)
	}
	n := look(th.TID)
	if !n.stopped && !n.ended && try > 20 {
		n = lookAgain(th.TID)
	}
	switch {
	case n.ended:
		th.state = ended
		s.tellFamily(th, n)
	case !n.stopped:
	case s.family != nil && (n.event != 0 && n.event != eventStop || n.event == 0 && n.signal == syscallStop):
		return s.familyNews(th, n)
	case n.event == unix.PTRACE_EVENT_EXEC:
		th.state = stopped // so that it is detached
		return fmt.Errorf("pid %d started another program while it was being stopped: %w", s.target.ID.PID, proc.ErrGone)
	case n.event == eventStop:
		if n.signal != int(unix.SIGTRAP) {
			th.group = n.signal // it is in a group-stop
		}
		s.arrived(th)
		return s.stopped(th)
	case n.event == 0 && n.signal != syscallStop:
		// A signal came before our interrupt. The kernel delivers it with its
		// siginfo and then stops the thread for us.
		_ = cont(th.TID, n.signal) // ESRCH: killed, and the next look says so
	default:
		_ = cont(th.TID, 0)
	}
	return nil
}

// familyNews hands what the target's family traces for to it: the thread goes
// on then, or stands at its end.
func (s *Stop) familyNews(th *thread, n news) error {
	s.tellFamily(th, n)
	switch n.event {
	case unix.PTRACE_EVENT_EXEC:
		th.state = ended
		return fmt.Errorf("pid %d started another program while it was being stopped: %w", s.target.ID.PID, proc.ErrGone)
	case unix.PTRACE_EVENT_EXIT:
		if tr := s.family.tracees[th.TID]; tr != nil && tr.state == leaving {
			th.state = ended
		}
	}
	if th.state == running {
		_ = interrupt(th.TID) // any other stop forgets an interrupt before it; ESRCH: killed
	}
	return nil
}

func (s *Stop) tellFamily(th *thread, n news) {
	if s.family == nil {
		return
	}
	if tr := s.family.tracees[th.TID]; tr != nil {
		s.family.handle(tr, n)
	}
}

// arrived notes that a thread's first stop, if it was that, needs no further
// thought.
func (s *Stop) arrived(th *thread) {
	if s.family == nil {
		return
	}
	if tr := s.family.tracees[th.TID]; tr != nil {
		tr.born = false
	}
}

// stopped notes a thread's registers. A system call that our interrupt broke
// off with EINTR is made restartable at once, so that also a death of stanch
// from here on does not show.
func (s *Stop) stopped(th *thread) error {
	r, err := getRegs(th.TID)
	if errors.Is(err, unix.ESRCH) {
		return nil // killed; the next look says so
	}
	if err != nil {
		return fmt.Errorf("read registers of thread %d: %w", th.TID, err)
	}
	th.Regs, th.restore = r, r
	th.InSyscall = inSyscall(th.TID, &r)
	if th.InSyscall && brokenOff(&r) {
		th.restore = restartable(r)
		if err := setRegs(th.TID, &th.restore); errors.Is(err, unix.ESRCH) {
			return nil
		} else if err != nil {
			return fmt.Errorf("restart system call %d of thread %d: %w", syscallNumber(&r), th.TID, err)
		}
	}
	th.state = stopped
	return nil
}

// stuck names the threads that do not stop.
func (s *Stop) stuck() error {
	var who []string
	for _, th := range s.threads {
		if th.state == running {
			who = append(who, describe(s.target, th.TID))
		}
	}
	if err := s.target.Check(); err != nil {
		return err
	}
	const most = 3
	if more := len(who) - most; more > 0 {
		who = append(who[:most], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w within %v, so all were released: %s", ErrStuck, s.opts.stopWait(), strings.Join(who, "; "))
}

// awaitDetached waits until the end of the tracing thread has detached what
// did not stop, so that a returned error means a free target.
func (s *Stop) awaitDetached() {
	if s.family != nil {
		return
	}
	deadline := time.Now().Add(afterwards)
	for try := 0; s.tracer.alive() && time.Now().Before(deadline); try++ {
		breathe(try)
	}
}
