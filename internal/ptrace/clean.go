package ptrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Clean removes what a killed stanch left in t: a snapshot's child that became
// a zombie, and the bytes of a stub in the padding of a module. It says what
// it removed; nothing found is no error, and then nothing is stopped. A
// zombie is reaped only when it surely is ours.
func Clean(ctx context.Context, t *proc.Target) (cleaned []string, err error) {
	if err := refuse(t); err != nil {
		return nil, err
	}
	left, err := leftovers(t)
	if err != nil {
		return nil, err
	}
	// A thread that is still in a stub may be about to fork from it, so the
	// children come second.
	for _, at := range left {
		if err := restore(ctx, t, at); err != nil {
			return cleaned, err
		}
		cleaned = append(cleaned, fmt.Sprintf("restored %d bytes behind the code of %s", at.size, at.where))
	}
	awaitDying(ctx, t)
	for _, pid := range zombies(t) {
		inner, err := innermost(t.Root, pid)
		if err != nil {
			continue // reaped meanwhile
		}
		if err := reap(t, inner, t.ID.PID); err != nil {
			return cleaned, err
		}
		cleaned = append(cleaned, fmt.Sprintf("reaped the child %d of an interrupted snapshot", pid))
	}
	return cleaned, nil
}

// awaitDying waits a moment for children that the death of stanch ends: one
// that was killed with it, or that is about to exit from its copy of a stub.
func awaitDying(ctx context.Context, t *proc.Target) {
	deadline := time.Now().Add(2 * time.Second)
	for try := 0; time.Now().Before(deadline) && ctx.Err() == nil; try++ {
		dying := false
		for _, pid := range children(t) {
			st, err := readThreadStat(t.Root.Path(pid))
			if err != nil || st.ppid != t.ID.PID || st.state == 'Z' || st.exitSignal != 0 {
				continue
			}
			c, err := t.Root.Open(pid)
			if err != nil {
				continue
			}
			if status, err := c.Status(); err != nil || status.TracerPID != 0 {
				continue // the snapshot of a living stanch
			}
			stubs, err := leftovers(c)
			dying = dying || len(stubs) > 0 || errors.Is(err, proc.ErrGone) || st.flags&flagExiting != 0 || marked(t.Root, pid)
		}
		if !dying {
			return
		}
		breathe(try + 100)
	}
}

// zombies lists the children of t that are ended snapshots.
func zombies(t *proc.Target) []int {
	var out []int
	for _, pid := range children(t) {
		if ours(t.Root, pid, t.ID.PID) {
			out = append(out, pid)
		}
	}
	return out
}

// children lists the PIDs of the children of all threads of t, from
// /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN) or from all processes.
func children(t *proc.Target) []int {
	var out []int
	lists, _ := filepath.Glob(t.Path("task", "*", "children")) // the pattern is well-formed
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err != nil {
			continue // the thread ended, and its children moved to another
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				out = append(out, pid)
			}
		}
	}
	if len(lists) > 0 {
		return out
	}
	all, err := t.Root.PIDs()
	if err != nil {
		return nil
	}
	return all // whose child each is, ours checks
}

// innermost is the number of a process in its own PID namespace, which is the
// one its parent uses.
func innermost(r proc.Root, pid int) (int, error) {
	t, err := r.Open(pid)
	if err != nil {
		return 0, err
	}
	st, err := t.Status()
	if err != nil {
		return 0, err
	}
	if n := len(st.NSPid); n > 0 {
		return st.NSPid[n-1], nil
	}
	return pid, nil
}

// leftovers finds stubs in the padding of t's modules.
func leftovers(t *proc.Target) ([]site, error) {
	maps, err := t.Maps()
	if err != nil {
		return nil, err
	}
	mem, err := t.Mem()
	if err != nil {
		return nil, err
	}
	defer func() { _ = mem.Close() }()
	var out []site
	for _, p := range paddings(maps, mem) {
		var head [headerSize]byte
		if n, _ := mem.ReadAt(head[:], p.Start); n < len(head) || [16]byte(head[:16]) != magic {
			continue
		}
		size, fill := int(order.Uint32(head[16:])), order.Uint32(head[20:])
		if size < headerSize || size > p.size() || fill > 0xff {
			return nil, fmt.Errorf("the stub in %s at %v is damaged: %w", p.where, p.Start, proc.ErrUnsupported)
		}
		out = append(out, site{p, size, byte(fill)})
	}
	return out, nil
}

// restore removes a stub once no thread is in it or will come back to it.
func restore(ctx context.Context, t *proc.Target, at site) error {
	deadline := time.Now().Add(5 * time.Second)
	for try := 0; ; try++ {
		err := restoreNow(ctx, t, at)
		again := errors.Is(err, errInUse) || errors.Is(err, ErrStuck) || errors.Is(err, ErrPause)
		if !again || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		breathe(try + 100)
	}
}

func restoreNow(ctx context.Context, t *proc.Target, at site) error {
	s, err := Start(ctx, t, Options{})
	if err != nil {
		return err
	}
	err = s.held(func() error {
		if s.inUse(at.span()) {
			return errInUse
		}
		return s.erase(&at)
	})
	return errors.Join(err, s.Release())
}

var errInUse = errors.New("a thread is still inside the stub of an interrupted stanch; it does no harm, try again later")

// inUse reports whether a thread executes r, or runs a signal handler that
// interrupted r.
func (s *Stop) inUse(r leak.Range) bool {
	for _, th := range s.threads {
		if th.state != stopped {
			continue
		}
		if r.Contains(pc(&th.Regs)) || s.returnsTo(th, r) {
			return true
		}
	}
	return false
}

// returnsTo looks for a signal frame on the thread's stack that returns to r.
func (s *Stop) returnsTo(th *thread, r leak.Range) bool {
	sp := stackPointer(&th.Regs) &^ 7
	m := proc.Find(s.maps, sp)
	if m == nil {
		return false
	}
	const most = 1 << 20 // signal frames lie near the top
	buf := make([]byte, min(uint64(m.End-sp), most))
	n, _ := s.mem.ReadAt(buf, sp)
	for i := 0; i+interruptedSize <= n; i += 8 {
		if at, ok := interrupted(buf[i:]); ok && r.Contains(at) {
			return true
		}
	}
	return false
}
