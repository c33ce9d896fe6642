package ptrace

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Family is a program that stanch started, with all that it starts in turn:
// each process is traced from its first instruction to its last, through fork
// and exec. At the moments that an Event tells of, a process stands still until
// Resume lets it go on; at all others it runs.
//
// [Start] works on the processes of a Family as on any other, from any
// goroutine. When stanch dies, the kernel lets all of them go on, unless their
// system calls are watched.
//
// A process can have one tracer. A program that traces others, or asks to be
// traced, through libc's ptrace, gives rise to Tracing; one that makes the system
// call by itself is refused by the kernel.
type Family struct {
	tracer *tracer
	events chan Event
	first  int // PID of the program itself

	// Touched by the tracer's thread only.
	members map[int]*member // by PID
	tracees map[int]*tracee // by thread
	orphans map[int]bool    // children of snapshots that may be left to stanch to reap
	queue   []Event         // not yet taken from events
	uneasy  bool            // a look at all tracees is due

	options int           // of every thread
	watch   Watcher       // nil when no calls are watched
	filter  []instruction // that all processes have then

	heard map[syscall.Signal]time.Time // when the program itself last got a signal
	news  chan os.Signal
	wake  chan struct{} // the queue has grown, or the family has ended
	over  chan struct{} // closed by Close
	once  sync.Once
}

// Command is a program to start. Files are its descriptors from 0 on; nil
// entries are closed.
type Command struct {
	Path  string
	Args  []string // the first is the name it is called by
	Env   []string
	Files []*os.File
	Watch *Watch // system calls to tell of, nil for none
}

// Moment says why a process of a Family stands still, or that it ended.
type Moment uint8

// The moments of a process.
const (
	// Born: it was forked from another one of the family, with a copy of its
	// memory, and has not run yet.
	Born Moment = iota + 1
	// Ready: a program was loaded, with all its libraries, and none of its
	// code has run, no initializer either. A static program stands at its
	// entry point.
	Ready
	// Loaded: it has loaded further libraries, or unloaded some (dlopen,
	// dlclose), and has not run their initializers.
	Loaded
	// Replaced: it has started another program; the one before is gone, with
	// its memory. It does not stand still: Ready follows.
	Replaced
	// Exiting: it is about to end and can do nothing any more. Its memory,
	// descriptors and threads are still there.
	Exiting
	// Tracing: it is about to trace another process of the family, or to be
	// traced by its parent, and stands before the call. Unless Release lets that
	// process go first, the kernel refuses the call.
	Tracing
	// Ended: it is gone.
	Ended
)

// Event is a moment of one process.
type Event struct {
	Moment Moment
	Target *proc.Target
	Parent leak.ProcID        // for Born
	Status syscall.WaitStatus // for Exiting and Ended: how it ends
	Err    error              // for Ready: why nothing can be placed in it
	Other  *proc.Target       // for Tracing: who is to be traced
}

// Ending says how the process ends, in words: "exit 3", "killed by SIGSEGV".
func (e *Event) Ending() string {
	if e.Status.Signaled() {
		return "killed by " + unix.SignalName(e.Status.Signal())
	}
	return fmt.Sprintf("exit %d", e.Status.ExitStatus())
}

// familyOptions apply to every thread of a family. No option that kills is
// among them; where calls are watched, one is added.
const familyOptions = seizeOptions | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXIT

// families are those of this process; Start finds in them who is followed.
var families struct {
	sync.Mutex
	list []*Family
}

// following gives the family that a process belongs to, or nil.
func following(id leak.ProcID) *Family {
	families.Lock()
	list := append([]*Family(nil), families.list...)
	families.Unlock()
	for _, f := range list {
		found := false
		f.tracer.do(func() {
			m := f.members[id.PID]
			found = m != nil && m.target.ID == id
		})
		if found {
			return f
		}
	}
	return nil
}

// Launch starts a program and follows it. Its first event is Ready. The error
// is that of execve when the program cannot be started. Close must be called.
//
// The processes of the family become children of stanch when their parents
// end (PR_SET_CHILD_SUBREAPER, Linux 3.4), so that a daemon is followed too.
func Launch(c Command) (*Family, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the parent of orphans: %w", err)
	}
	f := &Family{
		tracer: newTracer(), events: make(chan Event), members: map[int]*member{}, tracees: map[int]*tracee{}, heard: map[syscall.Signal]time.Time{}, orphans: map[int]bool{},
		news: make(chan os.Signal, 1), wake: make(chan struct{}, 1), over: make(chan struct{}), options: familyOptions,
	}
	if c.Watch != nil {
		f.watch, f.filter = c.Watch.Watcher, callFilter(c.Watch.Calls)
		f.options |= unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL
	}
	signal.Notify(f.news, syscall.SIGCHLD)
	err := ErrReleased
	f.tracer.do(func() { err = f.launch(c) })
	if err != nil {
		signal.Stop(f.news)
		f.tracer.end()
		return nil, err
	}
	families.Lock()
	families.list = append(families.list, f)
	families.Unlock()
	go f.attend()
	go f.deliver()
	return f, nil
}

