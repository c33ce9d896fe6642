package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// descriptors measures what it costs to see who opens descriptors, and how
// long a list of many takes.
func descriptors(b *bench) []figure {
	var figures []figure
	for _, part := range []func(*bench) []figure{descriptorPairs, accepts, listing} {
		b.step(func(b *bench) { figures = append(figures, part(b)...) })
	}
	return figures
}

// The two ways of stanch fds --for: a watch below five minutes takes the raw
// tracepoints of all system calls, a longer one those of single calls.
const (
	shortWatch = "4m"
	longWatch  = "5m"
)

// watchFDs starts stanch fds --for and returns when it sees every call.
func (b *bench) watchFDs(pid int, long string) *recording {
	r := &recording{b: b, report: filepath.Join(b.TempDir(), "fds.json"), read: make(chan struct{})}
	cmd := exec.Command("taskset", "-c", loadCPU(), b.stanch, "fds", "--for", long, "-o", r.report, strconv.Itoa(pid))
	if err := r.start(cmd, "watching "); err != nil {
		b.Fatal(err)
	}
	return r
}

// descriptorPairs measures an open and a close in the process that is watched,
// and in another one, in a short watch and in a long one.
func descriptorPairs(b *bench) []figure {
	exe := fixture.Build(b, "fdbench", "-O2", "-fomit-frame-pointer")
	p := &neighbours{b: b, watched: fixture.Start(b, exe), other: fixture.Start(b, exe)}
	b.pin(p.watched.PID())
	b.pin(p.other.PID())
	var short, long costs
	var empty []float64
	for i := range rounds {
		call := p.ns(p.other, "call")
		remove := emptyPrograms(b)
		empty = append(empty, p.ns(p.other, "call")-call)
		remove()
		p.round(shortWatch, &short)
		// Tracepoints of single calls take seconds to be left: fewer rounds.
		if i%4 == 0 {
			p.round(longWatch, &long)
		}
	}
	traced := stracedPair(b, exe)
	native, floor := median(short.native), median(empty)
	b.Logf("open and close: native %.0f ns, ratios %.2f and %.2f; in another process %+.1f and %+.1f ns a descriptor call, %+.1f and %+.1f ns another call; strace -k %.0f ns",
		native, short.ratios, long.ratios, short.otherPairs, long.otherPairs, short.calls, long.calls, traced)
	why := fmt.Sprintf("programs that do nothing, on the two raw tracepoints of system calls, add %.0f ns to a call on this machine", floor)
	return append(
		short.figures("", fmt.Sprintf("native %.0f ns; strace -k %.0f x", native, traced/native), why),
		long.figures(" for five minutes or more", "", "a tracepoint that is on sends all calls of all processes on the slow way into the kernel")...)
}

// neighbours are two processes that open and close: one is watched.
type neighbours struct {
	b              *bench
	watched, other *fixture.Proc
}

func (p *neighbours) ns(of *fixture.Proc, what string) float64 {
	return p.b.number(of.Ask(what+" 300", "ns"), "ns")
}

// costs are what rounds measured: a pair without a watch, the ratio with one,
// and what a descriptor call and another call take longer elsewhere; ns.
type costs struct{ native, ratios, otherPairs, calls []float64 }

// round measures before, during and after a watch.
func (p *neighbours) round(long string, c *costs) {
	was, wasCall, wasOther := p.ns(p.watched, "pair"), p.ns(p.other, "call"), p.ns(p.other, "pair")
	w := p.b.watchFDs(p.watched.PID(), long)
	is, isCall, isOther := p.ns(p.watched, "pair"), p.ns(p.other, "call"), p.ns(p.other, "pair")
	w.stop(&leak.Report{})
	again, againCall, againOther := p.ns(p.watched, "pair"), p.ns(p.other, "call"), p.ns(p.other, "pair")
	c.native = append(c.native, (was+again)/2)
	c.ratios = append(c.ratios, 2*is/(was+again))
	c.calls = append(c.calls, isCall-(wasCall+againCall)/2)
	c.otherPairs = append(c.otherPairs, (isOther-(wasOther+againOther)/2)/2)
}

