package probe

import (
	"context"
	"fmt"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
)

// BenchmarkPairs measures what the probe adds to a malloc/free pair: the
// program's own clock, the median of many slices, native and probed in turns.
func BenchmarkPairs(b *testing.B) {
	exe := compile(b, "pairs.c")
	for _, c := range []struct {
		name           string
		threads, depth int
		size           int
		o              Options
	}{
		{"sampling/1thread/5frames", 1, 5, 0, Options{}},
		{"sampling/1thread/20frames", 1, 20, 0, Options{}},
		{"sampling/4threads/5frames", 4, 5, 0, Options{}},
		{"sampling/4threads/20frames", 4, 20, 0, Options{}},
		{"aimed_elsewhere/1thread/5frames", 1, 5, 0, Options{NoSampling: true, Aim: aim(4000)}},
		{"aimed/1thread/5frames", 1, 5, 100, Options{Aim: aim(100)}},
		{"aimed/1thread/20frames", 1, 20, 100, Options{Aim: aim(100)}},
		{"aimed/4threads/5frames", 4, 5, 100, Options{Aim: aim(100)}},
		{"exact/1thread/5frames", 1, 5, 0, Options{Exact: true}},
		{"exact/1thread/20frames", 1, 20, 0, Options{Exact: true}},
		{"exact/4threads/5frames", 4, 5, 0, Options{Exact: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var native, probed []float64
			prog := fixture.Start(b, exe)
			run := func() float64 {
				var ns float64
				if _, err := sscan(prog.Ask(fmt.Sprintf("run %d %d %d 100", c.threads, c.depth, c.size), "ns"), "ns %g", &ns); err != nil {
					b.Fatal(err)
				}
				return ns
			}
			target := open(b, prog.PID())
			for range b.N {
				native = append(native, run())
				o := c.o
				o.MaxPause = 2 * time.Second
				o.MaxOverhead = -1
				o.Clock = proc.NewClock()
				o.Atlas = leak.NewAtlas(leak.Ignore{}, nil)
				p, err := Place(context.Background(), target, o)
				if err != nil {
					b.Fatal(err)
				}
				if err := p.look(context.Background(), leak.Ignore{}); err != nil {
					b.Fatal(err)
				}
				probed = append(probed, run())
				if err := p.Remove(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(median(native), "native-ns/pair")
			b.ReportMetric(median(probed)-median(native), "added-ns/pair")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(v []float64) float64 {
	v = append([]float64(nil), v...)
	for i := range v {
		for j := i; j > 0 && v[j] < v[j-1]; j-- {
			v[j], v[j-1] = v[j-1], v[j]
		}
	}
	return v[len(v)/2]
}
