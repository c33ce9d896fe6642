package sampler

import (
	"stanch/internal/proc"
	"stanch/internal/series"
)

// mostGroups is how many control groups are read in one sweep; where there are
// more they take turns. One takes some 80 us.
const mostGroups = 100

// groupSaid is what was said of a control group.
type groupSaid struct {
	events             proc.GroupEvents
	memoryMax, taskMax uint64
	next               int64 // At from which the limits are said again, though they are the same
}

// sayGroups says what the control groups of services use.
func (h *Host) sayGroups() {
	done := 0
	for range h.grouped {
		if done == mostGroups {
			break
		}
		h.turn = (h.turn + 1) % len(h.grouped)
		if s := h.grouped[h.turn]; s.live > 0 {
			h.sayGroup(s)
			done++
		}
	}
}

func (h *Host) sayGroup(s *service) {
	u := h.reader.Group(s.group)
	last := &s.limits
	due := h.out.At.At >= last.next
	if due {
		last.next = h.out.At.At + h.slow().Milliseconds()
	}
	if u.HasMemory {
		h.sayOf(s, series.CgroupMemory, "", float64(u.Memory))
		h.sayGroupLimit(s, series.CgroupLimit, u.MemoryMax, &last.memoryMax, due)
		h.sayEvent(s, "low", u.Events.Low, &last.events.Low, due)
		h.sayEvent(s, "high", u.Events.High, &last.events.High, due)
		h.sayEvent(s, "max", u.Events.Max, &last.events.Max, due)
		h.sayEvent(s, "oom", u.Events.OOM, &last.events.OOM, due)
		h.sayEvent(s, "oom_kill", u.Events.OOMKill, &last.events.OOMKill, due)
	}
	if u.HasTasks {
		h.sayOf(s, series.CgroupTasks, "", float64(u.Tasks))
		h.sayGroupLimit(s, series.CgroupTasksMax, u.TasksMax, &last.taskMax, due)
	}
}

// sayGroupLimit says a limit at the slow pace, and at once when it is another.
func (h *Host) sayGroupLimit(s *service, m series.Metric, limit uint64, last *uint64, due bool) {
	if limit != proc.Unlimited && (due || limit != *last) {
		h.sayOf(s, m, "", float64(limit))
	}
	*last = limit
}

// sayEvent says a count at the slow pace, and at once when it is another. Of
// most counts zero goes without saying; of the kills it is said, since of a
// count that is there for the first time nobody can tell whether it rose.
func (h *Host) sayEvent(s *service, event string, n uint64, last *uint64, due bool) {
	if n != *last || due && (n != 0 || event == "oom_kill") {
		h.sayOf(s, series.CgroupEvents, event, float64(n))
	}
	*last = n
}

func (h *Host) sayOf(s *service, m series.Metric, part string, value float64) {
	h.out.Samples = append(h.out.Samples, series.Sample{
		Key: series.Key{Metric: m, Service: s.name, Part: part}, At: h.out.At.At, Value: value,
	})
}
