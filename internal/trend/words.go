package trend

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"stanch/internal/leak"
)

// amount writes a value of the trend with its unit: "45.2 MB", "17".
func (p *Pass) amount(v float64) string {
	switch {
	case p.trend.Bytes:
		return leak.FormatBytes(v)
	case v <= -1000:
		return "-" + leak.FormatCount(uint64(math.Round(-v)))
	case v >= 1000:
		return leak.FormatCount(uint64(math.Round(v)))
	}
	return strconv.FormatFloat(round(v)+0, 'f', -1, 64) // +0: no -0
}

// round keeps three figures.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2)
	if unit >= 1 {
		return math.Round(v)
	}
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// rate writes a growth per hour.
func (p *Pass) rate(perHour float64) string {
	if p.trend.Bytes && math.Abs(perHour) > 300e6 {
		return p.amount(perHour/60) + " a minute"
	}
	return p.amount(perHour) + " an hour"
}

func (p *Pass) signed(perHour float64) string {
	if perHour >= 0 {
		return "+" + p.amount(perHour) + "/h"
	}
	return p.amount(perHour) + "/h"
}

func (p *Pass) spanWords() string {
	return since(time.Duration(p.curve.span() * float64(time.Hour)))
}

// since writes a time by its two greatest units: "6 h", "2 d 4 h", "90 s".
func since(d time.Duration) string {
	neg := ""
	if d < 0 {
		neg, d = "-", -d
	}
	two := func(a time.Duration, an string, b time.Duration, bn string) string {
		d = d.Round(b)
		if rest := d % a / b; rest > 0 {
			return fmt.Sprintf("%s%d %s %d %s", neg, d/a, an, rest, bn)
		}
		return fmt.Sprintf("%s%d %s", neg, d/a, an)
	}
	switch {
	case d >= 24*time.Hour:
		return two(24*time.Hour, "d", time.Hour, "h")
	case d >= time.Hour:
		return two(time.Hour, "h", time.Minute, "min")
	case d >= 2*time.Minute:
		return two(time.Minute, "min", time.Second, "s")
	}
	return neg + strconv.FormatFloat(math.Round(d.Seconds()*10)/10, 'f', -1, 64) + " s"
}

// chance writes a small probability.
func chance(p float64) string {
	switch {
	case p < 1e-6:
		return "below 1 in a million"
	case p < 0.1:
		return "1 in " + strconv.FormatFloat(math.Floor(1/p), 'f', -1, 64)
	}
	return fmt.Sprintf("%.0f %%", 100*p)
}

// times writes a number of things.
func times(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case what == "process":
		return strconv.Itoa(n) + " processes"
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// time is the time by the clock of a time awake.
func (p *Pass) time(awake int64) time.Time { return at(p.books.clock(awake)) }
