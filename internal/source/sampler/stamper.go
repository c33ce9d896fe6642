package sampler

import (
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/series"
)

// Clocks are three clocks read at one moment.
type Clocks struct {
	Wall time.Time     // CLOCK_REALTIME; its monotonic part does not matter
	Boot time.Duration // CLOCK_BOOTTIME, which goes on through suspend
	Mono time.Duration // CLOCK_MONOTONIC, which does not
}

// Stamper gives the times of sweeps. Stamps are the wall time at the start plus
// CLOCK_BOOTTIME since, and strictly increasing, since a store takes nothing
// that is older than what it has. The wall clock may part from them:
//
//   - slowly, as NTP corrects a clock: the stamps are led back, at most 5 ms for
//     each second, below what anybody would see in a rate;
//   - by more than 2 s forward: it was set. The stamps follow at once, and the
//     jump is said (series.ClockJumps, in seconds);
//   - by more than 2 s backward: the jump is said, and the stamps go on at half
//     the pace of time until the wall clock has caught up, in twice the time of
//     the jump. Until then they are ahead of it, by what Ahead tells, and rates
//     look twice as high.
//
// A wake-up from suspend is said too (series.Suspended): CLOCK_BOOTTIME has
// grown by more than CLOCK_MONOTONIC. It is no jump; the stamps went on.
//
// The zero value reads the clocks of the system. It is for one goroutine.
type Stamper struct {
	// Read reads the clocks; nil means those of the system.
	Read func() Clocks
	// After is the newest stamp that the store has, in Unix milliseconds: the
	// first one is later. A wall clock that is behind it was set back while
	// nobody watched.
	After int64

	last   Clocks
	offset time.Duration // of the stamps from CLOCK_BOOTTIME
	stamp  int64         // the last one
	ahead  time.Duration
}

const (
	// jump is what no drift reaches between two sweeps.
	jump = 2 * time.Second
	// asleep is how much CLOCK_BOOTTIME must gain: two clocks cannot be read at
	// one moment.
	asleep = time.Second
	// Of the time that passes, so much corrects a drift, and so much a jump
	// backward.
	slewDrift, slewJump = 0.005, 0.5
)

// Now gives the time of a sweep, and says what happened to the clocks since the
// last one.
func (s *Stamper) Now() (Time, []series.Sample) {
	read := s.Read
	if read == nil {
		read = readClocks
	}
	c := read()
	var jumped, slept, passed time.Duration
	if s.stamp == 0 {
		s.offset = wallOffset(c)
		s.stamp = s.After
		if behind := time.UnixMilli(s.After).Sub(c.Wall); s.After != 0 && behind > 0 {
			s.offset += behind
			if behind > jump {
				jumped = -behind
			}
		}
	} else {
		passed = c.Boot - s.last.Boot
		if jumped = wallOffset(c) - wallOffset(s.last); jumped.Abs() <= jump {
			jumped = 0
		}
		if slept = passed - (c.Mono - s.last.Mono); slept <= asleep {
			slept = 0
		}
	}
	s.last = c
	s.follow(wallOffset(c)-s.offset, passed)
	s.stamp = max(s.stamp+1, (s.offset + c.Boot).Milliseconds())
	s.ahead = time.UnixMilli(s.stamp).Sub(c.Wall)
	var said []series.Sample
	if jumped != 0 {
		said = append(said, series.Sample{Key: series.Key{Metric: series.ClockJumps}, At: s.stamp, Value: jumped.Seconds()})
	}
	if slept != 0 {
		said = append(said, series.Sample{Key: series.Key{Metric: series.Suspended}, At: s.stamp, Value: slept.Seconds()})
	}
	return Time{At: s.stamp, Boot: c.Boot}, said
}

// follow corrects the offset, which is wrong by off, for the time that passed.
func (s *Stamper) follow(off, passed time.Duration) {
	switch {
	case off > jump:
		s.offset += off
	case off < -jump:
		s.offset -= min(-off, time.Duration(float64(passed)*slewJump))
	default:
		most := time.Duration(float64(passed) * slewDrift)
		s.offset += max(-most, min(most, off))
	}
}

// Ahead is how far the last stamp was ahead of the wall clock.
func (s *Stamper) Ahead() time.Duration { return s.ahead }

// wallOffset is how far the wall clock is from CLOCK_BOOTTIME.
func wallOffset(c Clocks) time.Duration { return time.Duration(c.Wall.UnixNano()) - c.Boot }

func readClocks() Clocks {
	return Clocks{Wall: time.Unix(0, int64(since(unix.CLOCK_REALTIME))), Boot: since(unix.CLOCK_BOOTTIME), Mono: since(unix.CLOCK_MONOTONIC)}
}

func since(id int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts) // these exist since Linux 2.6.39, and the pointer is valid
	return time.Duration(ts.Nano())
}
