package sampler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// look reads who lives, and what of.
func (h *Host) look(ctx context.Context) error {
	var err error
	if h.pids, err = h.reader.PIDs(h.pids[:0]); err != nil {
		return fmt.Errorf("list the processes: %w", err)
	}
	clear(h.zombies)
	if h.real && !slices.Contains(h.pids, 1) { // which every namespace of PIDs has
		h.noteHidden()
	}
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
	if p == nil || p.grip == nil || h.reader.PulseOf(p.grip, &pulse) != nil {
		if err := h.reader.Pulse(pid, &pulse); err != nil {
			h.unread(p, err)
			return
		}
	}
	if p == nil || p.ID.Start != pulse.Start {
		pulse.Virtual, pulse.RSS, pulse.Anonymous = 0, 0, 0 // of the last owner of the PID
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

// unread notes why a process was not read, nil for one that is not known yet,
// where it is not gone. One that is known lives on.
func (h *Host) unread(p *process, err error) {
	var kernel unix.Errno
	switch {
	case errors.Is(err, proc.ErrDenied):
		h.noteHidden()
	case errors.As(err, &kernel): // such as EMFILE
		h.note("not all processes can be read: %v; where their numbers have a gap, that is why", err)
		if p != nil && p.grip == nil {
			p.seen = h.sweeps
		}
	}
}

// noteHidden says that there are processes of which nothing is known.
func (h *Host) noteHidden() {
	h.note("processes are hidden from stanch, by the mount option hidepid of %s or by a security module, and not watched: run stanch as root, give it CAP_SYS_PTRACE, or add it to the group that the mount option gid names", h.root())
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
	if p.grip != nil {
		p.grip.Release()
		p.grip = nil
		h.grips--
	}
	h.out.Ended = append(h.out.Ended, p.Process)
}

// admit takes in those that have come of age.
func (h *Host) admit() {
	h.due = h.due[:0]
	for _, p := range h.all {
		if p.service != nil || p.refused && !p.renamed || p.pulse.Kernel() || p.pulse.Zombie() || p.pulse.Stuck() {
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
	h.grasp(p)
	h.schedule(p)
}

// grasp holds a process that is sampled, as long as there are descriptors for
// that: half of what stanch may have.
func (h *Host) grasp(p *process) {
	if h.grips >= h.mostGrips {
		return
	}
	grip, err := h.reader.Grip(p.ID.PID)
	if err != nil {
		return // gone meanwhile
	}
	var pulse proc.Pulse
	if h.reader.PulseOf(grip, &pulse) != nil || pulse.Start != p.ID.Start {
		grip.Release()
		return
	}
	p.grip = grip
	h.grips++
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
