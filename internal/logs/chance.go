package logs

import "math"

// overall is the logarithm of the chance that so many or more of the steps
// have a line before them, when lines and steps come at any times of the whole.
func overall(covered []span, steps []int64, before int, o RankOptions) float64 {
	windows := max(len(steps), int((o.To-o.From)/o.window()))
	with := max(before, int(math.Round(float64(length(covered))/float64(o.window()))))
	return tail(windows, min(with, windows), len(steps), before)
}

// nearby is how many windows on each side of a step it is compared with: of 25 s
// each with the default sample. With more, what a program does for ten minutes
// at a time looks like a cause; with fewer, four steps would tell nothing.
const nearby = 4

// local is the same chance, when steps and lines come in the same minutes but
// have no more to do with one another than that: a program at work writes
// lines of all kinds, and grows. The windows of the steps are compared with
// those in the minutes around them.
func local(covered []span, steps []int64, before int, o RankOptions) float64 {
	// What overlaps the window of any step counts to no side.
	near, own := around(steps, (nearby+1)*o.window(), o), around(steps, o.window(), o)
	free := length(near) - length(own)
	lined := overlap(near, covered) - overlap(own, covered)
	windows := len(steps) + int(free/o.window())
	with := before + int(math.Round(float64(lined)/float64(o.window())))
	return tail(windows, min(with, windows), len(steps), before)
}

// tail is the logarithm of the chance to draw at least so many windows that
// have a line, when some of all windows have one.
func tail(windows, with, drawn, least int) float64 {
	sum := math.Inf(-1)
	for k := least; k <= min(drawn, with); k++ {
		sum = addLogs(sum, hypergeometric(windows, with, drawn, k))
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
	whole := o.To - o.From
	free := whole - 4*o.window()
	if free <= 0 {
		return 1
	}
	var sum, squares float64
	for i := range shifts {
		_, part := math.Modf(float64(i+1) * golden)
		by := 2*o.window() + int64(part*float64(free))
		count := 0.0
		for _, s := range steps {
			if hit(covered, o.From+(s-o.From+by)%whole) {
				count++
			}
		}
		sum += count
		squares += count * count
	}
	mean := sum / shifts
	share := mean / float64(len(steps))
	drawn := mean * (1 - share)
	if drawn == 0 {
		return 1
	}
	return math.Max(1, (squares/shifts-mean*mean)/drawn)
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
