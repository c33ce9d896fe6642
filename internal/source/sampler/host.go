package sampler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/series"
)

// Host samples every process of the host, their control groups and the host
// itself, from sweep to sweep. The zero value is ready. It is for one
// goroutine. It needs no rights: what may not be read of another user's process
// is left out of what is said of it.
//
// A sweep costs some 30 us for each process. What costs more is done for a few
// processes at a time, each once in Slow, and what makes a target wait or takes
// long, its page tables and long lists of descriptors, within a budget of a
// thousandth of one CPU.
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

	reader   *proc.Reader
	sweeps   uint64
	last     Time
	pids     []int
	all      []*process // that live, in the order in which they were seen first
	byPID    map[int]*process
	sampled  []*process // of all, those that have series
	services map[string]*service
	programs map[string]int          // how many services of the kind command there are of a program
	zombies  map[int]int             // children that are zombies, by parent
	due      []*process              // scratch
	budget   time.Duration           // of what is costly; negative: overdrawn
	inodes   []uint64                // scratch: sockets of a process
	tables   map[uint64]*socketTable // of TCP, by network namespace
	grouped  []*service              // that have a control group
	turn     int                     // whose turn it is in grouped
	machine  machine
	noted    map[string]bool
	out      Sweep
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
	refused bool   // Only did not want it
	renamed bool   // its comm is another than when it was named
	denied  bool   // another user's, of which much may not be read
	group   string // the component of its cgroup's path that is its service's; "" for none

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
	h.reader = reader
	h.byPID, h.services, h.zombies = map[int]*process{}, map[string]*service{}, map[int]int{}
	h.programs, h.tables = map[string]int{}, map[uint64]*socketTable{}
	h.noted = map[string]bool{}
	return nil
}

