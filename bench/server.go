package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"stanch/internal/fixture"
)

// server measures the longest request of an epoll server under load while
// stanch attaches, watches and detaches.
func server(b *bench) []figure {
	const rounds = 5
	s := b.first(fixture.Build(b, "epollserver", "-O2"))
	port := strings.TrimPrefix(s.Ask("port", "port "), "port ")
	load := b.first(fixture.Build(b, "echoload", "-O2"), "-c", "8", "-r", "3000", port)
	longest := func(during func()) float64 {
		load.Ask("start", "ok")
		time.Sleep(500 * time.Millisecond)
		during()
		time.Sleep(500 * time.Millisecond)
		return b.number(load.Ask("stop", "requests"), "max_us") / 1000
	}
	gcore := fixture.Package(b, "gcore")
	var alone, attached, cored []float64
	for range rounds {
		alone = append(alone, longest(func() { time.Sleep(4 * time.Second) }))
		attached = append(attached, longest(func() {
			b.run(b.stanch, "diagnose", "--for", "3s", strconv.Itoa(s.PID()))
		}))
		cored = append(cored, longest(func() { b.core(gcore, s.PID()) }))
	}
	b.Logf("longest request: alone %.1f ms, attached %.1f ms, gcore %.0f ms", alone, attached, cored)
	return []figure{{
		name: "longest request of an epoll server while attaching", value: median(attached), bound: 25, unit: "ms",
		beside: fmt.Sprintf("with nothing attached %.1f ms; worst of 5 %.1f ms; gcore: %.0f ms", median(alone), slices.Max(attached), median(cored)),
	}}
}
