package logs

import (
	"slices"

	"stanch/internal/series"
)

// span is a piece of time, Unix milliseconds.
type span struct{ from, to int64 }

// joined gives spans in order and apart; the given ones are in order of their
// begin.
func joined(spans []span) []span {
	var apart []span
	for _, s := range spans {
		if n := len(apart); n > 0 && s.from <= apart[n-1].to {
			apart[n-1].to = max(apart[n-1].to, s.to)
			continue
		}
		apart = append(apart, s)
	}
	return apart
}

// cover gives the times at which a step would have one of the lines before it.
func cover(points []series.Point, o RankOptions) []span {
	spans := make([]span, len(points))
	for i, p := range points {
		spans[i] = o.clip(p.At-o.after(), p.At+o.before())
	}
	return joined(spans)
}

// around gives the times so far from the steps at most.
func around(steps []int64, far int64, o RankOptions) []span {
	spans := make([]span, len(steps))
	for i, s := range steps {
		spans[i] = o.clip(s-far, s+far)
	}
	return joined(spans)
}

func (o RankOptions) clip(from, to int64) span { return span{max(from, o.From), min(to, o.To)} }

// length is how much time spans are in all.
func length(spans []span) int64 {
	var sum int64
	for _, s := range spans {
		sum += s.to - s.from
	}
	return sum
}

// overlap is how much time two lists of spans have in common. Both are in
// order and apart.
func overlap(a, b []span) int64 {
	var sum int64
	for len(a) > 0 && len(b) > 0 {
		sum += max(0, min(a[0].to, b[0].to)-max(a[0].from, b[0].from))
		if a[0].to < b[0].to {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return sum
}

// hit tells whether a time is within one of the spans.
func hit(spans []span, at int64) bool {
	n, _ := slices.BinarySearchFunc(spans, at, func(s span, at int64) int {
		if s.to < at {
			return -1
		}
		return 1
	})
	return n < len(spans) && spans[n].from <= at
}
