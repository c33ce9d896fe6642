package corpus

import (
	"math"
	"time"

	"stanch/internal/series"
)

// innocent are the families that do not leak.
var innocent = []Family{
	{Name: "flat", Doc: "a level with noise", build: func(d *draft) { d.anyNoise() }},
	{Name: "flat-counts", Doc: "descriptors that come and go", build: func(d *draft) {
		d.counts(series.FDs)
		d.correlated(d.sigma, d.between(0.1, float64(d.n)/20))
	}},
	{Name: "slow-noise", Doc: "noise that is remembered for long, up to the whole window", build: func(d *draft) {
		d.correlated(d.sigma, float64(d.n)/math.Exp(d.between(0, math.Log(50))))
	}},
	{Name: "bounded-walk", Doc: "a random walk between two walls", build: boundedWalk},
	{Name: "sawtooth", Doc: "a collector with even teeth, three at least", build: func(d *draft) {
		d.anyNoise()
		d.sawtooth(d.sigma*d.between(5, 40), max(6, float64(d.n)/math.Exp(d.between(math.Log(3), math.Log(200)))), 0.05)
	}},
	{Name: "sawtooth-uneven", Doc: "a collector whose teeth vary with the load", build: func(d *draft) {
		d.white(d.sigma)
		d.sawtooth(d.sigma*d.between(5, 40), max(8, float64(d.n)/math.Exp(d.between(math.Log(4), math.Log(100)))), 0.5)
	}},
	{Name: "cache", Doc: "a cache that fills ever slower; twice its time constant is seen at least", build: func(d *draft) {
		d.anyNoise()
		d.fill(d.sigma*d.between(5, 60), d.between(0.08, 0.5))
	}},
	{Name: "cache-late", Doc: "the same, after a while of nothing", build: func(d *draft) {
		d.anyNoise()
		height, from := d.sigma*d.between(5, 60), d.between(0.1, 0.4)
		tau := (1 - from) * d.between(0.08, 0.45)
		d.each(func(i int) float64 { return height * (1 - math.Exp(-max(0, d.part(i)-from)/tau)) })
	}},
	{Name: "cache-stop", Doc: "a cache that fills evenly and stops before 85 % of the window", build: func(d *draft) {
		d.anyNoise()
		height, stop := d.sigma*d.between(5, 60), d.between(0.2, 0.85)
		d.each(func(i int) float64 { return height * min(1, d.part(i)/stop) })
	}},
	{Name: "cache-churn", Doc: "a cache that fills and then varies slowly", build: func(d *draft) {
		d.correlated(d.sigma, float64(d.n)/d.between(15, 40))
		d.fill(d.sigma*d.between(5, 40), d.between(0.08, 0.4))
	}},
	{Name: "eviction", Doc: "a store that fills to its limit, then evicts in batches", build: eviction},
	{Name: "warm-up", Doc: "a start that takes up to a third of the window", build: func(d *draft) {
		d.anyNoise()
		d.restart(0)
		d.fill(d.sigma*d.between(10, 100), d.between(0.01, 0.1))
	}},
	{Name: "warm-up-stages", Doc: "a start in stages", build: func(d *draft) {
		d.anyNoise()
		d.restart(0)
		at, height := 0.0, 0.0
		for range 2 + d.IntN(4) {
			at += d.between(0.01, 0.09)
			height = d.sigma * d.between(5, 30)
			from := at
			d.each(func(i int) float64 { return height * min(1, max(0, d.part(i)-from)/0.03) })
		}
	}},
	{Name: "daily", Doc: "what is held follows the time of day, or a shorter rhythm seen twice at least", build: func(d *draft) {
		d.anyNoise()
		d.unseen = d.chance(0.5)
		d.sine(d.sigma*d.between(2, 30), d.rhythm())
	}},
	{Name: "half-wave", Doc: "a rise with the load of which less than a period was seen; the load was measured", build: func(d *draft) {
		d.anyNoise()
		d.follow(d.wave(d.between(0.1, 1)), d.between(5, 40))
	}},
	{Name: "load-ramp", Doc: "the load rises for the whole window, and what is held with it", build: func(d *draft) {
		d.anyNoise()
		hold := d.between(0.5, 1.2)
		d.follow(func(i int) float64 { return min(1, d.part(i)/hold) }, d.between(5, 40))
	}},
	{Name: "load-swings", Doc: "the load wanders, and what is held follows it", build: func(d *draft) {
		d.anyNoise()
		a, b := d.wave(d.between(1.2, 3)), d.wave(d.between(3, 9))
		d.follow(func(i int) float64 { return (2*a(i) + b(i)) / 3 }, d.between(5, 40))
	}},
	{Name: "one-step", Doc: "one step up that stays: a configuration read again, a pool made", build: func(d *draft) {
		d.anyNoise()
		d.stepAt(d.between(0.1, 0.95), d.sigma*d.between(5, 60))
	}},
	{Name: "two-steps", Doc: "two steps up that stay", build: func(d *draft) {
		d.anyNoise()
		d.stepAt(d.between(0.1, 0.5), d.sigma*d.between(5, 40))
		d.stepAt(d.between(0.5, 0.95), d.sigma*d.between(5, 40))
	}},
	{Name: "steps-both-ways", Doc: "steps up and down", build: func(d *draft) {
		d.anyNoise()
		height, up := d.sigma*d.between(8, 60), 1.0
		for at := d.between(0, 0.1); at < 1; at += d.between(0.02, 0.2) {
			d.stepAt(at, up*height)
			up = -up
		}
	}},
	{Name: "restarts", Doc: "a worker that is restarted, warms up and stays", build: func(d *draft) {
		d.anyNoise()
		height, tau := d.sigma*d.between(5, 60), d.between(0.03, 0.15)
		d.everyLife(func(part float64) float64 { return height * (1 - math.Exp(-part/tau)) })
	}},
	{Name: "fragmentation", Doc: "grows as the logarithm of time since its start", build: func(d *draft) {
		d.anyNoise()
		d.restart(0)
		height, early := d.sigma*d.between(5, 60), d.between(0.002, 0.05)
		d.each(func(i int) float64 { return height * math.Log(1+d.part(i)/early) / math.Log(1+1/early) })
	}},
	{Name: "arenas", Doc: "arenas that come with threads, ever more seldom, and then no more", build: func(d *draft) {
		d.anyNoise()
		size := d.sigma * d.between(2, 12)
		for range 4 + d.IntN(40) {
			if at := d.ExpFloat64() * 0.12; at < 0.75 {
				d.stepAt(at, size)
			}
		}
	}},
	{Name: "bursts", Doc: "bursts that are given back slowly", build: bursts},
	{Name: "gaps", Doc: "a level that nobody looked at for a while", build: func(d *draft) {
		d.correlated(d.sigma, float64(d.n)/d.between(20, 200))
		d.gaps()
	}},
	{Name: "suspended", Doc: "a level, while the host slept", build: func(d *draft) {
		d.correlated(d.sigma, float64(d.n)/d.between(20, 200))
		d.sleep = [2]int{d.n / 2, int(d.Window.Seconds() * d.between(0.2, 3))}
	}},
	{Name: "threads-pool", Doc: "a pool of threads that fills to its size", build: func(d *draft) {
		d.counts(series.Threads)
		d.level, d.sigma = 4+float64(d.IntN(8)), 0.5
		size := 8 + float64(d.IntN(60))
		tau := d.between(0.03, 0.25)
		d.white(0.3)
		d.each(func(i int) float64 { return math.Floor(size * (1 - math.Exp(-d.part(i)/tau))) })
	}},
	{Name: "shrinking", Doc: "ever less", build: func(d *draft) {
		d.anyNoise()
		height := d.sigma * d.between(3, 20)
		d.each(func(i int) float64 { return height * (1 - d.part(i)) })
	}},
	{Name: "unmeasured-days", Doc: "follows the time of day, the load was not measured, and a day to three were seen", least: 24 * time.Hour, build: func(d *draft) {
		d.anyNoise()
		d.unseen = true
		d.sine(d.sigma*d.between(5, 30), float64(d.n)/d.between(1, 3))
	}},
}

