// Package fdcalls sees who opens and closes descriptors in a program that
// stanch starts, by stopping it at the system calls that do: those of programs
// that make them by themselves too, such as static Go programs, and without any
// right beyond tracing. It is the last resort: see ptrace.Watch for what a
// watched program may no longer do.
//
// Each stop is a change from the program to stanch and back. An open has two, a
// close one: such a pair, with both stacks, took 50 microseconds in a virtual
// machine with two processors, where strace (--seccomp-bpf, no stacks) took 55
// to 65 and the bare calls 3 to 7 (kernel 6.18); up to 120 when the scheduler
// kept the two on different processors. Other calls take 40 nanoseconds more.
package fdcalls

import (
	"sync"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/unwind"
)

// Options are what a Tracer works with. All are needed.
type Options struct {
	Clock *proc.Clock
	// Atlas gives the atlas for a program that has just begun to run in a
	// process. Its view is the Tracer's to update.
	Atlas func(*proc.Target) *leak.Atlas
	// Sink is called on the tracing thread of the family, and by Begin and
	// Settle. What it locks must not be held by who calls the Family.
	Sink leak.Sink
}

// Tracer says what happens to the descriptors of a family: Acquire with the
// call and the stack of each that came, Release of each that went, Failure for
// calls that failed because something had run out.
//
// What comes in ways that are no call of proc.FDCalls is noticed by a look at
// /proc/PID/fd at execve and by Settle, and said with Call "".
type Tracer struct {
	o     Options
	calls map[uint64]*proc.FDCall

	mu       sync.Mutex // of all that follows, and of the sink
	procs    map[leak.ProcID]*process
	files    map[file]*unwind.Table
	failures map[failure]uint64
	words    [20]uint64 // registers as unwind takes them
}

// failure is what one Failure counts.
type failure struct {
	proc        leak.ProcID
	call, errno string
	stack       leak.StackID
}

// process is one that the family follows.
type process struct {
	target *proc.Target
	table  *table
	view   *view // nil until its first stack; its parent's until it loads something
}

// New makes a Tracer for one family.
func New(o Options) *Tracer {
	t := &Tracer{
		o: o, calls: map[uint64]*proc.FDCall{}, procs: map[leak.ProcID]*process{},
		files: map[file]*unwind.Table{}, failures: map[failure]uint64{},
	}
	for i := range proc.FDCalls {
		t.calls[proc.FDCalls[i].Nr] = &proc.FDCalls[i]
	}
	return t
}

// Watch is what ptrace.Command needs.
func (t *Tracer) Watch() *ptrace.Watch {
	w := &ptrace.Watch{Watcher: (*watcher)(t)}
	for i := range proc.FDCalls {
		c := &proc.FDCalls[i]
		if c.Does == proc.FDBears {
			continue // a family is told of those in any case
		}
		watched := ptrace.Watched{Nr: c.Nr}
		if c.When != nil {
			watched.Arg, watched.Values = c.When.Arg, c.When.Values
		}
		w.Calls = append(w.Calls, watched)
	}
	return w
}

// Begin says again what a process holds, each with the time and the stack that
// it had. It is for books that forget a process when it executes another program
// (which has the same identity), and to be called at Ready.
func (t *Tracer) Begin(target *proc.Target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.procs[target.ID]; p != nil {
		for num, o := range p.table.open {
			t.sayAcquire(p.target.ID, num, o)
		}
	}
}

// Settle compares the books with /proc/PID/fd and says the difference, with
// Call "". The process stands still, best at its end (Exiting).
func (t *Tracer) Settle(target *proc.Target) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.procs[target.ID]
	if p == nil {
		return nil
	}
	open, err := numbers(target)
	if err != nil {
		return err
	}
	t.compare(p, open, "", "")
	return nil
}

// compare makes the books agree with the numbers that are open; came is how
// those came that are not in them, and went how those went that are not open.
func (t *Tracer) compare(p *process, open map[int]bool, came, went string) {
	for num := range p.table.open {
		if !open[num] {
			t.release(p.table, num, went, 0)
		}
	}
	for num := range open {
		if _, known := p.table.open[num]; !known {
			t.acquire(p.table, num, opening{at: t.o.Clock.Now(), call: came})
		}
	}
}

// acquire notes a descriptor. What was open under that number must have been
// closed in a way that nobody saw.
func (t *Tracer) acquire(tab *table, num int, o opening) {
	if _, open := tab.open[num]; open {
		t.release(tab, num, "", 0)
	}
	tab.open[num] = o
	for id := range tab.owners {
		t.sayAcquire(id, num, o)
	}
}

func (t *Tracer) sayAcquire(id leak.ProcID, num int, o opening) {
	t.o.Sink.Acquire(leak.Acquire{At: o.at, Ref: ref(id, num), Stack: o.stack, Weight: 1, Exact: true, Call: o.call})
}

// release notes that a descriptor has gone.
func (t *Tracer) release(tab *table, num int, call string, stack leak.StackID) {
	tab.went[num] = tab.open[num]
	delete(tab.open, num)
	now := t.o.Clock.Now()
	for id := range tab.owners {
		t.o.Sink.Release(leak.Release{At: now, Ref: ref(id, num), Stack: stack, Call: call})
	}
}

func ref(id leak.ProcID, num int) leak.Ref {
	return leak.Ref{Proc: id, Kind: leak.KindDescriptor, ID: uint64(num)}
}

// fail counts a call that failed because something had run out.
func (t *Tracer) fail(p *process, c *ptrace.Call, name, errno string) {
	f := failure{p.target.ID, name, errno, t.stack(p, c)}
	t.failures[f]++
	t.o.Sink.Failure(leak.Failure{At: t.o.Clock.Now(), Proc: f.proc, Call: f.call, Errno: f.errno, Stack: f.stack, N: t.failures[f]})
}

// opening is how a descriptor came.
type opening struct {
	at    time.Duration
	stack leak.StackID
	call  string
	onto  bool // it took the number of another, as dup2 does
}
