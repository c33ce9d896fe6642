package leak

import (
	"math"
	"strconv"
	"time"
)

// FormatCount writes a whole number with commas: 214,600.
func FormatCount(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// FormatBytes writes a size in decimal units with up to three digits: 85.8 MB.
func FormatBytes(n float64) string {
	if math.Round(math.Abs(n)) < 1000 {
		if n := int64(math.Round(n)); n != 1 {
			return strconv.FormatInt(n, 10) + " bytes"
		}
		return "1 byte"
	}
	units := []string{"KB", "MB", "GB", "TB", "PB", "EB"}
	n /= 1000
	for len(units) > 1 && math.Abs(n) >= 999.5 {
		n /= 1000
		units = units[1:]
	}
	return trim(n) + " " + units[0]
}

// trim keeps one decimal below 100, and none when it is zero.
func trim(n float64) string {
	prec := 1
	if math.Abs(n) >= 99.95 || math.Round(n*10) == math.Round(n)*10 {
		prec = 0
	}
	return strconv.FormatFloat(n, 'f', prec, 64)
}

// durationUnits are the units of times, each from where it is used: where the
// unit below it, rounded, would read as much.
var durationUnits = []struct {
	from, unit time.Duration
	name       string
}{
	{72*time.Hour - 30*time.Minute, 24 * time.Hour, "d"},
	{2*time.Hour - 30*time.Second, time.Hour, "h"},
	{2*time.Minute - 500*time.Millisecond, time.Minute, "min"},
	{time.Second - 500*time.Microsecond, time.Second, "s"},
	{time.Millisecond - 500*time.Nanosecond, time.Millisecond, "ms"},
}

// FormatDuration writes a time in the one unit that fits: 12 ms, 30 s, 14 h,
// 6 d.
func FormatDuration(d time.Duration) string {
	for _, u := range durationUnits {
		if d.Abs() < u.from {
			continue
		}
		n := float64(d) / float64(u.unit)
		if math.Abs(n) >= 10 || u.unit > time.Second {
			n = math.Round(n)
		}
		return trim(n) + " " + u.name
	}
	if d == 0 {
		return "0 s"
	}
	return strconv.FormatInt(d.Microseconds(), 10) + " us"
}

// FormatDurations writes an interval in the unit of its longer end: 11-17 h;
// one time when both ends read the same.
func FormatDurations(low, high time.Duration) string {
	for _, u := range durationUnits {
		if high.Abs() < u.from {
			continue
		}
		number := func(d time.Duration) string {
			n := float64(d) / float64(u.unit)
			if math.Abs(n) >= 10 {
				n = math.Round(n)
			}
			return trim(n)
		}
		if number(low) == number(high) {
			return FormatDuration(high)
		}
		return number(low) + "-" + number(high) + " " + u.name
	}
	return FormatDuration(high)
}
