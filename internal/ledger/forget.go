package ledger

import (
	"maps"
	"slices"

	"stanch/internal/leak"
)

// ViewOf is a View of one process alone: no process when nothing was said of
// it.
func (l *Ledger) ViewOf(id leak.ProcID) *View {
	v := &View{Maps: maps.Clone(l.maps), Stacks: maps.Clone(l.stacks), End: l.end}
	for _, g := range l.gaps {
		if g.Proc == id {
			v.Gaps = append(v.Gaps, g)
		}
	}
	if b := l.byID[id]; b != nil {
		b.seal()
		v.Procs = append(v.Procs, b.view(l.end))
	}
	return v
}

// Forget drops what is known of a process. What is said of it later begins
// anew.
func (l *Ledger) Forget(id leak.ProcID) {
	l.gaps = slices.DeleteFunc(l.gaps, func(g leak.Gap) bool { return g.Proc == id })
	b := l.byID[id]
	if b == nil {
		return
	}
	delete(l.byID, id)
	l.procs = slices.DeleteFunc(l.procs, func(p *books) bool { return p == b })
	if l.looking == b {
		l.looking = nil
	}
}

// Exec drops what is known of the program that a process ran before it executed
// another one: its memory is gone. Its descriptors are not, but for those that
// the source says to have been closed.
func (l *Ledger) Exec(id leak.ProcID) {
	b := l.byID[id]
	if b == nil {
		return
	}
	kept := b.fds
	l.Forget(id)
	l.books(id).fds = kept
}