func (c *costs) figures(when, beside, why string) []figure {
	return []figure{{
		name: "open and close in a process that stanch fds --for watches" + when + ", of native", value: median(c.ratios), bound: 2.5, unit: "x", beside: beside,
	}, {
		name: "a descriptor call of another process meanwhile" + when + ", over native", value: median(c.otherPairs), bound: 30, unit: "ns", why: why,
	}, {
		name: "another system call of another process meanwhile" + when + ", over native", value: median(c.calls), bound: 30, unit: "ns", why: why,
	}}
}

// emptyPrograms puts programs that return at once on the raw tracepoints of all
// system calls: what any tracer there costs at least.
func emptyPrograms(b *bench) (remove func()) {
	nothing, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		b.Fatal(err)
	}
	var links []link.Link
	for _, point := range []string{"sys_enter", "sys_exit"} {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: point, Program: nothing})
		if err != nil {
			b.Fatal(err)
		}
		links = append(links, l)
	}
	return func() {
		for _, l := range links {
			_ = l.Close() // it goes with bench in any case
		}
		_ = nothing.Close()
	}
}

// stracedPair is what a pair takes below strace with stacks.
func stracedPair(b *bench, exe string) float64 {
	p := fixture.Start(b, "/usr/bin/strace", "-k", "-o", "/dev/null", "-e", "trace=open,openat,close,socket,accept4", exe)
	return b.number(p.Ask("pair 1000", "ns"), "ns")
}

// accepts measures a server that takes 10,000 connections a second.
func accepts(b *bench) []figure {
	const seconds = 5
	p := fixture.Start(b, fixture.Build(b, "fdbench", "-O2", "-fomit-frame-pointer"))
	w := b.watchFDs(p.PID(), shortWatch)
	idle := b.cpuSeconds(w.cmd.Process.Pid)
	answer := p.Ask(fmt.Sprintf("accept 10000 %d", seconds*1000), "accepted")
	used := b.cpuSeconds(w.cmd.Process.Pid) - idle
	var r leak.Report
	w.stop(&r)
	if n := b.number(answer, "accepted"); n != 10000*seconds {
		b.Fatalf("the server said %q", answer)
	}
	b.Logf("accepts: %s, stanch used %.2f s in %d s; gaps %q", strings.TrimSpace(answer), used, seconds, r.Gaps)
	return []figure{{
		name: "stanch's CPU while the watched server accepts 10,000 connections a second", value: 100 * used / seconds, bound: 25, unit: "% of one",
		beside: lostEvents(r),
	}}
}

// lostEvents says whether events were lost: a gap that speaks of room.
func lostEvents(r leak.Report) string {
	gaps := r.Gaps
	for i := range r.Targets {
		gaps = append(gaps, r.Targets[i].Gaps...)
	}
	if slices.ContainsFunc(gaps, func(g string) bool { return strings.Contains(g, "lack of room") }) {
		return "events were lost for lack of room"
	}
	return "no event was lost"
}

// listing measures stanch fds on a process with as many of 100,000 descriptors
// as the machine allows.
func listing(b *bench) []figure {
	const many = 100000
	p := fixture.Start(b, fixture.Build(b, "fdbench", "-O2"))
	n := b.number(p.Ask(fmt.Sprintf("fill %d", many), "filled"), "filled")
	pid := strconv.Itoa(p.PID())
	var ours, theirs []float64
	for range 5 {
		ours = append(ours, b.run(b.stanch, "fds", "--quiet", pid).took.Seconds())
		theirs = append(theirs, b.run("lsof", "-n", "-P", "-p", pid).took.Seconds())
	}
	b.Logf("fds of %.0f descriptors: %.2f s, lsof %.2f s", n, ours, theirs)
	f := figure{
		name: "stanch fds of 100,000 descriptors", value: median(ours), bound: 1.5, unit: "s",
		beside: fmt.Sprintf("lsof -n -P -p %.2f s", median(theirs)),
	}
	if n < many {
		f.name = "stanch fds of 100,000 descriptors, scaled"
		f.value *= many / n
		f.beside = fmt.Sprintf("lsof -n -P -p %.2f s; measured with %.0f, the most that RLIMIT_NOFILE allows here, and scaled", median(theirs)*many/n, n)
	}
	return []figure{f}
}