// PID is the process of the program itself.
func (f *Family) PID() int { return f.first }

// Events tells what happens to the processes. It must be read until it is
// closed, which it is when all processes have ended.
func (f *Family) Events() <-chan Event { return f.events }

// Resume lets a process go on that stands still at a moment.
func (f *Family) Resume(t *proc.Target) error {
	err := ErrReleased
	f.tracer.do(func() { err = f.resume(t) })
	return err
}

// Release stops following a process, which goes on, and what it starts later is
// not followed either. It is refused when calls are watched.
func (f *Family) Release(t *proc.Target) error {
	if f.watch != nil {
		return fmt.Errorf("let pid %d go: %w: %w", t.ID.PID, errWatched, proc.ErrUnsupported)
	}
	err := ErrReleased
	f.tracer.do(func() {
		m := f.members[t.ID.PID]
		if err = nil; m == nil || m.target.ID != t.ID {
			err = fmt.Errorf("pid %d: %w", t.ID.PID, proc.ErrGone)
			return
		}
		f.letGo(func(tr *tracee) bool { return tr.of == m })
		delete(f.members, t.ID.PID)
		f.say(Event{Moment: Ended, Target: m.target})
	})
	return err
}

// Threads are the threads of a process that stands still at Exiting, with the
// registers that their program last had.
func (f *Family) Threads(t *proc.Target) ([]Thread, error) {
	var out []Thread
	err := ErrReleased
	f.tracer.do(func() { out, err = f.threads(t) })
	return out, err
}

// Forward sends a signal that stanch got to the program itself, unless that has
// got it too: a terminal, a shell or timeout(1) sends to the whole process group.
// It takes a tenth of a second.
func (f *Family) Forward(sig syscall.Signal) {
	const before, after = 300 * time.Millisecond, 100 * time.Millisecond
	since := time.Now().Add(-before)
	time.Sleep(after)
	f.tracer.do(func() {
		if f.members[f.first] != nil && f.heard[sig].Before(since) { // else its number may be another's
			_ = unix.Kill(f.first, sig)
		}
	})
}

// Close lets all processes that still run go on without stanch; those whose
// calls are watched are killed.
func (f *Family) Close() {
	f.once.Do(func() {
		close(f.over)
		families.Lock()
		for i := range families.list {
			if families.list[i] == f {
				families.list = append(families.list[:i:i], families.list[i+1:]...)
				break
			}
		}
		families.Unlock()
		signal.Stop(f.news)
		if f.watch != nil {
			f.killAll()
			_ = hearStops(true) // it worked before
		} else {
			f.tracer.do(func() { f.letGo(func(*tracee) bool { return true }) })
		}
		f.tracer.end()
		deadline := time.Now().Add(afterwards)
		for try := 0; f.tracer.alive() && time.Now().Before(deadline); try++ {
			breathe(try)
		}
	})
}

// attend looks for news of the tracees whenever the kernel says that there are
// some, and now and then.
func (f *Family) attend() {
	tick := time.NewTicker(seldom)
	defer tick.Stop()
	for {
		select {
		case <-f.over:
			return
		case <-f.news:
		case <-tick.C:
		}
		f.tracer.do(f.lookRound)
	}
}

// deliver hands the queue on, so that the tracing thread never waits for who
// reads it.
func (f *Family) deliver() {
	defer close(f.events)
	for {
		var next []Event
		ended := false
		if !f.tracer.do(func() {
			next, f.queue = f.queue, nil
			ended = len(f.members) == 0
		}) {
			return
		}
		for _, e := range next {
			select {
			case f.events <- e:
			case <-f.over:
				return
			}
		}
		if ended && len(next) == 0 {
			return
		}
		if len(next) > 0 {
			continue
		}
		select {
		case <-f.wake:
		case <-f.over:
			return
		}
	}
}

// say queues an event, on the tracing thread.
func (f *Family) say(e Event) {
	f.queue = append(f.queue, e)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// errNotHeld: the process is not one of the family, or runs.
var errNotHeld = errors.New("the process does not stand still")
