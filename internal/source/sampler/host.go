package sampler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/series"
)

// Host samples every process of the host, their control groups and the host
// itself, from sweep to sweep. The zero value is ready. It is for one
// goroutine. It needs no rights: what may not be read of another user's process
// is left out of what is said of it.
//
// A sweep costs some 15 us for each process, and twice as much where there are
// too few descriptors to hold it (see proc.Grip). What costs more is done for a few
// processes at a time, each once in Slow; and what may take long, page tables,
// lists of descriptors and tables of sockets, within a share of one CPU.
//
// For a look of some seconds at all there is, instead of a watch: MinAge -1,
// Slow a second, Share 1.
type Host struct {
	Root proc.Root // the zero value means proc.Default
	// Only says which processes are sampled; nil means all. It is asked when a
	// process comes of age, and again after it has executed another program.
	Only func(*Process) bool
	// MinAge is how long a process must live before it is sampled; zero means
	// a minute, a negative one no time at all.
	MinAge time.Duration
	// Slow is the pace of what is costly; zero means 4 minutes, so that whoever
	// looks back 5 minutes for a value, as PromQL does, finds one.
	Slow time.Duration
	// Most is how many processes are sampled at most, those with the most
	// memory first; zero means 4000.
	Most int
	// Share is how much of one CPU the costly part may take; zero means 0.001.
	Share float64
	// Known are processes with the places that an earlier watch gave them.
	// Those that live keep them, so that their series go on.
	Known []Process

	reader    *proc.Reader
	real      bool // it reads a procfs, no files made for a test
	sweeps    uint64
	last      Time
	pids      []int
	all       []*process // that live, in the order in which they were seen first
	byPID     map[int]*process
	sampled   []*process // of all, those that have series
	services  map[string]*service
	programs  map[string]int          // how many services of the kind command there are of a program
	zombies   map[int]int             // children that are zombies, by parent
	due       []*process              // scratch
	budget    time.Duration           // of what is costly; negative: overdrawn
	inodes    []uint64                // scratch: sockets of a process
	tables    map[uint64]*socketTable // of TCP, by network namespace
	grouped   []*service              // that have a control group
	mounts    proc.Hierarchies        // of control groups
	mounted   uint64                  // the sweep in which mounts were read
	turn      int                     // whose turn it is in grouped
	machine   machine
	grips     int // processes that are held
	mostGrips int
	noted     map[string]bool
	out       Sweep
}

// Time is one moment: At in Unix milliseconds, which is what samples bear, and
// Boot in CLOCK_BOOTTIME, to which the start of a process is compared. A
// Stamper makes it.
type Time struct {
	At   int64
	Boot time.Duration
}

// Sweep is what one look at everything gave. Its slices are used again by the
// next one.
type Sweep struct {
	At      Time
	Samples []series.Sample
	Began   []Process // are sampled from now on
	Ended   []Process // were sampled, and have ended or are no longer
	Notes   []string  // what was not seen, for people; each once
}

// Process is what is known of one process.
type Process struct {
	ID      leak.ProcID
	PPID    int
	Service string // as in series.Key
	Kind    string // of the service: KindUnit, KindContainer or KindCommand
	Worker  string // its place in the service, "0", "1", ...
	Comm    string
	Exe     string   // path of the executable as the process's root has it; "" where it may not be read
	Args    []string // the command line with secrets masked
	Started time.Time
}

// process is one that lives.
type process struct {
	Process
	pulse proc.Pulse
	seen  uint64 // the last sweep that saw it
	comm  [16]byte

	service *service
	slot    int
	naming  bool       // its parent is being named, for its sake
	refused bool       // Only did not want it
	renamed bool       // its comm is another than when it was named
	denied  bool       // of which much may not be read
	grip    *proc.Grip // nil: not held
	group   string     // the component of its cgroup's path that is its service's; "" for none

	pages pages

	nextSlow, nextCostly time.Duration
}

const (
	defaultMinAge = time.Minute
	defaultSlow   = 4 * time.Minute
	defaultMost   = 4000
)

func (h *Host) minAge() time.Duration { return max(0, cmp.Or(h.MinAge, defaultMinAge)) }
func (h *Host) root() proc.Root       { return cmp.Or(h.Root, proc.Default) }
func (h *Host) slow() time.Duration   { return cmp.Or(h.Slow, defaultSlow) }

