package detect

import (
	"fmt"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// Unseen says what an observation could not see, for the notes of a report:
// one sentence each, also when nothing was found.
func Unseen(v *ledger.View) []string {
	var out []string
	add := func(format string, args ...any) {
		s := fmt.Sprintf(format, args...)
		for _, known := range out {
			if known == s {
				return
			}
		}
		out = append(out, s)
	}
	for _, p := range v.Procs {
		if n := unknownOpeners(p); n > 0 {
			add("who opened %s of %s descriptors was not seen: they were open before the watch began, or came in a way that it does not see",
				leak.FormatCount(n), leak.FormatCount(uint64(len(p.Open))))
		}
		last := p.LastLook()
		for i := range p.Blind {
			if p.Blind[i].Final && last == nil {
				for _, u := range p.Blind[i].Uncertainty {
					add("%s", u)
				}
			}
			// Of one at an exit the findings and the gap tell.
			if a := p.Blind[i].Allocator; a != "" && last == nil && !p.Blind[i].Final {
				add("the heap of %s cannot be walked: what is lost cannot be told from what is held", a)
			}
		}
		if last == nil {
			continue
		}
		for _, u := range last.Uncertainty {
			add("%s", u)
		}
		if last.PendingIO {
			add("kernel I/O requests were under way and may hold pointers that nobody can see")
		}
		if p.Ended() {
			if blind := blindTo(p); blind != "" {
				add("what a program loses %s is not seen", blind)
			}
			continue
		}
		if watch := last.At - p.Looks[0].At; watch >= minRateTime {
			_, most := countInterval(0)
			add("a loss that happens less than %s times an hour may not have happened in %s; what a program loses inside its own pools, or in memory that it maps itself, is not seen",
				leak.FormatCount(uint64(most/watch.Hours())+1), leak.FormatDuration(watch))
		} else {
			add("what a program loses inside its own pools, or in memory that it maps itself, is not seen")
		}
	}
	return out
}

// unknownOpeners counts the descriptors that a tracer did not see come.
func unknownOpeners(p *ledger.Process) uint64 {
	var n uint64
	for i := range p.Open {
		if at := p.Open[i].SeenAt; p.Ended() && at >= 0 && at < p.ListedAt {
			continue // a run lists what a program has at its begin: it is not the program's
		}
		if p.TracedAt >= 0 && p.Open[i].Call == "" && p.Open[i].Opener == 0 {
			n++
		}
	}
	return n
}

// blindTo names what a run cannot see of what a program allocates for itself:
// that of which nothing was recorded.
func blindTo(p *ledger.Process) string {
	pool, mapping := "inside its own pools", "in memory that it maps itself"
	for i := range p.Tallies {
		switch p.Tallies[i].Kind {
		case leak.KindPool:
			pool = ""
		case leak.KindMapping:
			mapping = ""
		}
	}
	for i := range p.Live {
		switch p.Live[i].Kind {
		case leak.KindPool:
			pool = ""
		case leak.KindMapping:
			mapping = ""
		}
	}
	switch {
	case pool == "":
		return mapping
	case mapping == "":
		return pool
	}
	return pool + ", or " + mapping + ","
}
