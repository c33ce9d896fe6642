// Package heap proves what a process has lost: it walks the structures of the
// allocator in the memory of a process, marks every block that a pointer chain
// reaches from a root, and calls the rest lost.
//
// Three things make that a proof and not a guess:
//
//   - The walk is checked as a whole. Each chain of chunks must end where its
//     arena ends, the sums must be those the allocator keeps, the free lists
//     must hold exactly the free chunks. An arena that fails a check is left
//     out, named, and its memory is a root: its blocks are never called lost.
//   - The mark is conservative. Any word that could be a pointer is one:
//     interior and one-past-the-end pointers, pointers with a tag in their
//     upper or lower bits. All memory of the process that is not the
//     allocator's own counts, and so do all registers, and the words the kernel
//     holds for the process.
//   - What is seen is one moment: a snapshot taken while no thread was inside
//     the allocator.
//
// Allocators: glibc 2.28 to 2.44 on x86-64 (see layout.go for what is proved
// by core files). Others are named, and nothing is concluded.
package heap

import (
	"io"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Thread is a thread at the moment of the look.
type Thread struct {
	TID       int
	PC        uint64
	SP        uint64
	BP        uint64
	FSBase    uint64   // the thread pointer
	Regs      []uint64 // all registers that may hold a pointer, in any order
	InSyscall bool     // inside system call Syscall
	Syscall   uint64
}

// KernelWord is a word that the kernel holds for the process and will give
// back to it: the data of an epoll entry, the value of a timer.
type KernelWord struct {
	Word uint64
	What string // the word of leak.Root.What: "epoll", "timer", "ring", "signal stack"
}

// File is a mapped file that was opened for reading.
type File interface {
	io.ReaderAt
	io.Closer
}

// Image is the memory of a process at one moment, with what belongs to it: a
// snapshot, a stopped process or a core file.
type Image struct {
	Mem     leak.Memory
	Maps    []leak.Mapping // sorted by address
	Threads []Thread
	Kernel  []KernelWord
	// PendingIO: io_uring or aio requests may be in flight, whose pointers only
	// the kernel has.
	PendingIO bool
	// Exclude are ranges that are no roots: stanch's own memory in the process.
	Exclude []leak.Range
	// OpenFile opens the file behind a mapping. Nil, or an error, means that its
	// contents are read from memory where they are mapped.
	OpenFile func(*leak.Mapping) (File, error)
	// Resident lists the parts of a range that have memory of their own, sorted;
	// the rest reads as zeros or as an unchanged file. Nil means that all of it
	// may. An error means that it is not known, and all of it is read.
	Resident func(leak.Range) ([]leak.Range, error)
}

// Options shape an analysis. The zero value is usable.
type Options struct {
	// Atlas interns the mappings of data and types; nil leaves Frames zero.
	Atlas *leak.Atlas
	// Clock tells Look.At; nil leaves it zero.
	Clock *proc.Clock
	// MaxPause is how long the target may stand still for one look, all stops
	// together; zero means 250 ms.
	MaxPause time.Duration
	// Exclude says which memory of the target belongs to stanch; nil for none.
	Exclude func() []leak.Range
	// ShowContents puts the first bytes of lost blocks into the verdicts.
	ShowContents bool
	// Workers is how many goroutines read and mark; zero means GOMAXPROCS.
	Workers int
	// Progress, when not nil, is told how far a stage is, total in the same unit
	// as done. It is called from several goroutines, one at a time.
	Progress func(stage string, done, total uint64)
}