func boundedWalk(d *draft) {
	wall := d.sigma * d.between(2, 8)
	step := wall * math.Sqrt(d.between(8, 200)/float64(d.n))
	v := d.between(-wall, wall)
	d.each(func(int) float64 {
		v += step * d.NormFloat64()
		if v > wall {
			v = 2*wall - v
		}
		if v < -wall {
			v = -2*wall - v
		}
		return v
	})
	d.white(d.sigma * 0.1)
}

func eviction(d *draft) {
	d.white(d.sigma * 0.3)
	limit, rate := d.sigma*d.between(8, 60), 1/d.between(0.15, 0.8)
	batch := limit * d.between(0.01, 0.08)
	v := 0.0
	d.each(func(int) float64 {
		v += limit * rate / float64(d.n)
		if v > limit {
			v = limit - batch
		}
		return v
	})
}

func bursts(d *draft) {
	d.anyNoise()
	height, decay := d.sigma*d.between(5, 50), math.Exp(-1/(float64(d.n)*d.between(0.005, 0.05)))
	per := d.between(3, 40) / float64(d.n)
	v := 0.0
	d.each(func(int) float64 {
		v *= decay
		if d.chance(per) {
			v += height * d.between(0.3, 1)
		}
		return v
	})
}

// fill is a cache's way to height, with a time constant as a part of the
// window.
func (d *draft) fill(height, tau float64) {
	d.each(func(i int) float64 { return height * (1 - math.Exp(-d.part(i)/tau)) })
}

