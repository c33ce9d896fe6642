// Package sampler reads numbers on a tick: Sampler those of one process, Host
// those of all processes, of their control groups and of the host. Sampler
// costs the target nothing; what Host costs it, page tables that are walked, is
// said there and bounded.
package sampler

import (
	"context"
	"errors"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// manyFDs is the descriptor count above which descriptors are classified every
// classifyEvery ticks only: a readlink of each costs about 2 us.
const (
	manyFDs       = 5000
	classifyEvery = 10
)

// Sampler says the gauges of one process. It is a leak.Watcher.
type Sampler struct {
	Clock *proc.Clock
	Every time.Duration // between two reads; zero means one second
	// CountOnly leaves out of which classes descriptors are, for who lists them
	// anyway.
	CountOnly bool

	ticks int
}

// Watch says the gauges at once and then on every tick, until ctx ends or the
// target exits; neither is an error.
func (s *Sampler) Watch(ctx context.Context, t *proc.Target, sink leak.Sink) error {
	every := s.Every
	if every == 0 {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := s.Scan(ctx, t, sink); err != nil {
			if errors.Is(err, proc.ErrGone) {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Scan says the gauges once. What may not be read is left out: a gauge that
// was not said was not measured.
func (s *Sampler) Scan(_ context.Context, t *proc.Target, sink leak.Sink) error {
	st, err := t.Stat()
	if err != nil {
		return err
	}
	if st.Start != t.ID.Start {
		return proc.ErrGone
	}
	say := s.sayer(t, sink)
	status, err := t.Status()
	if err != nil {
		return err
	}
	if status.VMSize == 0 { // it gives its memory back, which is no growth that ends
		if st.Threads > 1 {
			return nil // its first thread alone has ended: then the kernel shows nothing
		}
		return proc.ErrGone
	}
	say(leak.GaugeRSS, float64(status.VMRSS))
	say(leak.GaugeVirtual, float64(status.VMSize))
	say(leak.GaugeAnon, float64(status.RSSAnon))
	say(leak.GaugeSwap, float64(status.VMSwap))
	say(leak.GaugeThreads, float64(st.Threads))
	say(leak.GaugeCPUSeconds, st.CPU().Seconds())
	s.descriptors(t, say)
	s.limits(t, say)
	s.ticks++
	return nil
}

// Descriptors says the gauges of descriptors alone, once; also of a process that
// stands at its exit.
func (s *Sampler) Descriptors(t *proc.Target, sink leak.Sink) {
	s.descriptors(t, s.sayer(t, sink))
}

// sayer says gauges of this moment.
func (s *Sampler) sayer(t *proc.Target, sink leak.Sink) func(leak.GaugeName, float64) {
	at := s.Clock.Now()
	return func(name leak.GaugeName, value float64) {
		sink.Gauge(leak.Gauge{At: at, Proc: t.ID, Name: name, Value: value})
	}
}

func (s *Sampler) descriptors(t *proc.Target, say func(leak.GaugeName, float64)) {
	count, err := t.DescriptorCount()
	if err != nil {
		return
	}
	say(leak.GaugeFDs, float64(count))
	if s.CountOnly || count > manyFDs && s.ticks%classifyEvery != 0 {
		return
	}
	fds, err := t.Descriptors()
	if err != nil {
		return
	}
	n := proc.CountFDs(fds)
	say(leak.GaugeFDFiles, float64(n.File))
	say(leak.GaugeFDSockets, float64(n.Socket))
	say(leak.GaugeFDPipes, float64(n.Pipe))
	say(leak.GaugeFDAnon, float64(n.Anon))
	say(leak.GaugeFDOther, float64(n.Other))
}

// limits are said each time: a limit that is raised while we watch is news.
func (s *Sampler) limits(t *proc.Target, say func(leak.GaugeName, float64)) {
	if l, err := t.Limits(); err == nil {
		if l.NOFILE.Soft != proc.Unlimited {
			say(leak.GaugeFDLimit, float64(l.NOFILE.Soft))
		}
		if l.AS.Soft != proc.Unlimited {
			say(leak.GaugeAddressLimit, float64(l.AS.Soft))
		}
	}
	if mem, err := t.Root.Meminfo(); err == nil {
		say(leak.GaugeHostMemory, float64(mem.Total))
		say(leak.GaugeMemAvailable, float64(mem.Available))
	}
	group, err := t.Cgroup()
	if err != nil {
		return
	}
	// The level that leaves least is the one that ends the target. Its page cache
	// fills what is left in any case, and is given back.
	left := uint64(proc.Unlimited)
	var usage, limit uint64
	for _, m := range group.Memory {
		used := m.Usage - min(m.Clean, m.Usage)
		if m.Max != proc.Unlimited && m.Max-min(used, m.Max) < left {
			left, usage, limit = m.Max-min(used, m.Max), used, m.Max
		}
	}
	if limit != 0 {
		say(leak.GaugeCgroupMemory, float64(usage))
		say(leak.GaugeCgroupMax, float64(limit))
	}
}
