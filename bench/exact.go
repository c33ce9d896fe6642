package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"

	"stanch/internal/fixture"
)

// exact measures what a pair of malloc and free costs when each block is
// recorded with its stack, over what it costs alone, beside heaptrack and
// memcheck; and what it costs while the probe waits for a size that never comes.
func exact(b *bench) []figure {
	var figures []figure
	theirs := versus{}
	for _, c := range []struct {
		threads, frames int
		bound           float64
	}{{1, 5, 60}, {1, 20, 100}, {4, 5, 100}} {
		b.step(func(b *bench) { figures = append(figures, lastFirst(b, c.threads, c.frames, c.bound, theirs)) })
	}
	figures = append(figures, theirs.figure("heaptrack", 0.25), theirs.figure("memcheck", 0.05))
	b.step(func(b *bench) { figures = append(figures, anyFirst(b)...) })
	b.step(func(b *bench) { figures = append(figures, elsewhere(b)) })
	return figures
}

// versus is what exact recording adds to a pair, of what other tools add, in
// several measurements.
type versus map[string][]span

// beside says what the others add, and notes the shares.
func (v versus) beside(native, added span, others map[string]span) string {
	text := fmt.Sprintf("native %.1f ns", native.cpu)
	for _, name := range slices.Sorted(maps.Keys(others)) {
		theirs := others[name].over(native)
		v[name] = append(v[name], span{added.cpu / theirs.cpu, added.wall / theirs.wall})
		text += fmt.Sprintf("; %s adds %.0f ns (%.0f ns by the clock)", name, theirs.cpu, theirs.wall)
	}
	return text
}

// figure is the worst of them.
func (v versus) figure(tool string, bound float64) figure {
	var cpu, wall []float64
	for _, s := range v[tool] {
		cpu, wall = append(cpu, s.cpu), append(wall, s.wall)
	}
	return figure{
		name: "what this adds by the clock, of what " + tool + " adds: the worst of these", value: slices.Max(wall), bound: bound,
		beside: fmt.Sprintf("in each row %.3f; in CPU time %.3f", wall, cpu),
	}
}

// lastFirst measures blocks that are freed in the opposite order.
func lastFirst(b *bench, threads, frames int, bound float64, theirs versus) figure {
	exe := fixture.Build(b, "mallocbench", "-O2", "-fomit-frame-pointer")
	args := []string{"-l", "-t", strconv.Itoa(threads), "-f", strconv.Itoa(frames)}
	native, added := addedBy(b, fixture.Start(b, exe, args...), exactly)
	others := below(b, exe, args, func(p *fixture.Proc) []span { return pairsOf(b, p, 6) })
	b.Logf("exact, %d threads, %d frames: native %.1f ns, added %.1f ns, others %v", threads, frames, native, added, others)
	return figure{
		name:  fmt.Sprintf("malloc and free, last in first out, every block recorded, over native: %d threads, %d frames", threads, frames),
		value: added.cpu, bound: bound, unit: "ns",
		beside: theirs.beside(native, added, others),
	}
}

// addedBy measures what pairs cost alone and what recording adds: the medians
// of 3 rounds.
func addedBy(b *bench, p *fixture.Proc, w way) (native, added span) {
	var natives, overs []span
	for range 3 {
		alone := pairsOf(b, p, 4)
		r := b.record(p.PID(), w)
		probed := pairsOf(b, p, 8)
		acquired := r.end().Total.Acquired.Count
		if w.name == exactly.name && acquired < 1e6 {
			b.Fatalf("only %d blocks were recorded", acquired)
		}
		alone = append(alone, pairsOf(b, p, 4)...)
		natives = append(natives, middle(alone))
		overs = append(overs, middle(probed).over(middle(alone)))
	}
	b.Logf("%s: native %.1f ns, added %.1f ns", w.name, natives, overs)
	return middle(natives), middle(overs)
}