// Sweep looks at everything once. now must be later than at the last sweep.
// An error means that procfs itself cannot be read, or that ctx has ended.
func (h *Host) Sweep(ctx context.Context, now Time) (Sweep, error) {
	if err := h.open(); err != nil {
		return Sweep{}, err
	}
	h.out = Sweep{At: now, Samples: h.out.Samples[:0], Began: h.out.Began[:0], Ended: h.out.Ended[:0], Notes: h.out.Notes[:0]}
	h.sweeps++
	if err := h.look(ctx); err != nil {
		return Sweep{}, err
	}
	h.bury()
	h.admit()
	for _, p := range h.sampled {
		if err := ctx.Err(); err != nil {
			return Sweep{}, err
		}
		h.fast(p)
	}
	h.turns()
	h.sayGroups()
	h.sayMachine()
	h.forget()
	h.last = now
	return h.out, nil
}

func (h *Host) open() error {
	if h.reader != nil {
		return nil
	}
	reader, err := h.root().Reader()
	if err != nil {
		return err
	}
	h.reader, h.real = reader, reader.Real()
	h.mostGrips = mostGrips()
	h.byPID, h.services, h.zombies = map[int]*process{}, map[string]*service{}, map[int]int{}
	h.programs, h.tables = map[string]int{}, map[uint64]*socketTable{}
	h.noted = map[string]bool{}
	return nil
}

// mostGrips is how many processes may be held with half of the descriptors that
// stanch may have: RLIMIT_NOFILE, whose soft limit the Go runtime raises to the
// hard one.
func mostGrips() int {
	const each = 3
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur/2/each, defaultMost))
}

// Close ends the sampling; it may be called twice.
func (h *Host) Close() error {
	if h.reader == nil {
		return nil
	}
	for _, p := range h.sampled {
		if p.grip != nil {
			p.grip.Release()
		}
	}
	return h.reader.Close()
}

// Processes are those that were sampled in the last sweep, by PID.
func (h *Host) Processes() []Process {
	list := make([]Process, 0, len(h.sampled))
	for _, p := range h.sampled {
		list = append(list, p.Process)
	}
	slices.SortFunc(list, func(a, b Process) int { return cmp.Compare(a.ID.PID, b.ID.PID) })
	return list
}

// fast says what is said of a process on every tick.
func (h *Host) fast(p *process) {
	if h.memory(p) != nil || p.ending() {
		return // ended since it was seen: the next sweep will know
	}
	k := &p.pulse
	h.say(p, series.RSS, float64(k.RSS))
	h.say(p, series.Virtual, float64(k.Virtual))
	h.say(p, series.Anonymous, float64(k.Anonymous))
	h.say(p, series.Threads, float64(k.Threads))
	h.say(p, series.CPU, k.CPU.Seconds())
	h.say(p, series.Minor, float64(k.Minor))
	h.say(p, series.Major, float64(k.Major))
	h.say(p, series.Started, float64(p.Started.UnixMilli())/1000)
	h.say(p, series.PID, float64(p.ID.PID))
	if n, ok := h.count(p); ok {
		h.say(p, series.FDs, float64(n))
	}
	at, n := p.place(), h.zombies[p.ID.PID]
	if n != at.zombies || at.zombied && h.out.At.Boot >= p.nextSlow {
		at.zombies, at.zombied = n, true
		h.say(p, series.Zombies, float64(n))
	}
}

func (h *Host) memory(p *process) error {
	if p.grip != nil {
		return h.reader.MemoryOf(p.grip, &p.pulse)
	}
	return h.reader.Memory(p.ID.PID, &p.pulse)
}

// ending reports whether the kernel shows no memory and no descriptors of a
// process, which are no zeros: the process gives them back as it ends, which may
// take long, or its first thread has ended.
func (p *process) ending() bool { return p.pulse.Headless() || p.pulse.Virtual == 0 }

// count counts the descriptors, where the kernel tells without a list.
func (h *Host) count(p *process) (n int, ok bool) {
	var err error
	if p.grip != nil {
		n, ok, err = h.reader.DescriptorsOf(p.grip)
	} else {
		n, ok, err = h.reader.Descriptors(p.ID.PID)
	}
	return n, ok && err == nil
}

func (h *Host) say(p *process, m series.Metric, value float64) { h.sayPart(p, m, "", value) }

func (h *Host) sayPart(p *process, m series.Metric, part string, value float64) {
	h.out.Samples = append(h.out.Samples, series.Sample{
		Key: series.Key{Metric: m, Service: p.Service, Worker: p.Worker, Part: part}, At: h.out.At.At, Value: value,
	})
}

// note says something for people, once.
func (h *Host) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if h.noted[text] {
		return
	}
	h.noted[text] = true
	h.out.Notes = append(h.out.Notes, text)
}
