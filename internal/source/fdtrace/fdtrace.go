// Package fdtrace tells who opened and who closed each descriptor of a running
// process, of its descendants or of a cgroup: small programs in the kernel
// note the system calls with the user's stack, and the stacks are walked here.
//
// It needs Linux 5.15 with BTF and CAP_BPF with CAP_PERFMON, and changes
// nothing in the target. Calls of 32-bit code are not seen.
package fdtrace

import (
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Scope says which processes are traced.
type Scope int

// The scopes.
const (
	OneProcess Scope = iota // the target alone
	Tree                    // its descendants too, those that live and those to come
	Cgroup                  // all that run in the target's cgroup (version 2) and below it
)

// Options say what to trace, and how.
type Options struct {
	Clock *proc.Clock
	Atlas *leak.Atlas // of the target; other processes get one beside it
	Scope Scope
	// StackBytes is how much of a stack is copied at first, 4096 (the default)
	// or 16384. Sites whose stacks are longer get 16384 by themselves.
	StackBytes int
	// RingBytes is the room for events that wait to be read, a power of two;
	// 16 MiB when 0.
	RingBytes int
	// Raw takes raw tracepoints although those of single calls can be had: Close
	// is quick then, which suits a short watch, and each system call of all
	// other processes costs more, which does not suit a long one.
	Raw bool
	// NoUses leaves out the last call on each descriptor, which costs each read
	// and write on the host.
	NoUses bool
}

// Stats is what tracing has cost and seen.
type Stats struct {
	Events    uint64        // noted by the kernel
	Dropped   uint64        // noted, and lost for lack of room
	Processes int           // seen
	CPU       time.Duration // of the reader's goroutine, as far as known
	Raw       bool          // raw tracepoints: each system call on the host costs more
	Why       string        // why they were taken
}

const (
	defaultStack = 4096
	wideStack    = 16384
	defaultRing  = 16 << 20
)
