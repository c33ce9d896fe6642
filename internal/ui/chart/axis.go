package chart

import (
	"math"
	"strconv"
	"time"

	"stanch/internal/leak"
)

// Axis is a scale of values. Its ends are numbers that stand on it.
type Axis struct {
	Low, High float64
	Step      float64 // between two numbers
	Limit     bool    // the limit of the chart lies on it
}

// reach is how many times the highest value a limit may be to be drawn: one
// farther away would press the line to the ground.
const reach = 2.0

// finest is the least part of a value that an axis still divides: a float64 has
// 15 digits, and some of them must stay for the steps.
const finest = 1e-12

// most bounds what is drawn, so that the length of an axis is a number too.
const most = 1e300

// Values chooses the scale of a chart for so many steps at most: from zero, or
// from near the lowest value where a line that is not known to be steady would
// look so; to the limit, where that is within reach.
func Values(s *leak.ReportService, c *leak.ReportChart, steps int) Axis {
	low, high := Extent(c)
	low, high = max(low, -most), min(high, most)
	var a Axis
	if limit, ok := Limit(c); ok && limit <= reach*high {
		a.Limit = true
		high = max(high, limit)
	}
	t := trend(s, c)
	if steady := t != nil && t.Verdict == leak.VerdictSteady; low >= 0 && (steady || low < high/2) {
		low = 0
	}
	if low == high {
		// A value that never changes stands in the middle of something.
		low, high = min(0, low), max(high, 1)
	}
	if steps = max(steps, 1); low < 0 && high > 0 {
		steps = max(steps, 2) // one on each side of zero
	}
	// Steps that a number this large cannot be counted by would never end.
	a.Step = nice(max((high-low)/float64(steps), finest*max(high, -low)))
	if !c.Bytes && whole(c) {
		a.Step = max(a.Step, 1)
	}
	for {
		a.Low, a.High = math.Floor(low/a.Step)*a.Step, math.Ceil(high/a.Step-1e-9)*a.Step
		if a.Low == a.High {
			a.High += a.Step
		}
		if a.High-a.Low <= float64(steps)*a.Step*(1+1e-9) {
			return a
		}
		a.Step = nice(a.Step * 1.01)
	}
}

// nice is the next of 1, 2, 5, 10, 20, ... that is not below v.
func nice(v float64) float64 {
	if v <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*base*(1+1e-9) {
			return m * base
		}
	}
	return 10 * base
}

// whole reports whether a chart counts whole things, as all do but rates.
func whole(c *leak.ReportChart) bool {
	for _, p := range c.Points {
		if p[1] != math.Trunc(p[1]) {
			return false
		}
	}
	return true
}

// Label writes a value of a chart: "1.2 GB", "1,024", "0.03".
func Label(v float64, bytes bool) string {
	switch {
	case v == 0:
		return "0"
	case bytes:
		return leak.FormatBytes(v)
	case math.Abs(v) < 100 && v != math.Trunc(v):
		return strconv.FormatFloat(v, 'g', 3, 64)
	case v < 0:
		return "-" + leak.FormatCount(uint64(-v+0.5))
	}
	return leak.FormatCount(uint64(v + 0.5))
}

// Tick is a moment that has its name below the axis.
type Tick struct {
	At    float64 // Unix seconds
	Label string  // "03:00", "21 Nov" for the begin of a day
}

var strides = []time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

// Times are round moments of the zone between two, at most so many.
func Times(from, to float64, zone *time.Location, most int) []Tick {
	most = max(most, 1)
	span := time.Duration((to - from) * float64(time.Second))
	for _, stride := range strides {
		if span <= stride*time.Duration(most) {
			return clockTicks(from, to, zone, stride)
		}
	}
	days := 1
	for _, n := range []int{1, 2, 7, 14, 28, 56, 112, 364} {
		days = n
		if span <= time.Duration(n*most)*24*time.Hour {
			break
		}
	}
	return dayTicks(from, to, zone, days)
}

// clockTicks are counted from midnight, so that they stay round where the
// clocks of the zone are turned.
func clockTicks(from, to float64, zone *time.Location, stride time.Duration) []Tick {
	format := "15:04"
	if stride < time.Minute {
		format = "15:04:05"
	}
	var out []Tick
	start := moment(from, zone)
	for day := 0; ; day++ {
		midnight := time.Date(start.Year(), start.Month(), start.Day()+day, 0, 0, 0, 0, zone)
		if unix(midnight) > to {
			return out
		}
		for n := time.Duration(0); n < 24*time.Hour; n += stride {
			at := time.Date(midnight.Year(), midnight.Month(), midnight.Day(), 0, 0, int(n/time.Second), 0, zone)
			if u := unix(at); u >= from && u <= to {
				label := at.Format(format)
				if n == 0 {
					label = at.Format("2 Jan")
				}
				out = append(out, Tick{u, label})
			}
		}
	}
}

func dayTicks(from, to float64, zone *time.Location, days int) []Tick {
	var out []Tick
	start := moment(from, zone)
	for day := 0; ; day += days {
		at := time.Date(start.Year(), start.Month(), start.Day()+day, 0, 0, 0, 0, zone)
		u := unix(at)
		if u > to {
			return out
		}
		if u >= from {
			out = append(out, Tick{u, at.Format("2 Jan")})
		}
	}
}

func moment(at float64, zone *time.Location) time.Time {
	return time.UnixMilli(int64(at * 1000)).In(zone)
}