func (d *draft) stepAt(part, height float64) {
	d.each(func(i int) float64 {
		if d.part(i) >= part {
			return height
		}
		return 0
	})
}

// restart begins a life at the point; at 0 the process started just before.
func (d *draft) restart(point int) { d.lives = append(d.lives, point) }

// everyLife cuts the window into lives and adds f of the part of each life.
func (d *draft) everyLife(f func(part float64) float64) {
	count := 2 + d.IntN(min(24, max(1, d.n/25)))
	length := float64(d.n) / float64(count)
	begin, end := 0, int(length*d.between(0.3, 1))
	for begin < d.n {
		for i := begin; i < min(end, d.n); i++ {
			d.base[i] += f(float64(i-begin) / length)
		}
		begin = end
		if begin < d.n {
			d.restart(begin)
		}
		end = begin + int(length*d.between(0.7, 1.2))
	}
}

func (d *draft) gaps() {
	for range 1 + d.IntN(4) {
		from := d.IntN(d.n)
		d.holes = append(d.holes, [2]int{max(1, from), min(d.n-1, from+int(float64(d.n)*d.between(0.02, 0.2)))})
	}
}

// wave is a wave of 0 to 1 of which so many periods are seen.
func (d *draft) wave(periods float64) func(i int) float64 {
	phase := d.between(0, 2*math.Pi)
	return func(i int) float64 { return (1 + math.Sin(2*math.Pi*periods*d.part(i)+phase)) / 2 }
}

// follow makes the load go from its least to 1.3 to 8 times of it by the shape,
// and what is held with it, so many deviations high.
func (d *draft) follow(shape func(i int) float64, height float64) {
	least, times := d.between(0.02, 0.3), d.between(0.3, 7)
	noise := d.between(0.02, 0.25)
	for i := range d.load {
		d.load[i] = least * (1 + times*shape(i)) * math.Exp(noise*d.NormFloat64())
	}
	// What is held for work in progress is at most in proportion to the work.
	d.level = max(d.level, height*d.sigma/times)
	d.each(func(i int) float64 { return height * d.sigma * shape(i) })
}
