package ptrace

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// How often the watch looks. Reading all limits takes about half a
// millisecond; the shorter time is for targets with little room.
const (
	watchEvery   = 20 * time.Millisecond
	watchClosely = 5 * time.Millisecond
	littleRoom   = 1 << 30
)

// watch looks after the child until it is finished: it gives the snapshot up
// when the target has used half of its room, ends, or starts another program.
// The child keeps the old program's descriptors open until then, so the end of
// the target is noticed at once.
func (c *child) watch() {
	t := c.stop.target
	every := watchEvery
	if c.budget.least.Left < littleRoom {
		every = watchClosely
	}
	program, err := t.ExecID()
	pidfd, pidfdErr := unix.PidfdOpen(t.ID.PID, 0)
	go func() {
		// The thread ends with the goroutine. It must get its turn at once also
		// when the rest of stanch runs at a low priority.
		runtime.LockOSThread()
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20)
		defer close(c.done)
		if err != nil || pidfdErr != nil {
			c.end(fmt.Errorf("%w: %w", ErrAbandoned, errors.Join(err, pidfdErr)))
			return
		}
		defer func() { _ = unix.Close(pidfd) }()
		for !c.over(pidfd, every) {
			if why := c.trouble(t, program); why != nil {
				c.end(fmt.Errorf("%w: %w", ErrAbandoned, why))
				return
			}
		}
	}()
}

// over sleeps until the next look, the end of the target or the end of the
// snapshot, and reports whether it is the latter.
func (c *child) over(pidfd int, d time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(c.wake), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds, int(d/time.Millisecond)) // a signal only makes the next look come earlier
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

// trouble says why the snapshot must be given up, nil when it need not.
func (c *child) trouble(t *proc.Target, program proc.ExecID) error {
	now, err := t.ExecID()
	if err != nil {
		return err
	}
	if now != program {
		return fmt.Errorf("pid %d started another program: %w", t.ID.PID, proc.ErrGone)
	}
	room, err := t.Headroom()
	if err != nil {
		return err
	}
	if what, short := c.budget.short(room); short {
		return fmt.Errorf("the target's memory runs short: %s", what)
	}
	return nil
}
