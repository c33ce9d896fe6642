package corpus

import (
	"math"
	"slices"
	"time"

	"stanch/internal/series"
)

// leaking are the families that grow without end.
var leaking = []Family{
	{Name: "linear", Doc: "by so much a second", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.line()
	}},
	{Name: "linear-unmeasured", Doc: "the same; the load was not measured", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.unseen = true
		d.line()
	}},
	{Name: "linear-sawtooth", Doc: "below the teeth of a collector, eight at least", Leak: true, build: func(d *draft) {
		d.white(d.sigma)
		d.sawtooth(d.sigma*d.between(5, 30), max(6, float64(d.n)/math.Exp(d.between(math.Log(8), math.Log(200)))), 0.05)
		d.line()
	}},
	{Name: "linear-uneven", Doc: "below uneven teeth, twelve at least", Leak: true, build: func(d *draft) {
		d.white(d.sigma)
		d.sawtooth(d.sigma*d.between(5, 30), max(6, float64(d.n)/math.Exp(d.between(math.Log(12), math.Log(200)))), 0.4)
		d.line()
	}},
	{Name: "linear-daily", Doc: "on top of a rhythm seen twice at least", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.sine(d.sigma*d.between(2, 15), d.rhythm())
		d.line()
	}},
	{Name: "linear-follows", Doc: "beside memory that follows the load up and down", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.follow(d.wave(float64(2+d.IntN(6))), d.between(3, 15))
		d.line()
	}},
	{Name: "per-request", Doc: "by so much for each unit of work, which varies", Leak: true, build: func(d *draft) {
		d.anyNoise()
		shape := d.wave(d.between(1, 6))
		least, times := d.between(0.01, 0.2), d.between(1, 6)
		sum := 0.0
		d.growth = make([]float64, d.n)
		for i := range d.load {
			d.load[i] = least * (1 + times*shape(i)) * math.Exp(0.15*d.NormFloat64())
			sum += d.load[i]
			d.growth[i] = sum
		}
	}},
	{Name: "idle", Doc: "only while nothing is to be done, half of the time", Leak: true, build: func(d *draft) {
		d.anyNoise()
		period := float64(d.n) / d.between(4, 20)
		sum := 0.0
		d.growth = make([]float64, d.n)
		for i := range d.load {
			if d.load[i] = 0.5 * math.Exp(0.15*d.NormFloat64()); math.Sin(2*math.Pi*float64(i)/period) < 0 {
				d.load[i] = 0.001
				sum++
			}
			d.growth[i] = sum
		}
	}},
	{Name: "steps-regular", Doc: "by steps in even distances, eight at least", Leak: true, build: func(d *draft) {
		d.anyNoise()
		count := 8 + d.IntN(40)
		at := make([]float64, count)
		for i := range at {
			at[i] = (float64(i) + 0.5) / float64(count)
		}
		d.stairs(at)
	}},
	{Name: "steps-random", Doc: "by steps at random moments, eight at least", Leak: true, build: func(d *draft) {
		d.anyNoise()
		at := make([]float64, 8+d.IntN(40))
		for i := range at {
			at[i] = d.between(0.01, 0.99)
		}
		d.stairs(at)
	}},
	{Name: "steps-clear", Doc: "by steps that stand out of the noise", Leak: true, build: func(d *draft) {
		d.white(d.sigma / 4 / max(1, d.snr))
		at := make([]float64, 8+d.IntN(16))
		for i := range at {
			at[i] = (float64(i) + d.between(0.2, 0.8)) / float64(len(at))
		}
		d.stairs(at)
		d.snr = d.snr * 25 * float64(len(at))
	}},
	{Name: "deploy", Doc: "linear, since a moment within 20 to 60 % of the window", Leak: true, build: func(d *draft) {
		d.anyNoise()
		from := d.between(0.2, 0.6)
		d.grow(func(i int) float64 { return max(0, d.part(i)-from) })
	}},
	{Name: "nanny", Doc: "linear in each of some lives", Leak: true, build: func(d *draft) {
		d.white(d.sigma)
		d.growth = make([]float64, d.n)
		d.everyLife(func(float64) float64 { return 0 })
		begin := 0
		for i := range d.growth {
			if slices.Contains(d.lives, i) {
				begin = i
			}
			d.growth[i] = float64(i - begin)
		}
	}},
	{Name: "accelerating", Doc: "ever faster", Leak: true, build: func(d *draft) {
		d.anyNoise()
		straight := d.between(0.1, 1)
		d.grow(func(i int) float64 { return straight*d.part(i) + d.part(i)*d.part(i) })
	}},
	{Name: "leak-and-cache", Doc: "linear, while a cache fills in the first half", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.fill(d.sigma*d.between(2, 10), d.between(0.03, 0.12))
		d.line()
	}},
	{Name: "leak-and-start", Doc: "linear after a start", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.restart(0)
		d.fill(d.sigma*d.between(5, 20), d.between(0.01, 0.05))
		d.line()
	}},
	{Name: "leak-and-step", Doc: "linear, and one step that has nothing to do with it", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.stepAt(d.between(0.2, 0.8), d.sigma*d.between(2, 8))
		d.line()
	}},
	{Name: "descriptors", Doc: "descriptors, some an hour among many that come and go", Leak: true, build: func(d *draft) {
		d.counts(series.FDs)
		d.correlated(d.sigma, d.between(0.1, float64(d.n)/40))
		d.line()
	}},
	{Name: "threads", Doc: "threads that never end, among those of requests", Leak: true, build: func(d *draft) {
		d.counts(series.Threads)
		d.level, d.sigma = 30+float64(d.IntN(100)), d.between(1, 5)
		d.white(d.sigma)
		d.line()
	}},
	{Name: "regions", Doc: "big regions that are mapped at random moments, while others come and go", Leak: true, build: func(d *draft) {
		d.white(d.sigma / 2)
		d.bursty()
		at := make([]float64, 10+d.IntN(30))
		for i := range at {
			at[i] = d.between(0.01, 0.99)
		}
		d.stairs(at)
		d.steps = nil
	}},
	{Name: "linear-gaps", Doc: "linear, and nobody looked for a while", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.gaps()
		d.line()
	}},
	{Name: "linear-suspended", Doc: "linear while the host is awake", Leak: true, build: func(d *draft) {
		d.anyNoise()
		d.sleep = [2]int{d.n / 2, int(d.Window.Seconds() * d.between(0.2, 2))}
		d.line()
		d.linear = false
	}},
	{Name: "slow-noise-leak", Doc: "linear, under noise that is remembered for a hundredth to a thirtieth of the window", Leak: true, least: 2 * time.Hour, build: func(d *draft) {
		d.correlated(d.sigma, float64(d.n)/d.between(30, 100))
		d.line()
	}},
}

func (d *draft) line() {
	d.grow(d.part)
	d.linear = true
}

// stairs grows by equal steps at those parts of the window.
func (d *draft) stairs(at []float64) {
	slices.Sort(at)
	d.growth = make([]float64, d.n)
	for _, a := range at {
		k := int(a * float64(d.n))
		d.steps = append(d.steps, k)
		for i := k; i < d.n; i++ {
			d.growth[i]++
		}
	}
}

// bursty is blocks that are held for a while.
func (d *draft) bursty() {
	for range 5 + d.IntN(20) {
		from, long, height := d.IntN(d.n), 1+d.IntN(1+d.n/30), d.sigma*d.between(1, 6)
		for i := from; i < min(d.n, from+long); i++ {
			d.base[i] += height
		}
	}
}
