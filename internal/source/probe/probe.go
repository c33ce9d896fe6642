// Package probe places stanch's probe in a live process and reads its books:
// who allocates what, by stack, and which of it is still held.
//
// The probe is a few kilobytes of freestanding machine code (probe/ at the
// root) and its tables, all private anonymous memory of the target. The
// allocator's functions get a jump at their start that leads through it; it
// samples, records what it is told to, and never calls the system, waits or
// fails. Everything else is done from here, from outside: finding the
// allocator, moving its first instructions, compiling unwind tables, reading.
//
// With [Options.Exact] every block is recorded. The live table is a row of
// levels, each twice as large as the one before, of which only those in use are
// touched; a block takes 16 bytes there, about 34 with the room between. When
// all are full, blocks are left out and a Gap says so once. With FromStart a
// release of what is not held is told as well, which costs a second stack for
// each pair; events wait in a bounded ring that each look empties.
//
// With [Options.Descriptors] a table by number has one word for each descriptor:
// who opened it and when, and how the one before went. What is hooked are not
// functions but the system calls in libc, each wherever it stands, so that fopen
// and posix_spawn are seen like open. A record goes before the close and comes
// after the call that opens, so that a number never has two owners. Of glibc from
// 2.41 on, whose system calls all go through one place, and of musl, only
// /proc/PID/fd is followed. In glibc before, a thread that is cancelled in the
// some hundred instructions between its system call's return and the wrapper's
// end of cancellation runs its cleanup handlers, but is not unwound.
//
// The target survives whatever happens to stanch. The hooks go quiet when
// their lease is not renewed for five seconds, and in forked children at once
// (MADV_WIPEONFORK, Linux 4.14). [Detach] removes what a killed stanch left.
package probe

import (
	"errors"
	"math"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

//go:generate go run ../../../probe/gen.go

// Errors that callers act on, beside ErrNoAllocator and those of proc and
// ptrace.
var (
	// ErrNoRoom: the books do not fit into the memory that the target can
	// spare, or that Options.MaxMemory allows.
	ErrNoRoom = errors.New("not enough memory for the probe")
	// ErrPlaced: a stanch that still runs has its probe in the target.
	ErrPlaced = errors.New("another stanch watches this process")
	// ErrNoFunction: none of the files that the target has loaded has a function
	// of Options.Hooks.
	ErrNoFunction = errors.New("no such function")
	// ErrBusy: the target was never at a point at which its code could be
	// changed or the probe's memory be given back. Nothing was changed.
	ErrBusy = errors.New("no safe moment was found")
)

// DefaultSampleBytes is the mean number of bytes between two samples.
const DefaultSampleBytes = 512 << 10

// Options shape a probe. Atlas and Clock are needed; zero values of the others
// mean the defaults.
type Options struct {
	Atlas       *leak.Atlas
	Clock       *proc.Clock
	SampleBytes uint64   // mean bytes between samples: 512 KiB; at most 64 GiB
	NoSampling  bool     // record only what Aim says
	Aim         leak.Aim // sizes that are recorded each time
	Exact       bool     // record every block with its stack; Aim and SampleBytes mean nothing then
	FromStart   bool     // placed before the program's first allocation: with Exact, a free of an unknown block is said as leak.Invalid
	Mappings    bool     // record mappings and threads too: calls of mmap, munmap, mremap, brk, pthread_create, ... of libc
	// Descriptors records who opens descriptors: the system calls of libc. Each is
	// said as an Acquire, and its close as a Release, at the next look; what came
	// and went in between is counted in Tallies only. The table of /proc/PID/fd
	// corrects what was not seen.
	Descriptors bool
	// Inputs says where bytes came from that a thread had read last when it
	// asked for 64 KiB or more at once, as leak.Input.
	Inputs bool
	// Source says what a descriptor of the target is, for Inputs; it may be nil. It
	// must not use the Probe.
	Source func(num int) string
	// Openers are those of the program that this process has executed before, of
	// whose descriptors some may still be open; nil when there was none.
	Openers *Openers
	Hooks   []Hook // functions of allocators that are the program's own
	// MaxMemory bounds the bytes in the target. By default the smaller of 64
	// MiB and 5 % of its headroom; with Exact the smaller of 1 GiB and 25 %:
	// address space that is touched as blocks come, so that only a program
	// with millions of blocks ever uses it.
	MaxMemory   uint64
	MaxOverhead float64       // CPU of the hooks as a share of the target's: 0.03; negative for no limit
	MaxPause    time.Duration // all stops of one placement or removal together: 250 ms
	MaxFrames   int           // of a stack: 64, which is also the most
	Every       time.Duration // between two looks at the books: 1 s
}

// Hook names a function of an allocator that is the program's own: pool_get
// with Alloc and Size 1, pool_put with Free and Ptr 1. Its blocks are of
// leak.KindPool. Arguments count from 1; 0 means there is none.
type Hook struct {
	Name  string // its symbol, in the executable or a library; a static function's too
	Alloc bool   // returns a block
	Free  bool   // takes one back
	Size  int    // which argument is the size
	Count int    // which one multiplies it
	Ptr   int    // which one is the block
}

func (o Options) withDefaults() Options {
	if o.Exact {
		o.NoSampling = true
		o.Aim = leak.Aim{Sizes: []leak.SizeRange{{Max: math.MaxUint64}}}
	}
	if o.SampleBytes == 0 {
		o.SampleBytes = DefaultSampleBytes
	}
	o.SampleBytes = min(o.SampleBytes, 64<<30)
	if o.MaxOverhead == 0 {
		o.MaxOverhead = 0.03
	}
	if o.MaxPause <= 0 {
		o.MaxPause = 250 * time.Millisecond
	}
	if o.MaxFrames <= 0 || o.MaxFrames > wMaxFrames {
		o.MaxFrames = wMaxFrames
	}
	if o.Every <= 0 {
		o.Every = time.Second
	}
	return o
}

// Placement says what a placement did.
type Placement struct {
	Allocator string          // "glibc 2.36", "jemalloc", "musl", ...
	Module    string          // path of the file that provides it
	Functions []string        // what is hooked, as symbols
	Notes     []string        // what cannot be seen, as sentences
	Pauses    []time.Duration // how long the target stood still, each time
	Memory    uint64          // bytes the probe may occupy in the target
}

// renewal is how often Watch tells the hooks that stanch lives, and the time.
const renewal = 250 * time.Millisecond

// leaseTime is how long the hooks record without hearing from stanch.
const leaseTime = 5 * time.Second
