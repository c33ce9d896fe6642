package corpus

import (
	"math"

	"stanch/internal/series"
)

// points makes the series of a trace: what is judged, the load, the start.
func (d *draft) points(t *Trace) {
	key := func(m series.Metric) series.Key { return series.Key{Metric: m, Service: "demo", Worker: "0"} }
	value := series.Series{Key: key(d.metric)}
	cpu := series.Series{Key: key(series.CPU)}
	started := series.Series{Key: key(series.Started)}
	step := d.Interval.Milliseconds()
	begin := start - 3*24*3600*1000 + d.Int64N(1000)
	pid := series.Series{Key: key(series.PID)}
	used, life, slept := 0.0, 0, int64(0)
	for i := range d.n {
		if len(d.lives) > life && d.lives[life] == i {
			life++
			used = 0
			begin = start + int64(i)*step + slept - step/2
		}
		if d.sleep[1] > 0 && i == d.sleep[0] {
			slept += int64(d.sleep[1]) * 1000
			t.Host = append(t.Host, series.Series{Key: series.Key{Metric: series.Suspended}, Points: []series.Point{{At: start + int64(i)*step + slept, Value: float64(d.sleep[1])}}})
		}
		used += max(0, d.load[i]) * d.Interval.Seconds()
		// A tick comes up to a twentieth of the interval late.
		at := start + int64(i)*step + slept + int64(d.between(0, 0.05)*float64(step))
		if d.hidden(i) {
			continue
		}
		v := math.Round((d.level+d.base[i])/d.unit) * d.unit
		value.Points = append(value.Points, series.Point{At: at, Value: v})
		cpu.Points = append(cpu.Points, series.Point{At: at, Value: math.Round(used*100) / 100})
		if i == 0 || len(d.lives) > 0 && life > 0 && d.lives[life-1] == i {
			started.Points = append(started.Points, series.Point{At: at, Value: float64(begin) / 1000})
			pid.Points = append(pid.Points, series.Point{At: at, Value: float64(4000 + 17*life)})
		}
		for _, s := range d.steps {
			if s == i {
				t.Steps = append(t.Steps, at)
			}
		}
	}
	t.Series = append(t.Series, value, started, pid)
	if !d.unseen {
		t.Series = append(t.Series, cpu)
	}
}

func (d *draft) hidden(i int) bool {
	for _, h := range d.holes {
		if i >= h[0] && i < h[1] {
			return true
		}
	}
	return false
}
