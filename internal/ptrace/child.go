package ptrace

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// child is the process that a snapshot is read from.
type child struct {
	stop   *Stop // whose tracer holds it
	pid    int   // for us
	host   int   // the thread that made it
	mem    *proc.Mem
	budget budget

	reading sync.RWMutex // held for writing when mem is closed
	mu      sync.Mutex
	why     error // why it serves no more, nil while it does

	ended  sync.Once
	closed sync.Once
	err    error         // of the end
	quit   chan struct{} // the end has begun
	wake   int           // an eventfd that says so to the watch
	done   chan struct{} // the watch has ended
}

// adopt waits for the child's first stop and sees to it that it dies with us
// and before anything else.
func (c *child) adopt() error {
	deadline := time.Now().Add(time.Second)
	for try := 0; ; try++ {
		n := look(c.pid)
		if !n.stopped && try > 50 {
			n = lookAgain(c.pid)
		}
		if n.stopped {
			break
		}
		if n.ended || time.Now().After(deadline) {
			return fmt.Errorf("the snapshot's child %d is gone: %w", c.pid, ErrAbandoned)
		}
		breathe(try)
	}
	// Marked first: a child that is killed with stanch can then be told from
	// the target's own. One that is not held any more exits by itself, with a
	// status that tells.
	mark(c.pid)
	if err := setOptions(c.pid, unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("tie the snapshot's child to stanch: %w", err)
	}
	step("write oom_score_adj")
	r := c.stop.target.Root
	if err := os.WriteFile(r.Path(c.pid, "oom_score_adj"), []byte("1000"), 0); err != nil {
		return fmt.Errorf("make the snapshot the first victim of memory shortage: %w", err)
	}
	var err error
	c.mem, err = r.OpenMem(c.pid, os.O_RDONLY)
	return err
}

// missing compares the child's map with the target's at the fork.
func (c *child) missing(maps []leak.Mapping) []leak.Range {
	t := proc.Target{ID: leak.ProcID{PID: c.pid}, Root: c.stop.target.Root}
	theirs, err := t.Maps()
	var out []leak.Range
	for i := range maps {
		m := &maps[i]
		if m.Shared || err == nil && proc.Find(theirs, m.Start) == nil {
			out = append(out, leak.Range{Start: m.Start, End: m.End})
		}
	}
	return out
}

// abandoned returns why the snapshot was given up, nil while it serves.
func (c *child) abandoned() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// finish ends the snapshot for its user.
func (c *child) finish() error {
	c.end(os.ErrClosed)
	<-c.done
	c.closed.Do(func() { _ = unix.Close(c.wake) })
	return c.err
}

// end kills the child, reaps it here and in the target, and ends the tracer,
// once. why is what later reads are told.
func (c *child) end(why error) {
	c.ended.Do(func() {
		c.mu.Lock()
		c.why = why
		c.mu.Unlock()
		close(c.quit)
		// An eventfd takes this word unless its counter overflows.
		_, _ = unix.Write(c.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		step("kill child")
		inner, err := innermost(c.stop.target.Root, c.pid)
		_ = unix.Kill(c.pid, unix.SIGKILL) // it is not reaped yet, so the number is still its own
		c.giveBack()
		c.stop.tracer.do(func() {
			awaitEnd(c.pid)
			if f := c.stop.family; f != nil {
				f.orphans[c.pid] = true
			}
		})
		c.stop.endTracer()
		c.reading.Lock()
		if c.mem != nil {
			_ = c.mem.Close()
		}
		c.reading.Unlock()
		if err == nil {
			err = reap(c.stop.target, inner, c.host)
		}
		c.err = err
	})
}

// giveBack frees the killed child's memory here and now (Linux 5.15), instead
// of when the child next gets a processor; else it is freed then.
func (c *child) giveBack() {
	fd, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return
	}
	_, _, _ = unix.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
	_ = unix.Close(fd)
}

// ReadAt reads the child's memory.
func (c *child) ReadAt(p []byte, a leak.Addr) (int, error) {
	c.reading.RLock() // the descriptor must not be closed, and its number used anew, meanwhile
	defer c.reading.RUnlock()
	if why := c.abandoned(); why != nil {
		return 0, why
	}
	n, err := c.mem.ReadAt(p, a)
	if err != nil {
		if why := c.abandoned(); why != nil {
			err = why
		}
	}
	return n, err
}

// resident lists the parts of r that have memory.
func (c *child) resident(r leak.Range) ([]leak.Range, error) {
	c.reading.RLock()
	defer c.reading.RUnlock()
	if why := c.abandoned(); why != nil {
		return nil, why
	}
	f, err := os.Open(c.stop.target.Root.Path(c.pid, "pagemap"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return resident(f, r)
}

// awaitEnd waits until a killed tracee has ended, which takes its memory's
// release (12 ms per GB).
func awaitEnd(pid int) {
	for try := 0; ; try++ {
		n := look(pid)
		if n.ended {
			return
		}
		if n.stopped {
			_ = cont(pid, 0) // at its exit, as the family of the target would have it
		}
		breathe(try)
	}
}
