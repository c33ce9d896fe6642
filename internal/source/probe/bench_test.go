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
		{"exact_from_start/1thread/5frames", 1, 5, 0, Options{Exact: true, FromStart: true}},
		{"exact_from_start/1thread/20frames", 1, 20, 0, Options{Exact: true, FromStart: true}},
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

// BenchmarkRandom measures exact recording of a program that holds a million
// blocks and frees any of them.
func BenchmarkRandom(b *testing.B) {
	exe := compile(b, "pairs.c")
	run := func(exact bool) float64 {
		prog := fixture.Start(b, exe)
		o := options()
		o.Exact, o.MaxFrames = exact, 64
		var tr *trial
		if exact {
			tr = place(b, prog, o)
			tr.look()
		}
		prog.Ask("fill 1000000 40", "ok")
		var all []float64
		for range 5 {
			if exact {
				tr.look()
			}
			var ns float64
			if _, err := sscan(prog.Ask("random 1000000", "ns"), "ns %g", &ns); err != nil {
				b.Fatal(err)
			}
			all = append(all, ns)
		}
		return median(all)
	}
	var native, probed []float64
	for range b.N {
		native, probed = append(native, run(false)), append(probed, run(true))
	}
	b.ReportMetric(median(native), "native-ns/pair")
	b.ReportMetric(median(probed)-median(native), "added-ns/pair")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPlace measures a placement in a process that was just started, as a
// test suite starts thousands: what the files tell is known from the one
// before.
func BenchmarkPlace(b *testing.B) {
	for _, exact := range []bool{false, true} {
		b.Run(fmt.Sprintf("exact=%v", exact), func(b *testing.B) {
			place := func() (time.Duration, time.Duration) {
				prog := shortLived(b)
				target := open(b, prog.PID())
				o := options()
				o.Exact, o.FromStart = exact, exact
				o.Clock = proc.NewClock()
				o.Atlas = leak.NewAtlas(leak.Ignore{}, nil)
				began := time.Now()
				p, err := Place(context.Background(), target, o)
				placed := time.Since(began)
				if err != nil {
					b.Fatal(err)
				}
				began = time.Now()
				if err := p.Books(nil, leak.Ignore{}); err != nil {
					b.Fatal(err)
				}
				read := time.Since(began)
				prog.Quit()
				if err := p.Remove(context.Background()); err != nil {
					b.Fatal(err)
				}
				return placed, read
			}
			place()
			var placed, read []float64
			for range b.N {
				d, r := place()
				placed, read = append(placed, d.Seconds()*1e3), append(read, r.Seconds()*1e3)
			}
			b.ReportMetric(median(placed), "ms/place")
			b.ReportMetric(median(read), "ms/books")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// shortLived is a program that does next to nothing.
func shortLived(b testing.TB) *fixture.Proc {
	b.Helper()
	return fixture.Start(b, "/bin/sh", "-c", "echo ready; read line")
}
