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

// maker draws the parts of a history.
type maker struct {
	*rand.Rand
	o      RankOptions
	length int64  // ms
	busy   []span // when the program is at work: the only times for what is irregular
}

// generate makes a history of 2 to 48 hours, with or without a template that
// causes the steps. All that is drawn comes from the seed.
func generate(seed uint64, causal bool) history {
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	m := &maker{Rand: r, length: int64(2*3600e3 + r.Float64()*46*3600e3)}
	m.o = RankOptions{From: 1_900_000_000_000, To: 1_900_000_000_000 + m.length}
	work := r.IntN(6)
	m.busy = m.sessions(work)

	n, kind := 5+r.IntN(56), r.IntN(3)
	var growth []int64
	switch kind {
	case 0:
		late := 0.0 // a clock's; that its hand causes something cannot be seen
		if causal {
			late = m.between(0.02, 0.3)
		}
		growth = m.periodic(float64(m.length)/float64(n), late, n)
	case 1:
		growth = m.scattered(n)
	case 2:
		growth = m.crowds(n)
	}
	h := history{options: m.o}
	for _, at := range growth {
		h.steps = append(h.steps, at+r.Int64N(10_000)) // seen at the next sample
	}
	noise := 5 + r.IntN(146)
	for i := range noise {
		h.templates = append(h.templates, m.noise(fmt.Sprintf("noise %c%c", 'a'+i/26, 'a'+i%26)))
	}
	if causal {
		h.cause = "collecting from * failed: data truncated"
		h.templates = append(h.templates, m.causing(h.cause, growth))
	}
	r.Shuffle(len(h.templates), func(i, j int) { h.templates[i], h.templates[j] = h.templates[j], h.templates[i] })
	h.about = fmt.Sprintf("seed %d: %.0f h at work by rule %d, %d steps by rule %d, %d noise templates",
		seed, float64(m.length)/3600e3, work, len(h.steps), kind, noise)
	return h
}

// sessions are when the program is at work: ten minutes of each hour, a third
// of the day, a tenth of the time now and then, or always.
func (m *maker) sessions(rule int) []span {
	var busy []span
	switch rule {
	case 0:
		for at := m.o.From + m.Int64N(3600e3); at < m.o.To; at += 3600e3 {
			busy = append(busy, m.o.clip(at, at+600e3))
		}
	case 1:
		for at := m.o.From + m.Int64N(7200e3); at < m.o.To; at += 86400e3 {
			busy = append(busy, m.o.clip(at, at+8*3600e3))
		}
	case 2:
		for n := int64(0); n < m.length/10; {
			at, long := m.o.From+m.Int64N(m.length), 300e3+m.Int64N(1500e3)
			busy = append(busy, m.o.clip(at, at+long))
			n += long
		}
		slices.SortFunc(busy, func(a, b span) int { return int(a.from - b.from) })
	default:
		return []span{{m.o.From, m.o.To}}
	}
	return joined(busy)
}

// moment is any time at which the program is at work.
func (m *maker) moment() int64 {
	n := m.Int64N(max(1, length(m.busy)))
	for _, s := range m.busy {
		if n < s.to-s.from {
			return s.from + n
		}
		n -= s.to - s.from
	}
	return m.o.From
}

func (m *maker) scattered(n int) []int64 {
	at := make([]int64, n)
	for i := range at {
		at[i] = m.moment()
	}
	slices.Sort(at)
	return at
}

// crowds are several within minutes, and then none for long.
func (m *maker) crowds(n int) []int64 {
	var at []int64
	for len(at) < n {
		middle := m.moment()
		for range 1 + m.IntN(6) {
			at = append(at, min(m.o.To-10_000, max(m.o.From, middle+m.Int64N(600_000)-300_000)))
		}
	}
	at = at[:n]
	slices.Sort(at)
	return at
}

// periodic comes at regular times. What is late is so from time to time, and
// the next one as well.
func (m *maker) periodic(period, late float64, n int) []int64 {
	var at []int64
	t := m.between(0, period)
	for range n {
		if t >= 0 && t < float64(m.length) {
			at = append(at, m.o.From+int64(t))
		}
		t += math.Max(period/4, period*(1+late*m.NormFloat64()))
	}
	return at
}

// causing writes a line 0 to 4 s before the growth, sometimes several, and is
// missing for some; and some come without growth.
func (m *maker) causing(template string, growth []int64) series.Series {
	missing, extra, lead := m.between(0, 0.25), m.between(0, 0.5), m.between(50, 4000)
	at := m.scattered(int(extra * float64(len(growth))))
	for _, g := range growth {
		if m.Float64() < missing {
			continue
		}
		for range 1 + m.IntN(3) {
			at = append(at, g-int64(lead*m.between(0.5, 1.2)))
		}
	}
	return m.counted(template, at)
}

// noise is a template that knows nothing of the steps: rare or frequent by
// chance, at regular times, or in bursts.
func (m *maker) noise(template string) series.Series {
	length := float64(m.length)
	switch m.IntN(5) {
	case 0: // of a period as people choose them, or any
		period := []float64{10, 15, 20, 30, 60, 300, 600, 900, 1800, 3600}[m.IntN(10)] * 1000
		if m.IntN(2) == 0 {
			period = math.Exp(m.between(math.Log(5e3), math.Log(7200e3)))
		}
		return m.counted(template, m.periodic(period, m.between(0, 0.02)*float64(m.IntN(2)), int(length/period)))
	case 1: // bursts of up to 60 lines within seconds
		var at []int64
		for _, from := range m.scattered(1 + m.IntN(100)) {
			for range 1 + m.IntN(60) {
				at = append(at, from+m.Int64N(3000))
			}
		}
		return m.counted(template, at)
	}
	// 1 line in 10 hours to 100 in a second. Of very many only so many points
	// are made that no window is empty.
	rate := math.Exp(m.between(math.Log(1/36000e3), math.Log(0.1)))
	if rate*length < 15_000 {
		return m.counted(template, m.scattered(int(rate*length+math.Sqrt(rate*length)*math.Abs(m.NormFloat64()))))
	}
	s := series.Series{Key: series.Key{Metric: series.Log, Part: template}}
	step := max(100, m.length/10_000/100*100)
	for at := m.o.From; at < m.o.To; at += step {
		s.Points = append(s.Points, series.Point{At: at, Value: 1 + float64(m.IntN(1+int(rate*float64(step))))})
	}
	return s
}

// counted gives the lines of a template, by 100 ms.
func (m *maker) counted(template string, at []int64) series.Series {
	return lines(template, slices.DeleteFunc(at, func(t int64) bool { return t < m.o.From || t > m.o.To })...)
}

// lines is a template that was written at those times.
func lines(template string, at ...int64) series.Series {
	s := series.Series{Key: series.Key{Metric: series.Log, Part: template}}
	for _, t := range at {
		s.Points = append(s.Points, series.Point{At: t - t%100, Value: 1})
	}
	s.Points = inOrder(s.Points)
	return s
}

func (m *maker) between(low, high float64) float64 { return low + (high-low)*m.Float64() }
