package main

import (
	"fmt"
)

// start measures how much longer a program that does nothing takes below
// stanch run.
func start(b *bench) []figure {
	const tool = "/bin/true"
	milliseconds := func(command ...string) float64 {
		return float64(b.run(command[0], command[1:]...).took.Microseconds()) / 1000
	}
	heaptrack, memcheck := b.heaptrack(), b.memcheck()
	var native, ours, heaptracks, memchecks []float64
	for range 9 {
		native = append(native, milliseconds(tool))
		ours = append(ours, milliseconds(b.stanch, "run", "--", tool))
		heaptracks = append(heaptracks, milliseconds(append(heaptrack, tool)...))
		memchecks = append(memchecks, milliseconds(append(memcheck, tool)...))
	}
	b.Logf("true: native %.1f ms, stanch run %.1f ms", native, ours)
	alone := median(native)
	return []figure{{
		name: "stanch run /bin/true, over native", value: median(ours) - alone, bound: 150, unit: "ms",
		beside: fmt.Sprintf("native %.1f ms; heaptrack adds %.0f ms, memcheck %.0f ms", alone, median(heaptracks)-alone, median(memchecks)-alone),
	}}
}
