package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"stanch/internal/fixture"
)

// snapshot measures how long a target stands still for a scan, by the gaps of
// a thread that beats at 1 kHz, beside gcore.
func snapshot(b *bench) []figure {
	var figures []figure
	for _, gb := range []int{1, 4} {
		b.step(func(b *bench) { figures = append(figures, pause(b, gb)) })
	}
	return figures
}

func pause(b *bench, gb int) figure {
	const rounds = 9
	gcore := fixture.Package(b, "gcore")
	p := b.first(fixture.Build(b, "heartbeat", "-O2"), "-m", strconv.Itoa(gb<<10), "-t", "12")
	gaps := func(during func()) (largest, next float64) {
		p.Ask("reset", "ok")
		during()
		answer := p.Ask("max", "max_us")
		return b.number(answer, "max_us") / 1000, b.number(answer, "next_us") / 1000
	}
	length := b.scan(p.PID()).took // the first one warms up
	idle := func() { time.Sleep(length) }
	// Both gaps of a scan are compared with the largest idle one.
	extra := func(n, stops int, look func()) []float64 {
		var diffs []float64
		for range n {
			quiet, _ := gaps(idle)
			largest, next := gaps(look)
			diffs = append(diffs, []float64{largest - quiet, next - quiet}[:stops]...)
		}
		return diffs
	}
	var forks []float64
	for range rounds {
		forks = append(forks, b.number(p.Ask("fork", "fork_us"), "fork_us")/1000)
	}
	fork := median(forks) / float64(gb)
	ours := extra(rounds, 2, func() { b.scan(p.PID()) })
	length = b.core(gcore, p.PID()).took
	cores := extra(max(1, 4-gb), 1, func() { b.core(gcore, p.PID()) })
	theirs := median(cores)
	perGB := median(ours) / float64(gb)
	b.Logf("%d GB: pauses over idle %.1f ms; fork %.1f ms; gcore %.0f ms", gb, ours, forks, cores)
	return figure{
		name: fmt.Sprintf("pause per GB, %d GB of 4 KiB pages", gb), value: perGB, bound: 15, unit: "ms",
		beside: fmt.Sprintf("fork(2) by the program itself: %.1f ms per GB; longest of %d: %.1f ms; gcore: %.0f ms per GB", fork, len(ours), slices.Max(ours), theirs/float64(gb)),
		why:    "nearly all of it is the kernel's own fork, of which each snapshot needs one",
	}
}
