package fdtrace

import (
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// settling asks whoever reads the events for all that has happened to a process.
type settling struct {
	process leak.ProcID
	done    chan error
}

// Settle says everything that has happened until now to a process that stands
// still, best at its exit: its calls are over, so nothing needs time to settle.
// It is for while Watch runs; after that it does nothing, since all was said.
func (t *Tracer) Settle(target *proc.Target) error {
	s := settling{target.ID, make(chan error, 1)}
	select {
	case t.settle <- s:
	case <-t.ended:
		return nil
	}
	select {
	case err := <-s.done:
		return err
	case <-t.ended:
		return nil
	}
}

// answer takes the requests that wait.
func (t *Tracer) answer() error {
	for {
		select {
		case s := <-t.settle:
			_, err := t.read(time.Now())
			if err == nil {
				t.books.settleProcess(s.process)
			}
			s.done <- err
			if err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (b *books) settleProcess(id leak.ProcID) {
	for _, p := range b.live {
		if p.id != id || p.table == nil {
			continue
		}
		if p.table.copy != nil {
			b.finish(p.table.copy)
		}
		b.settleTable(p.table)
		b.sayUsesOf(p)
		b.sayFailures()
	}
}