// elsewhere measures pairs while the probe is aimed at a size that does not
// occur.
func elsewhere(b *bench) figure {
	p := fixture.Start(b, fixture.Build(b, "mallocbench", "-O2", "-fomit-frame-pointer"), "-l")
	native, added := addedBy(b, p, aimed("777777"))
	return figure{
		name: "malloc and free while the probe is aimed at another size, over native", value: added.cpu, bound: 3, unit: "ns",
		beside: fmt.Sprintf("native %.1f ns", native.cpu),
	}
}

// alive is how many blocks live at a time when any of them may be the next to
// go.
const alive = 1_000_000

// anyFirst measures blocks of random lifetimes, and what the books of so many
// blocks occupy.
func anyFirst(b *bench) []figure {
	exe := fixture.Build(b, "mallocbench", "-O2", "-fomit-frame-pointer")
	args := []string{"-t", "0"}
	var natives, overs []span
	var books []float64
	var said uint64
	for range 3 {
		var native, probed span
		var without, with float64
		b.step(func(b *bench) {
			p := fixture.Start(b, exe, args...)
			native = middle(random(b, p, alive))
			without = b.touched(p.PID())
		})
		b.step(func(b *bench) {
			p := fixture.Start(b, exe, args...)
			r := b.record(p.PID(), exactly)
			probed = middle(random(b, p, alive))
			with = b.touched(p.PID())
			profile := r.end()
			if n := profile.Total.Held.Count; n < alive || profile.Observed.PeakMemoryBytes == nil {
				b.Fatalf("%d blocks live, and %d are recorded", alive, n)
			}
			said = *profile.Observed.PeakMemoryBytes
		})
		natives, overs = append(natives, native), append(overs, probed.over(native))
		books = append(books, (with-without)/alive)
	}
	others := below(b, exe, args, func(p *fixture.Proc) []span { return random(b, p, alive/5) })
	native, added := middle(natives), middle(overs)
	b.Logf("exact, random lifetimes: native %.1f ns, added %.1f ns, others %v; books %.1f bytes a block", natives, overs, others, books)
	return []figure{{
		name:  "malloc and free, random lifetimes, 1 million live blocks, every block recorded, over native",
		value: added.cpu, bound: 250, unit: "ns",
		beside: versus{}.beside(native, added, others),
		why:    "each pair reads a record that is in no cache, and the records push the program's own blocks out of it",
	}, {
		name: "memory that exact recording adds, for each of 1 million live blocks", value: median(books), bound: 64, unit: "bytes",
		beside: fmt.Sprintf("stanch itself says %.0f MB in all", float64(said)/1e6),
	}}
}

// random fills a program with blocks and measures pairs of random lifetimes, n
// at a time. The first time is left out: it touches what the fill did not.
func random(b *bench, p *fixture.Proc, n int) []span {
	p.Ask(fmt.Sprintf("fill %d", alive), "ok")
	return spans(b, p, fmt.Sprintf("random %d", n), 5)[1:]
}

// heaptrack is the start of its command line.
func (b *bench) heaptrack() []string {
	return []string{fixture.Package(b, "heaptrack"), "-o", filepath.Join(b.TempDir(), "track")}
}

// memcheck is the start of its command line.
func (b *bench) memcheck() []string { return []string{fixture.Package(b, "valgrind"), "-q"} }

// below measures a program below heaptrack and below memcheck.
func below(b *bench, exe string, args []string, measure func(*fixture.Proc) []span) map[string]span {
	return map[string]span{
		"heaptrack": tooled(b, b.heaptrack(), exe, args, measure),
		"memcheck":  tooled(b, b.memcheck(), exe, args, measure),
	}
}

// tooled measures a program below a tool.
func tooled(b *bench, tool []string, exe string, args []string, measure func(*fixture.Proc) []span) span {
	p := fixture.Start(b, tool[0], append(append(tool[1:], exe), args...)...)
	list := measure(p)
	p.Say("quit")
	_ = p.Wait() // its own exit code is not our matter
	return middle(list)
}
