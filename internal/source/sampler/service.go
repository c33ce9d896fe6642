package sampler

import (
	"strconv"
	"time"

	"stanch/internal/proc"
)

// service is what runs in one unit or container, or the processes of one
// command. It outlives its processes, so that a restarted one finds its place.
type service struct {
	name, kind string
	program    string      // of a command: the name without its arguments
	slots      []slot      // by worker
	live       int         // how many slots have a process
	group      *proc.Group // nil: it has no control group of its own
	limits     groupSaid
	ended      time.Duration // when its last process ended, CLOCK_BOOTTIME
}

// slot is the place of a worker.
type slot struct {
	process *process // nil: free
	program string   // what runs there, or did last; "" for nothing yet
	freed   uint64   // the sweep in which it became free
	// What was said of the place, by whichever process: a part that is gone is
	// said to be zero.
	kinds, states parts
	zombies       int
	zombied       bool // there were some
}

// place is where a sampled process is.
func (p *process) place() *slot { return &p.service.slots[p.slot] }

// spare is how many free places a service keeps for the programs that had them.
// A unit that runs ever new programs for a minute each would else never have a
// place twice.
const spare = 16

// find gives the place for a process of a program: that of the same program
// that became free last, of several the first; else a new one.
func (s *service) find(program string) int {
	best := -1
	for i := range s.slots {
		free := &s.slots[i]
		if free.process != nil || free.program != program && free.program != "" {
			continue
		}
		if best < 0 || free.freed > s.slots[best].freed {
			best = i
		}
	}
	if best >= 0 {
		return best
	}
	if len(s.slots)-s.live < spare {
		return len(s.slots)
	}
	for i := range s.slots {
		if s.slots[i].process == nil && (best < 0 || s.slots[i].freed < s.slots[best].freed) {
			best = i
		}
	}
	return best
}

// free reports whether a place can be given.
func (s *service) free(at int) bool { return at >= len(s.slots) || s.slots[at].process == nil }

// put gives a process a certain place, which is free.
func (s *service) put(p *process, program string, at int) {
	for len(s.slots) <= at {
		s.slots = append(s.slots, slot{})
	}
	s.slots[at].process, s.slots[at].program = p, program
	s.live++
	p.service, p.slot = s, at
	p.Worker = strconv.Itoa(at)
}

// leave frees the place of a process.
func (s *service) leave(p *process, sweep uint64, now time.Duration) {
	s.slots[p.slot].process, s.slots[p.slot].freed = nil, sweep
	s.live--
	s.ended = now
}
