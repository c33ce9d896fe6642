package corpus

import (
	"math"
	"time"
)

// white is noise without memory.
func (d *draft) white(sigma float64) {
	d.each(func(int) float64 { return sigma * d.NormFloat64() })
}

// correlated is noise of deviation sigma that forgets within about so many
// points: an AR(1) process.
func (d *draft) correlated(sigma, points float64) {
	keep := math.Exp(-1 / max(points, 0.1))
	push := math.Sqrt(1 - keep*keep)
	v := d.NormFloat64()
	d.each(func(int) float64 {
		v = keep*v + push*d.NormFloat64()
		return sigma * v
	})
}

// anyNoise is the small noise of a program that does what it always does: it
// forgets within a fortieth of the window.
func (d *draft) anyNoise() {
	if d.chance(0.5) {
		d.white(d.sigma)
		return
	}
	d.correlated(d.sigma, d.between(1, float64(d.n)/40))
}

// anyLoad is work that has nothing to do with what is held: constant, or by
// the day, or in a shorter rhythm, with noise.
func (d *draft) anyLoad() []float64 {
	load := make([]float64, d.n)
	mean := math.Exp(d.between(math.Log(0.01), math.Log(0.9)))
	depth, period := 0.0, 1.0
	if d.chance(0.4) {
		depth = d.between(0.2, 0.8)
		period = float64(d.n) / d.between(2, 8)
		if d.Window > 48*time.Hour {
			period = float64(24 * time.Hour / d.Interval)
		}
	}
	phase := d.between(0, 2*math.Pi)
	for i := range load {
		load[i] = mean * (1 + depth*math.Sin(2*math.Pi*float64(i)/period+phase)) * math.Exp(0.15*d.NormFloat64())
	}
	return load
}

// rhythm is a period in points: mostly the day, of windows of two days and more,
// and else one that fits the window 2.2 times at least.
func (d *draft) rhythm() float64 {
	if d.Window >= 48*time.Hour && d.chance(0.7) {
		return float64(24 * time.Hour / d.Interval)
	}
	return float64(d.n) / d.between(2.2, 30)
}

// sine is a wave of that amplitude; its second harmonic makes it uneven, as
// days are.
func (d *draft) sine(amplitude, period float64) {
	phase, second, shift := d.between(0, 2*math.Pi), d.between(0, 0.3), d.between(0, 2*math.Pi)
	d.each(func(i int) float64 {
		x := 2*math.Pi*float64(i)/period + phase
		return amplitude * (math.Sin(x) + second*math.Sin(2*x+shift))
	})
}

// sawtooth is what a collector makes: it fills, and is emptied at once.
// Uneven teeth differ in length by that share, and in height with it.
func (d *draft) sawtooth(height, period, uneven float64) {
	curve := d.between(0.7, 1.4)
	left := d.Float64() * period
	length := period
	floor := 0.0
	d.each(func(int) float64 {
		left--
		if left <= 0 {
			length = max(2, period*(1+uneven*d.between(-1, 1)))
			left = length
			floor = uneven * height * d.between(0, 0.1)
		}
		return floor + height*length/period*math.Pow(1-left/length, curve)
	})
}
