package proc

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells the time of an observation: CLOCK_BOOTTIME since it was made,
// which goes on through suspend, and the wall time of its zero. Only sources
// and the pipeline read it.
type Clock struct {
	zero time.Duration
	Wall time.Time // when the observation began
}

// NewClock starts a clock at zero now.
func NewClock() *Clock { return &Clock{zero: boottime(), Wall: time.Now()} }

// Now is the time since the clock was made.
func (c *Clock) Now() time.Duration { return boottime() - c.zero }

func boottime() time.Duration {
	var ts unix.Timespec
	// CLOCK_BOOTTIME exists since Linux 2.6.39 and cannot fail with a valid pointer.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
