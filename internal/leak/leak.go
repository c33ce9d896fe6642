// Package leak is the vocabulary of stanch: what can be held and lost, how it
// was seen, and what was concluded. It imports the standard library only, and
// every other package speaks in its terms.
//
// malloc and free, open and close, mmap and munmap are one idea here: a [Ref]
// is acquired by a stack and later released. Sources say what they saw to a
// [Sink]; detectors turn the books into [Finding]s; renderers show a [Report].
package leak

import (
	"fmt"
	"time"
)

// Addr is an address in a target process. It is never an address in stanch.
type Addr uint64

// String writes the address as C's %p does.
func (a Addr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// ProcID names one process for all time: a PID alone is reused.
type ProcID struct {
	PID   int    // in stanch's PID namespace
	Start uint64 // field 22 of /proc/PID/stat, clock ticks after boot
}

// Kind says what sort of thing a Ref is.
type Kind uint8

// The kinds of things a process can lose.
const (
	KindMemory     Kind = iota + 1 // a heap block; ID is its user address
	KindDescriptor                 // a file descriptor; ID is its number
	KindMapping                    // a memory mapping; ID is its start address
	KindThread                     // a thread; ID is its tid, or its pthread_t where only that is known
	KindPool                       // a block of the program's own allocator; ID is its address
)

// String gives the word used in reports and in JSON.
func (k Kind) String() string {
	switch k {
	case KindMemory:
		return "memory"
	case KindDescriptor:
		return "descriptor"
	case KindMapping:
		return "mapping"
	case KindThread:
		return "thread"
	case KindPool:
		return "pool"
	}
	return "unknown"
}

// Ref names one held thing: a block, a descriptor, a mapping, a thread, a
// block of a pool.
type Ref struct {
	Proc ProcID
	Kind Kind
	ID   uint64
}

// Memory reads the memory of a target: live, snapshot or core file. ReadAt
// follows io.ReaderAt except that short reads are normal: it returns the bytes
// readable from a on without a hole, and a non-nil error when that is fewer
// than len(p). It may be called from several goroutines at once.
type Memory interface {
	ReadAt(p []byte, a Addr) (int, error)
}

// MapID names a Mapping within one recording. Zero means no mapping.
type MapID uint32

// StackID names a stack within one recording. Zero means no stack is known.
type StackID uint32

// Mapping is one line of /proc/PID/maps, or its equivalent in a core file.
type Mapping struct {
	ID      MapID  // zero until it is said to a Sink
	Start   Addr   // first byte
	End     Addr   // first byte after
	Read    bool   // r
	Write   bool   // w
	Exec    bool   // x
	Shared  bool   // s rather than p
	Offset  uint64 // byte offset in the file
	Dev     uint64 // makedev(major, minor), zero for anonymous memory
	Inode   uint64 // zero for anonymous memory
	Path    string // as the kernel prints it, without " (deleted)": a file, "[heap]", "[stack]", "[anon:...]", ""
	Deleted bool   // the file was unlinked
	BuildID string // lower-case hex of the GNU build-id, "" when unknown
}

// Size is the length of the mapping in bytes.
func (m *Mapping) Size() uint64 { return uint64(m.End - m.Start) }

// Contains reports whether a lies inside the mapping.
func (m *Mapping) Contains(a Addr) bool { return a >= m.Start && a < m.End }

// File reports whether the mapping is backed by a named file.
func (m *Mapping) File() bool { return m.Inode != 0 && m.Path != "" && m.Path[0] == '/' }

// Frame is a place in a program that survives exit, ASLR and merging: a
// mapping and a byte offset in its file (address - Start + Offset; for
// anonymous memory, address - Start). For a caller's frame it lies inside the
// call instruction (return address minus one), so that it can be looked up as
// it is; for the interrupted frame it is the instruction itself.
type Frame struct {
	Map MapID
	Off uint64
}

// Frame gives the place of address a inside m. The caller subtracts one from a
// return address first.
func (m *Mapping) Frame(a Addr) Frame {
	return Frame{Map: m.ID, Off: uint64(a-m.Start) + m.Offset}
}

// Acquire says that a Ref came to be held.
type Acquire struct {
	At     time.Duration // since the observation began, CLOCK_BOOTTIME
	Ref    Ref
	Size   uint64  // bytes requested; zero for things without a size
	Stack  StackID // who acquired it
	Weight float64 // how many such events this one stands for; 1 when exact
	Exact  bool    // every block of this size is recorded, not a sample
	// Call is how a descriptor came: the system call that made it ("openat",
	// "accept4", "dup2"), "fork" or "exec" when it was inherited, "received" when
	// another process passed it; "" when nobody saw it come.
	Call string
}

// Release says that a Ref was given back.
type Release struct {
	At    time.Duration
	Ref   Ref
	Stack StackID // who gave it back, 0 when that was not recorded
	Call  string  // how a descriptor went: "close", "close_range", "dup2", "exec", "exit" of its process; "" when nobody saw it go
}

// Invalid says that something was given back that is not held: a block freed
// twice, or the address of none. Only a source that has recorded every block
// since the process began can say it.
type Invalid struct {
	At       time.Duration
	Ref      Ref
	Double   bool    // it was held before, and given back; else it was never acquired
	Stack    StackID // who gives it back now
	Acquired StackID // of a double release: who had acquired it
	Released StackID // of a double release: who gave it back the first time
	Size     uint64  // bytes requested, when it had been acquired
}

// Count is a number of things and their bytes. Sampled counts are estimates.
type Count struct {
	N     float64
	Bytes float64
}

// Tally is what a probe's books say of one stack so far: totals, not deltas.
type Tally struct {
	At       time.Duration
	Proc     ProcID
	Kind     Kind
	Stack    StackID
	Acquired Count
	Released Count
	Exact    bool // counted one by one, not estimated from samples
}

// Gauge is a number read at a moment, under one of the Gauge names.
type Gauge struct {
	At    time.Duration
	Proc  ProcID
	Name  GaugeName
	Value float64 // bytes, or a plain number, as the name says
}

// GaugeName is the name of a Gauge. It is stable: it appears in recordings.
type GaugeName string

// The gauges. A limit that does not exist is not reported at all.
const (
	GaugeRSS           GaugeName = "rss_bytes"
	GaugeVirtual       GaugeName = "virtual_bytes"
	GaugeAnon          GaugeName = "anonymous_bytes"
	GaugeSwap          GaugeName = "swap_bytes"
	GaugeFDs           GaugeName = "descriptors"
	GaugeFDFiles       GaugeName = "descriptors_file"
	GaugeFDSockets     GaugeName = "descriptors_socket"
	GaugeFDPipes       GaugeName = "descriptors_pipe"
	GaugeFDAnon        GaugeName = "descriptors_anon_inode"
	GaugeFDOther       GaugeName = "descriptors_other"
	GaugeFDLimit       GaugeName = "descriptors_limit"
	GaugeThreads       GaugeName = "threads"
	GaugeMaps          GaugeName = "mappings"
	GaugeCgroupMemory  GaugeName = "cgroup_memory_bytes"
	GaugeCgroupMax     GaugeName = "cgroup_memory_limit_bytes"
	GaugeMemAvailable  GaugeName = "host_available_bytes"
	GaugeCPUSeconds    GaugeName = "cpu_seconds"
	GaugeHeapBytes     GaugeName = "heap_bytes" // bytes in allocated blocks, as the allocator counts them
	GaugeHeapBlocks    GaugeName = "heap_blocks"
	GaugeAddressLimit  GaugeName = "address_space_limit_bytes" // RLIMIT_AS
	GaugeHostMemory    GaugeName = "host_memory_bytes"
	GaugeProbeCalls    GaugeName = "probe_calls"           // allocator calls seen by the probe's hooks
	GaugeProbeSeconds  GaugeName = "probe_seconds"         // CPU the hooks themselves used in the target, measured
	GaugeProbeBytes    GaugeName = "probe_bytes"           // memory the probe occupies in the target
	GaugeProbeInterval GaugeName = "probe_sample_interval" // mean bytes between samples
	GaugePause         GaugeName = "pause_seconds"         // one stop of the target, said once for each
)

// State is what a heap scan concluded of one block.
type State uint8

// The states of a block.
const (
	Reachable    State = iota + 1 // a pointer chain leads to it from a root
	LostDirect                    // allocated, and no block or root points to it (or it heads a lost cycle)
	LostIndirect                  // allocated, and only lost blocks point to it
)

// String gives the word used in reports.
func (s State) String() string {
	switch s {
	case Reachable:
		return "reachable"
	case LostDirect:
		return "lost"
	case LostIndirect:
		return "indirectly lost"
	}
	return "unknown"
}

// Shape is what the first words of a block look like, without telling them.
type Shape uint8

// The shapes. ShapeType is the only one that identifies a type by itself.
const (
	ShapeOther   Shape = iota // anything else
	ShapeType                 // the first word points into a file's data: a C++ vtable or a type descriptor
	ShapePointer              // the first word points into the heap
	ShapeZero                 // the first 16 bytes are zero
	ShapeText                 // the first 8 bytes are printable
	ShapeNumber               // the first word is a small number
)

// String gives the word used in reports.
func (s Shape) String() string {
	switch s {
	case ShapeType:
		return "typed object"
	case ShapePointer:
		return "starts with a heap pointer"
	case ShapeZero:
		return "starts with zeros"
	case ShapeText:
		return "starts with text"
	case ShapeNumber:
		return "starts with a small number"
	}
	return "binary data"
}

// Verdict is what one look at the heap concluded of one block. Only blocks
// that are not reachable are said one by one; the others come as Held.
type Verdict struct {
	Ref   Ref
	Size  uint64 // usable bytes of the block: what the allocator set aside for it, headers excluded
	State State
	Shape Shape
	Magic uint8  // index into Magics of what the block's start matches, 0 for none
	Type  Frame  // where the first word points when Shape is ShapeType
	Owner uint64 // for LostIndirect: ID of the LostDirect block that leads to it
	Head  []byte // the first bytes, only with --show-contents, else nil
}

// Look opens one scan of a process: the Verdicts and Held of that process that
// follow, up to its next Look, belong to it.
type Look struct {
	N          int // 1 for the first look
	At         time.Duration
	Proc       ProcID
	Allocator  string // "glibc 2.36", "jemalloc", "unknown"; with the reason in a Gap when no walk was possible
	Walked     bool   // the allocator's structures were understood and walked completely
	Single     bool   // a core file: no second look is possible
	Final      bool   // the process stood at its exit: no pointer was on its way any more, so that this one look proves; not Walked when it ended unseen
	Blocks     uint64 // allocated blocks found
	Bytes      uint64 // their usable bytes
	Free       uint64 // bytes in free chunks and caches of the allocator
	LostBlocks uint64
	LostBytes  uint64
	PendingIO  bool          // io_uring or aio requests may hold pointers nobody can see
	Pause      time.Duration // how long the target stood still for this look
	ReadBytes  uint64        // how much of the target's memory was read
	// Uncertainty is what weakens this look, in words: arenas left out,
	// unreadable ranges. A sentence that ends with "called lost" only says
	// that blocks were left out of judgement: it takes nothing from the
	// verdicts over the others.
	Uncertainty []string
}

// Root says what keeps blocks reachable: a range of the target that holds the
// first pointer.
type Root struct {
	What  string // "data", "stack", "registers", "tls", "memory", "epoll", "timer", "ring"
	Frame Frame  // for data segments: the variable's place
	TID   int    // for stacks and registers
}

// Held counts reachable blocks of one size and shape that one root holds.
type Held struct {
	Proc  ProcID // whose; zero for that of the latest Look
	Root  Root
	Size  uint64 // usable bytes of each
	Shape Shape
	Type  Frame
	N     uint64
	Bytes uint64
}

// Edge says that a pointer to block To lies in block From (user addresses).
type Edge struct{ From, To uint64 }

// Gap is what nobody could see. After a gap a detector says less, never more.
type Gap struct {
	At     time.Duration
	Proc   ProcID
	Source string // which source: "heap", "probe", "proc"
	What   string // one sentence for the report
	Lost   uint64 // how many events, when that is known
}

// Sink takes what a source observes. A source calls it from one goroutine.
// Maps and stacks are said before they are used; an ID is said once.
type Sink interface {
	Map(Mapping)
	Stack(StackID, []Frame) // innermost first
	Acquire(Acquire)
	Release(Release)
	Invalid(Invalid)
	Tally(Tally)
	Gauge(Gauge)
	Look(Look)
	Verdicts([]Verdict) // the slice is the callee's only until it returns
	Held([]Held)        // likewise
	Listing(Listing)    // its slice likewise
	Ownerless(Ownerless)
	Usage(Usage)
	Failure(Failure)
	Use(Use)
	Input(Input)
	Gap(Gap)
}

// EdgeSink is a Sink that also wants the heap's pointers. Scanners ask for it
// by type assertion, since few do and there are many.
type EdgeSink interface {
	Sink
	Blocks([]Verdict) // every block, reachable ones included
	Edges([]Edge)
}

// Aim tells the probe what to record each time; everything else is sampled.
type Aim struct {
	Sizes []SizeRange
}

// SizeRange is an interval of requested sizes, both ends included.
type SizeRange struct {
	Min uint64 `json:"min"`
	Max uint64 `json:"max"`
}

// Aimed reports whether size falls into the aim.
func (a Aim) Aimed(size uint64) bool {
	for _, r := range a.Sizes {
		if size >= r.Min && size <= r.Max {
			return true
		}
	}
	return false
}

// CompareBool orders false before true, as [cmp.Compare] orders numbers.
func CompareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