// Close ends the sampling; it may be called twice.
func (h *Host) Close() error {
	if h.reader == nil {
		return nil
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

// look reads who lives, and what of.
func (h *Host) look(ctx context.Context) error {
	var err error
	if h.pids, err = h.reader.PIDs(h.pids[:0]); err != nil {
		return fmt.Errorf("list the processes: %w", err)
	}
	clear(h.zombies)
	for _, pid := range h.pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		h.meet(pid)
	}
	return nil
}

// meet looks at one process.
func (h *Host) meet(pid int) {
	p := h.byPID[pid]
	if p != nil && p.pulse.Kernel() && h.out.At.Boot < p.nextSlow {
		// Kernel threads hardly ever end: that one did, and its PID has a new
		// owner, is noticed in time.
		p.seen = h.sweeps
		return
	}
	var pulse proc.Pulse
	if p != nil {
		pulse = p.pulse // with the memory of the last sweep
	}
	if h.reader.Pulse(pid, &pulse) != nil {
		return // gone meanwhile, or hidden: hidepid of proc(5)
	}
	if p == nil || p.ID.Start != pulse.Start {
		p = &process{comm: pulse.Comm}
		p.ID = leak.ProcID{PID: pid, Start: pulse.Start}
		p.Started = h.started(pulse.Start)
		h.all = append(h.all, p)
		h.byPID[pid] = p
	}
	if pulse.Kernel() {
		p.nextSlow = h.out.At.Boot + h.slow()
	}
	p.pulse, p.seen, p.PPID = pulse, h.sweeps, pulse.PPID
	if pulse.Comm != p.comm {
		p.comm, p.renamed = pulse.Comm, true
	}
	if pulse.Zombie() {
		h.zombies[pulse.PPID]++
	}
}

// started tells when a process started, by the wall clock of now: that it was
// another when the process started is forgotten.
func (h *Host) started(ticks uint64) time.Time {
	// USER_HZ is 100 on every Linux ABI. The stamp is read some time after
	// CLOCK_BOOTTIME: a hundredth is all that is known in any case.
	ago := h.out.At.Boot - time.Duration(ticks)*(time.Second/100)
	return time.UnixMilli(h.out.At.At).Add(-ago).Round(10 * time.Millisecond).UTC()
}

// bury removes those that have ended. A zombie has, for whoever asks what it
// holds, but goes on to be counted.
func (h *Host) bury() {
	h.sampled = h.sampled[:0]
	h.all = slices.DeleteFunc(h.all, func(p *process) bool {
		gone := p.seen != h.sweeps || h.byPID[p.ID.PID] != p
		if p.service != nil && (gone || p.pulse.Zombie()) {
			h.end(p)
		}
		if p.service != nil {
			h.sampled = append(h.sampled, p)
		}
		if gone && h.byPID[p.ID.PID] == p {
			delete(h.byPID, p.ID.PID)
		}
		return gone
	})
}

// end takes a process out of what is sampled.
func (h *Host) end(p *process) {
	p.service.leave(p, h.sweeps, h.out.At.Boot)
	p.service = nil
	h.out.Ended = append(h.out.Ended, p.Process)
}

// admit takes in those that have come of age.
func (h *Host) admit() {
	h.due = h.due[:0]
	for _, p := range h.all {
		if p.service != nil || p.refused && !p.renamed || p.pulse.Kernel() || p.pulse.Zombie() {
			continue
		}
		if h.out.At.Boot-time.Duration(p.ID.Start)*(time.Second/100) < h.minAge() {
			continue
		}
		h.due = append(h.due, p)
	}
	if len(h.due) == 0 {
		return
	}
	most := cmp.Or(h.Most, defaultMost)
	if h.Only == nil && len(h.sampled)+len(h.due) > most {
		h.choose(most)
	}
	// The first to start is the first worker, also when it is seen later.
	slices.SortStableFunc(h.due, func(a, b *process) int {
		return cmp.Or(cmp.Compare(a.ID.Start, b.ID.Start), cmp.Compare(a.ID.PID, b.ID.PID))
	})
	h.due = slices.DeleteFunc(h.due, func(p *process) bool { return !h.name(p) || !h.wanted(p) })
	h.due = h.due[:min(len(h.due), max(0, most-len(h.sampled)))]
	for _, p := range h.due {
		if at := h.before(p); at >= 0 && h.serviceOf(p).free(at) {
			h.begin(p, at)
		}
	}
	for _, p := range h.due {
		if p.service == nil {
			h.begin(p, -1)
		}
	}
}

// choose leaves those in h.due that are to be sampled when there are too many:
// those with the most memory. One that is sampled gives way to another of twice
// its size, so that they do not take turns.
func (h *Host) choose(most int) {
	h.note("more than %d processes: those with little memory are not sampled", most)
	for _, p := range h.due {
		_ = h.reader.Memory(p.ID.PID, &p.pulse) // gone meanwhile: zeros
	}
	bySize := func(a, b *process) int { return cmp.Compare(a.pulse.RSS, b.pulse.RSS) }
	slices.SortStableFunc(h.due, bySize)
	slices.Reverse(h.due)
	smallest := slices.Clone(h.sampled)
	slices.SortStableFunc(smallest, bySize)
	place := max(0, most-len(h.sampled))
	for place < len(h.due) && len(smallest) > 0 && h.due[place].pulse.RSS > 2*smallest[0].pulse.RSS {
		h.end(smallest[0])
		smallest = smallest[1:]
		place++
	}
	h.due = h.due[:min(place, len(h.due))]
	h.sampled = slices.DeleteFunc(h.sampled, func(p *process) bool { return p.service == nil })
}

// wanted asks Only.
func (h *Host) wanted(p *process) bool {
	p.renamed = false
	p.refused = h.Only != nil && !h.Only(&p.Process)
	return !p.refused
}

// begin gives a process its place: a certain one, or with -1 any.
func (h *Host) begin(p *process, at int) {
	s := h.serviceOf(p)
	what, _ := program(p.Exe, p.Comm, p.Args)
	if at < 0 {
		at = s.find(what)
	}
	s.put(p, what, at)
	h.sampled = append(h.sampled, p)
	h.out.Began = append(h.out.Began, p.Process)
	h.schedule(p)
}

// before gives the place that an earlier watch gave to the process, -1 for
// none.
func (h *Host) before(p *process) int {
	for i := range h.Known {
		k := &h.Known[i]
		// The start is compared as what it is worth after the wall clock was
		// corrected a little.
		if k.ID.PID != p.ID.PID || k.Service != p.Service || k.Started.Sub(p.Started).Abs() > 10*time.Second {
			continue
		}
		if at, err := strconv.Atoi(k.Worker); err == nil && at >= 0 && at < defaultMost {
			return at
		}
	}
	return -1
}

// fast says what is said of a process on every tick.
func (h *Host) fast(p *process) {
	if p.pulse.Headless() || h.reader.Memory(p.ID.PID, &p.pulse) != nil {
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
	if n, ok, err := h.reader.Descriptors(p.ID.PID); ok && err == nil {
		h.say(p, series.FDs, float64(n))
	}
	last := &p.place().zombies
	if n := h.zombies[p.ID.PID]; n != *last {
		*last = n
		h.say(p, series.Zombies, float64(n))
	}
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
