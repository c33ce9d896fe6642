package probe

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Remove takes the probe out of the target: the original code is put back, the
// books and tables are unmapped as soon as no thread uses them. The quiet text,
// a few pages, stays, since a thread may return to it. A target that has
// exited or executed another program is no error. It may be called again, and
// tries again what it could not do.
func (p *Probe) Remove(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed && len(p.head.data) == 0 {
		return nil
	}
	p.removed = true
	if now, err := p.t.ExecID(); err == nil && now != p.exec || errors.Is(err, proc.ErrGone) {
		p.head.data = nil
		return p.mem.Close()
	}
	stops := &pauses{t: p.t, max: p.o.MaxPause}
	err := p.remove(ctx, stops)
	p.info.Pauses = append(p.info.Pauses, stops.took...)
	if p.t.Check() != nil {
		err = nil // it exited meanwhile
		p.head.data = nil
	}
	if err != nil {
		return err
	}
	return p.mem.Close()
}

// Detach removes a probe that a killed stanch left in t. found says whether
// there was one; quiet memory that has to stay does not count. It returns
// ErrPlaced when the stanch that placed it still runs. Of o, only MaxPause is
// used.
func Detach(ctx context.Context, t *proc.Target, o Options) (found bool, err error) {
	o = o.withDefaults()
	maps, err := t.Maps()
	if err != nil {
		return false, err
	}
	mem, err := t.Mem()
	if err != nil {
		return false, err
	}
	defer func() { _ = mem.Close() }()
	stops := &pauses{t: t, max: o.MaxPause}
	for _, p := range findPlaced(t, maps, mem) {
		if p.quiet() {
			continue
		}
		if err := p.ownerGone(); err != nil {
			return true, err
		}
		found = true
		if err := p.remove(ctx, stops); err != nil {
			return true, err
		}
	}
	for i := range maps {
		if !orphan(maps, i, mem) {
			continue
		}
		found = true
		m := &maps[i]
		err := stops.patiently(ctx, func(h held) error {
			_, err := h.Call(unix.SYS_MUNMAP, uint64(m.Start), m.Size())
			return err
		})
		if err != nil {
			return true, err
		}
	}
	return found, nil
}

// Leftovers finds the memory of probes in a target, at work or quiet: what a
// heap scan must not take for the program's own.
func Leftovers(maps []leak.Mapping, mem leak.Memory) []leak.Range {
	var out []leak.Range
	for _, p := range findPlaced(nil, maps, mem) {
		for _, r := range p.regions() {
			out = append(out, r.leak())
		}
	}
	return out
}
