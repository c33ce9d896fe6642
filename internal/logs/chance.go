package logs

import (
	"math"
	"slices"

	"stanch/internal/series"
)

// span is a piece of time, of steps that would have a line before them.
type span struct{ from, to int64 }

// cover gives the times at which a step would have one of the lines before it,
// in order and apart.
func cover(points []series.Point, o RankOptions) []span {
	var spans []span
	for _, p := range points {
		s := span{max(p.At-o.after(), o.From), min(p.At+o.before(), o.To)}
		if n := len(spans); n > 0 && s.from <= spans[n-1].to {
			spans[n-1].to = max(spans[n-1].to, s.to)
			continue
		}
		spans = append(spans, s)
	}
	return spans
}

// hit tells whether a time is covered.
func hit(spans []span, at int64) bool {
	n, _ := slices.BinarySearchFunc(spans, at, func(s span, at int64) int {
		if s.to < at {
			return -1
		}
		return 1
	})
	return n < len(spans) && spans[n].from <= at
}

// share is how much of the time is covered.
func share(spans []span, o RankOptions) float64 {
	var sum int64
	for _, s := range spans {
		sum += s.to - s.from
	}
	return float64(sum) / float64(max(1, o.To-o.From))
}

// tail is the logarithm of the chance that so many or more of the steps have a
// line before them, when lines and steps have nothing to do with one another.
func tail(covered []span, steps []int64, before int, o RankOptions) float64 {
	length := o.before() + o.after()
	windows := max(len(steps), int((o.To-o.From)/length))
	with := min(windows, max(before, int(math.Round(share(covered, o)*float64(windows)))))
	sum := math.Inf(-1)
	for k := before; k <= min(len(steps), with); k++ {
		sum = addLogs(sum, hypergeometric(windows, with, len(steps), k))
	}
	return math.Min(0, sum)
}

// shifts is how many times the steps are moved. The spread of a count is known
// to about the square root of 2/shifts of itself: 5 %.
const shifts = 800

// spread is how much more the number of steps with a line varies when all are
// moved together than it does for windows drawn one by one; 1 when it does not.
func spread(covered []span, steps []int64, o RankOptions) float64 {
	// Places that divide the time evenly in any number of them: multiples of
	// the golden ratio. Around zero the steps are where they are, with the
	// lines that may belong to them, so those places are left out.
	const golden = 0.6180339887498949
	length, whole := o.before()+o.after(), o.To-o.From
	free := whole - 2*length
	if free <= 0 {
		return 1
	}
	var n, sum, squares float64
	for i := range shifts {
		_, part := math.Modf(float64(i+1) * golden)
		by := length + int64(part*float64(free))
		count := 0.0
		for _, s := range steps {
			if hit(covered, o.From+(s-o.From+by)%whole) {
				count++
			}
		}
		n++
		sum += count
		squares += count * count
	}
	mean := sum / n
	p := mean / float64(len(steps))
	drawn := float64(len(steps)) * p * (1 - p)
	if drawn == 0 {
		return 1
	}
	return math.Max(1, (squares/n-mean*mean)/drawn)
}

// hypergeometric is the logarithm of the chance that k of the drawn ones are
// marked, of all that there are without putting any back.
func hypergeometric(all, marked, drawn, k int) float64 {
	if k > marked || k > drawn || drawn-k > all-marked {
		return math.Inf(-1)
	}
	return choose(marked, k) + choose(all-marked, drawn-k) - choose(all, drawn)
}

// choose is the logarithm of a binomial coefficient.
func choose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

func addLogs(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}
