package logs

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"stanch/internal/series"
)

// A history is a generated log with growth steps.
type history struct {
	templates []series.Series
	steps     []int64
	cause     string // "" where nothing correlates
	options   RankOptions
	about     string
}

const bin = int64(100) // ms

// generate makes a history of 2 to 48 hours, with or without a template that
// causes the steps. All that is drawn comes from the seed.
func generate(seed uint64, causal bool) history {
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	h := history{}
	length := int64(between(r, 2, 48) * 3600e3)
	h.options = RankOptions{From: 1_900_000_000_000, To: 1_900_000_000_000 + length}

	// The growth, at times that are regular, irregular, or in crowds.
	n := 5 + r.IntN(56)
	var growth []int64
	kind := r.IntN(3)
	if causal {
		kind = 1 + r.IntN(2)
	}
	switch kind {
	case 0:
		growth = periodic(r, h.options, float64(length)/float64(n), n)
	case 1:
		growth = scattered(r, h.options, n)
	case 2:
		growth = crowds(r, h.options, n)
	}
	for _, at := range growth {
		h.steps = append(h.steps, at+r.Int64N(10_000)) // seen at the next sample
	}

	noise := 5 + r.IntN(146)
	for i := range noise {
		h.templates = append(h.templates, noiseOf(r, h.options, fmt.Sprintf("noise %s", name(i))))
	}
	if causal {
		h.cause = "collecting from * failed: data truncated"
		h.templates = append(h.templates, causeOf(r, h.options, h.cause, growth))
	}
	r.Shuffle(len(h.templates), func(i, j int) { h.templates[i], h.templates[j] = h.templates[j], h.templates[i] })
	h.about = fmt.Sprintf("seed %d: %.0f h, %d steps, %d noise templates", seed, float64(length)/3600e3, len(h.steps), noise)
	return h
}

// causeOf writes a line 0 to 4 s before the growth, sometimes several, and is
// missing for some; and some come without growth.
func causeOf(r *rand.Rand, o RankOptions, template string, growth []int64) series.Series {
	missing, extra, lead := between(r, 0, 0.25), between(r, 0, 0.5), between(r, 50, 4000)
	var at []int64
	for _, g := range growth {
		if r.Float64() < missing {
			continue
		}
		for range 1 + r.IntN(3) {
			at = append(at, g-int64(lead*between(r, 0.5, 1.2)))
		}
	}
	at = append(at, scattered(r, o, int(extra*float64(len(growth))))...)
	return counted(o, template, at)
}

// noiseOf is a template that knows nothing of the steps: rare or frequent by
// chance, at regular times, or in bursts.
func noiseOf(r *rand.Rand, o RankOptions, template string) series.Series {
	length := float64(o.To - o.From)
	switch r.IntN(5) {
	case 0: // regular, of a period as people choose them, or any
		period := []float64{10, 15, 20, 30, 60, 300, 600, 900, 1800, 3600}[r.IntN(10)] * 1000
		if r.IntN(2) == 0 {
			period = math.Exp(between(r, math.Log(5000), math.Log(7200e3)))
		}
		return counted(o, template, periodic(r, o, period, int(length/period)))
	case 1: // bursts of up to 200 lines within seconds
		var at []int64
		for _, from := range scattered(r, o, 1+r.IntN(100)) {
			for range 1 + r.IntN(200) {
				at = append(at, from+r.Int64N(3000))
			}
		}
		return counted(o, template, at)
	case 2: // by the time of day, or of the hour
		cycle := []float64{3600e3, 86400e3}[r.IntN(2)]
		var at []int64
		for _, t := range scattered(r, o, int(length/math.Exp(between(r, math.Log(10e3), math.Log(3600e3))))) {
			if r.Float64() < 0.5+0.5*math.Sin(2*math.Pi*float64(t)/cycle) {
				at = append(at, t)
			}
		}
		return counted(o, template, at)
	default: // 1 line in 10 hours to 100 in a second
		rate := math.Exp(between(r, math.Log(1/36000e3), math.Log(0.1)))
		if rate*length > 20_000 {
			return dense(r, o, template, rate)
		}
		return counted(o, template, scattered(r, o, poisson(r, length*rate)))
	}
}

// dense is a template of several lines in a second. Of the points only so many
// are made that none of its windows is empty, which keeps the test quick.
func dense(r *rand.Rand, o RankOptions, template string, rate float64) series.Series {
	s := series.Series{Key: series.Key{Metric: series.Log, Part: template}}
	step := max(bin, (o.To-o.From)/10_000/bin*bin)
	for at := o.From; at < o.To; at += step {
		s.Points = append(s.Points, series.Point{At: at, Value: 1 + float64(r.IntN(1+int(rate*float64(step))))})
	}
	return s
}

func between(r *rand.Rand, low, high float64) float64 { return low + (high-low)*r.Float64() }

func scattered(r *rand.Rand, o RankOptions, n int) []int64 {
	at := make([]int64, n)
	for i := range at {
		at[i] = o.From + r.Int64N(o.To-o.From)
	}
	slices.Sort(at)
	return at
}

// crowds are several within minutes, and then none for long.
func crowds(r *rand.Rand, o RankOptions, n int) []int64 {
	var at []int64
	for len(at) < n {
		middle := o.From + r.Int64N(o.To-o.From)
		for range 1 + r.IntN(6) {
			at = append(at, min(o.To-10_000, max(o.From, middle+r.Int64N(600_000)-300_000)))
		}
	}
	at = at[:n]
	slices.Sort(at)
	return at
}

// periodic is a clock's: now and then a little late.
func periodic(r *rand.Rand, o RankOptions, period float64, n int) []int64 {
	var at []int64
	phase, late := between(r, 0, period), between(r, 0, 0.02)
	for i := range n {
		t := o.From + int64(phase+float64(i)*period+between(r, 0, late*period))
		if t < o.To {
			at = append(at, t)
		}
	}
	return at
}

func poisson(r *rand.Rand, mean float64) int {
	return max(0, int(math.Round(mean+math.Sqrt(mean)*r.NormFloat64())))
}

// counted gives the lines of a template, by 100 ms.
func counted(o RankOptions, template string, at []int64) series.Series {
	s := series.Series{Key: series.Key{Metric: series.Log, Part: template}}
	for _, t := range at {
		if t >= o.From && t <= o.To {
			s.Points = append(s.Points, series.Point{At: t / bin * bin, Value: 1})
		}
	}
	s.Points = inOrder(s.Points)
	return s
}

// name is a word without digits.
func name(i int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	return string([]byte{letters[i/26%26], letters[i%26]})
}
