package ptrace

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// reap makes the target wait for its child, a zombie that it does not know
// of, in the target's own numbering. One thread stops for it, first the one
// that is named. That the target has ended, or has seen the child itself, is
// no error.
func reap(t *proc.Target, child, first int) error {
	deadline := time.Now().Add(2 * time.Second)
	for try := 0; ; try++ {
		tids, err := t.Threads()
		if errors.Is(err, proc.ErrGone) || t.Check() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, tid := range append([]int{first}, tids...) {
			if err = reapBy(t, tid, child); err == nil || errors.Is(err, proc.ErrDenied) {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the snapshot's child stays a zombie of pid %d: %w", t.ID.PID, err)
		}
		breathe(try + 100)
	}
}

// reapBy lets one thread of the target call wait4.
func reapBy(t *proc.Target, tid, child int) error {
	// Only this thread stops, and under heavy load it waits for its turn on a
	// processor rather than for us.
	s, err := start(context.Background(), t, Options{MaxPause: time.Second, StopWait: 500 * time.Millisecond}, tid)
	if err != nil {
		return err
	}
	got, err := s.Call(unix.SYS_WAIT4, uint64(child), 0, unix.WALL|unix.WNOHANG, 0)
	if e := s.Release(); err == nil {
		err = e
	}
	switch {
	case errors.Is(err, unix.ECHILD):
		return nil
	case err == nil && int(got) != child:
		return fmt.Errorf("wait4 in the target returned %d: %w", got, errUnmovable)
	}
	return err
}
