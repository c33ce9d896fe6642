package logfile

import (
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reader gives the lines of one log their times.
type reader struct {
	finder finder
	zone   *time.Location
	last   int64 // time of the last line that was read of the past and has one
}

func newReader() *reader { return &reader{zone: time.Local} }

// What a time tells beside an arrival, in milliseconds.
const (
	hour    = 60 * 60 * 1000
	fresh   = 2000       // a time so little before the arrival may be that of the arrival
	early   = 100        // clocks are read one after the other
	quarter = 15 * 60000 // zones differ by multiples of it
	farZone = 26 * 4     // quarters of an hour between the farthest zones
	day     = 24 * 60 * 60 * 1000
)

// live says a line that arrived just now.
func (r *reader) live(raw []byte, arrived int64, say func(Line)) {
	text := clean(raw)
	if text == "" {
		return
	}
	st, text, ok := r.stamp(text, arrived)
	if text == "" {
		return
	}
	if !ok {
		say(Line{At: arrived, Text: cut(text)})
		return
	}
	at, own := settle(st, arrived)
	say(Line{At: at, HasTime: own, Text: cut(text)})
}

// past says a line that was written at some time. Without a time it is of that
// of the line before.
func (r *reader) past(raw []byte, say func(Line)) {
	text := clean(raw)
	if text == "" {
		return
	}
	st, text, ok := r.stamp(text, now())
	// A time to come is not that of a line that was written.
	if at := st.unixMilli(); ok && at < now()+day {
		r.last = at
	}
	if text != "" {
		say(Line{At: r.last, HasTime: r.last != 0, Text: cut(text)})
	}
}

// stamp finds the time in a line, and what of it is text.
func (r *reader) stamp(line string, arrived int64) (stamp, string, bool) {
	ref := time.UnixMilli(arrived).In(r.zone)
	if st, hasTime, text, ok := structured(line, ref); ok {
		return st, text, hasTime
	}
	st, text, ok := r.finder.find(line, ref)
	return st, strings.TrimSpace(text), ok
}

// settle gives the time of a line that arrived just now and has a time of its
// own; own is false where that cannot be right.
func settle(st stamp, arrived int64) (at int64, own bool) {
	at = st.unixMilli()
	if !st.zoned {
		// Another zone than the host's: of a container, of a program that
		// writes UTC. A line is hardly ever late by just that.
		n := int64(math.Round(float64(arrived-at) / quarter))
		if off := arrived - (at + n*quarter); n != 0 && max(n, -n) <= farZone && off >= -early && off < fresh {
			at += n * quarter
		}
	}
	late := arrived - at
	switch {
	case st.unit >= time.Second && late >= 0 && late < fresh:
		return arrived, true
	case late < -fresh: // from a clock that is ahead
		return arrived, false
	case st.within && late > hour: // of what the line tells about
		return arrived, false
	case st.at.IsZero() && late >= fresh: // the kernel's clock stands still while the host sleeps
		return arrived, false
	}
	return at, true
}

// unixMilli is the time as Unix time. A time since the boot becomes one by the
// clocks of this moment.
func (s stamp) unixMilli() int64 {
	if !s.at.IsZero() {
		return s.at.UnixMilli()
	}
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil { // it cannot fail: clock_getres(2)
		return 0
	}
	return time.Now().Add(s.sinceUp - time.Duration(ts.Nano())).UnixMilli()
}
