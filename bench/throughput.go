package main

import (
	"fmt"
	"strings"
	"time"

	"stanch/internal/fixture"
)

// throughput measures how many requests per second an epoll server answers
// while stanch records it, and how long they take, of what it does alone;
// beside it the same server below heaptrack and memcheck.
func throughput(b *bench) []figure {
	exe := fixture.Build(b, "epollserver", "-O2")
	// Of the 21 blocks of a request, one is of 64 bytes.
	ways := []way{sampling, aimed("64"), exactly}
	var quotients [][]quotient
	var native []float64
	b.step(func(b *bench) {
		p := b.first(exe, "-s")
		quotients, native = paired(b, p.PID(), ways, served(b, p, p.PID()))
	})
	others := make([][]string, len(native))
	for _, tool := range []struct {
		name    string
		command []string
	}{{"heaptrack", b.heaptrack()}, {"memcheck", b.memcheck()}} {
		b.step(func(b *bench) {
			p := b.first(tool.command[0], append(tool.command[1:], exe, "-s")...)
			pid := p.PID()
			if tool.name == "heaptrack" {
				pid = b.below(pid, exe)
			}
			measure := served(b, p, pid)
			measure() // the first one warms up
			m := measure()
			for i := range m {
				others[i] = append(others[i], fmt.Sprintf("%s %.2f", tool.name, m[i]/native[i]))
			}
		})
	}
	var figures []figure
	for w, least := range []float64{0.97, 0.97, 0.85} {
		rate, p99, cpu := quotients[w][0], quotients[w][1], quotients[w][2]
		b.Logf("epoll server, %s: requests/s %v, p99 %v, CPU %v", ways[w].name, rate, p99, cpu)
		figures = append(figures,
			figure{name: "requests per second of an epoll server, of native: " + ways[w].name, value: median(rate), bound: least, least: true,
				beside: fmt.Sprintf("%v; native %.0f/s; CPU time of one %v", rate, native[0], cpu)},
			figure{name: "99th percentile of its requests' time, of native: " + ways[w].name, value: median(p99), bound: 1.15,
				beside: fmt.Sprintf("%v; native %.0f us", p99, native[1])})
	}
	for i := range 2 {
		figures[len(figures)-2+i].why = fmt.Sprintf("a pair costs about twice what it does in a loop; "+
			"likely because of the kernel's work between, most of the %.1f us of a request, in the same caches", native[2])
		figures[len(figures)-2+i].beside += "; " + strings.Join(others[i], "; ")
	}
	b.Logf("epoll server, native: %.1f; others %v", native, others)
	return figures
}

// served pins a server, starts its load on the other processor, and returns what
// measures requests per second, the 99th percentile of their time, and the
// server's CPU time for one, in microseconds.
func served(b *bench, p *fixture.Proc, pid int) func() []float64 {
	b.pin(pid)
	port := strings.TrimPrefix(p.Ask("port", "port "), "port ")
	load := b.first("/usr/bin/taskset", "-c", loadCPU(), fixture.Build(b, "echoload", "-O2"), "-c", "16", port)
	return func() []float64 {
		cpu := b.cpuSeconds(pid)
		load.Ask("start", "ok")
		time.Sleep(1500 * time.Millisecond)
		answer := load.Ask("stop", "requests")
		n := b.number(answer, "requests")
		return []float64{n / b.number(answer, "seconds"), b.number(answer, "p99_us"), (b.cpuSeconds(pid) - cpu) / n * 1e6}
	}
}
