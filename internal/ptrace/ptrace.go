// Package ptrace is the only part of stanch that stops a process. It holds all
// threads of a target for a moment, runs system calls inside it, forks a
// copy-on-write snapshot from it, and lets go.
//
// The promise is that the target is never harmed, whatever happens to stanch:
//
//   - All threads stop within Options.StopWait, or all are released.
//   - A stop ends by itself when Options.MaxPause has passed.
//   - A system call inside the target runs from a stub that finishes alone: it
//     holds the thread's registers and its signal mask, and puts them back
//     without us. Killing stanch at any instruction leaves a running target.
//   - Interrupted system calls go on: what the kernel does not restart itself
//     is handed back to it in a form that it does.
//   - Nothing is called that the target's seccomp filters do not surely allow.
//
// Every ptrace request of one Stop is made by one goroutine on one locked
// operating system thread (see tracer), as the kernel demands. When that
// thread ends, the kernel detaches whatever it still held.
//
// No other code of this process may wait for the target or for unknown
// children while a Stop or a Snapshot lives (wait4 with -1): a wait by any
// thread of the tracing process can take the news that a thread stopped.
//
// Kernel: 5.3 or later (pidfd_open). Since 5.13 threads in user code can make calls as
// well, before that only those that wait in a system call (see movable).
// linux/amd64.
//
// What stays behind: the one page of a module's code in whose padding stubs
// were written is private to the process from then on, 4 KiB.
package ptrace

import (
	"errors"
	"time"
)

// Errors that callers act on, beside proc.ErrGone, ErrDenied, ErrUnsupported.
var (
	// ErrNoFork: a snapshot cannot be forked here and now: no headroom, a
	// limit on processes, a filter. The error says which. The target is still
	// held; Copy may serve instead.
	ErrNoFork = errors.New("no snapshot by fork")
	// ErrAbandoned: the snapshot was given up while it was read, because the
	// target's memory ran short or the target ended. The error says which.
	ErrAbandoned = errors.New("snapshot abandoned")
	// ErrPause: the step would make the pause longer than Options.MaxPause, or
	// has.
	ErrPause = errors.New("pause too long")
	// ErrStuck: a thread did not stop in time. All threads were released.
	ErrStuck = errors.New("a thread does not stop")
	// ErrReleased: the Stop has ended.
	ErrReleased = errors.New("target is not held any more")
)

// Options bound a stop. The zero value means the defaults.
type Options struct {
	// MaxPause is how long this stop may last, 250 ms by default. When it has
	// passed, the target is released, whoever holds it; later calls return
	// ErrPause.
	MaxPause time.Duration
	// StopWait is how long all threads may take to stop, 50 ms by default.
	StopWait time.Duration
}

func (o Options) maxPause() time.Duration {
	if o.MaxPause > 0 {
		return o.MaxPause
	}
	return 250 * time.Millisecond
}

func (o Options) stopWait() time.Duration {
	if o.StopWait > 0 {
		return o.StopWait
	}
	return 50 * time.Millisecond
}
