package probe

import (
	"context"

	"stanch/internal/leak"
)

// Reload gives the hooks the unwind tables of what is loaded now. Watch does the
// same at each of its looks; who knows that the target has just loaded or
// unloaded a library, and holds it there, need not wait for that.
func (p *Probe) Reload(ctx context.Context, sink leak.Sink) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return errOff
	}
	maps, err := p.t.Maps()
	if err != nil {
		return err
	}
	// Stacks of code that goes are named while it is known where it was.
	head, err := p.bookHead(p.mem)
	if err != nil {
		return err
	}
	if _, err := p.tally(p.mem, head, sink); err != nil {
		return err
	}
	if p.mapsChanged(maps) {
		if err := p.refresh(ctx, maps, sink); err != nil {
			return err
		}
	}
	p.o.Atlas.Update(maps)
	return nil
}
