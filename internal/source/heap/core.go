package heap

import (
	"context"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// ScanCore looks at the heap in a core file. What the kernel held for the
// process (epoll entries, timers, requests in flight) is not in a core; the
// result says so where it may matter.
func ScanCore(ctx context.Context, core *proc.Core, o Options, sink leak.Sink) error {
	img := &Image{Mem: core, Maps: core.Maps(), OpenFile: func(m *leak.Mapping) (File, error) { return core.OpenFile(m) }}
	for _, t := range core.Threads() {
		img.Threads = append(img.Threads, threadOf(t.TID, &t.Regs))
	}
	r, err := Analyze(ctx, img, o)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Walked {
		r.Doubts = append(r.Doubts, core.Notes()...)
		r.Doubts = append(r.Doubts, "a core file does not hold what only the kernel pointed to: epoll entries, timers, requests in flight, alternate signal stacks")
	}
	k := Look{N: 1, Single: true, Proc: leak.ProcID{PID: core.PID}}
	if o.Clock != nil {
		k.At = o.Clock.Now()
	}
	return r.Emit(sink, k)
}
