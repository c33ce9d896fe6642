package logs

import (
	"slices"

	"stanch/internal/series"
)

// Gap is a time in which nobody followed the logs; Unix milliseconds.
type Gap struct{ From, To int64 }

// without takes gaps out of the time: what comes later moves up, so that no
// window is without lines because nobody read them. What lies in a gap is
// dropped.
type without []Gap

// newWithout sorts gaps and joins those that overlap.
func newWithout(gaps []Gap) without {
	gaps = slices.DeleteFunc(slices.Clone(gaps), func(g Gap) bool { return g.To <= g.From })
	slices.SortFunc(gaps, func(a, b Gap) int { return int(max(-1, min(1, a.From-b.From))) })
	var out without
	for _, g := range gaps {
		if n := len(out); n > 0 && g.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, g.To)
			continue
		}
		out = append(out, g)
	}
	return out
}

// at moves a time; ok is false when it lies in a gap, and then it is moved to
// the begin of that.
func (w without) at(t int64) (moved int64, ok bool) {
	moved, ok = t, true
	for _, g := range w {
		switch {
		case t >= g.To:
			moved -= g.To - g.From
		case t > g.From:
			return moved - (t - g.From), false
		default:
			return moved, ok
		}
	}
	return moved, ok
}

func (w without) times(list []int64) []int64 {
	var out []int64
	for _, t := range list {
		if moved, ok := w.at(t); ok {
			out = append(out, moved)
		}
	}
	return out
}

func (w without) series(s series.Series) series.Series {
	var out []series.Point
	for _, p := range s.Points {
		if moved, ok := w.at(p.At); ok {
			out = append(out, series.Point{At: moved, Value: p.Value})
		}
	}
	return series.Series{Key: s.Key, Points: out}
}
