package main

import (
	"fmt"
	"time"

	"stanch/internal/fixture"
)

// scan measures a whole scan of 10 million blocks of 100 bytes, and the memory
// of stanch itself.
func scan(b *bench) []figure {
	var figures []figure
	b.step(func(b *bench) {
		took, rss := scanBlocks(b, 3)
		figures = append(figures,
			figure{name: "scan of 10 million 100-byte blocks", value: took, bound: 2.5, unit: "s"},
			figure{name: "stanch's own memory in it", value: rss, bound: 300, unit: "MB"})
	})
	b.step(func(b *bench) {
		took, rss := scanBlocks(b, 1, "-l")
		figures = append(figures, figure{
			name: "the same as one list in random order", value: took, unit: "s",
			beside: fmt.Sprintf("the worst case for a mark; memory %.0f MB", rss),
		})
	})
	return figures
}

// apart is how long stanch scan waits between its two looks.
const apart = time.Second

// scanBlocks returns medians of one look: seconds, and MB of memory.
func scanBlocks(b *bench, rounds int, args ...string) (took, rss float64) {
	p := fixture.Start(b, fixture.Build(b, "blocks", "-O2"), append([]string{"-n", "10000000", "-s", "100"}, args...)...)
	var times, sizes []float64
	for range rounds {
		r := b.scan(p.PID())
		times = append(times, (r.took-apart).Seconds()/2)
		sizes = append(sizes, float64(r.rss)/1e6)
	}
	b.Logf("scan %v: %.2f s, %.0f MB", args, times, sizes)
	return median(times), median(sizes)
}
