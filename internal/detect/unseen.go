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
		last := p.LastLook()
		for i := range p.Blind {
			if a := p.Blind[i].Allocator; a != "" && last == nil {
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
