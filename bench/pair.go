package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// pair measures what a pair of malloc and free costs with the probe inside,
// sampling or recording every block, over what it costs alone, beside heaptrack.
func pair(b *bench) []figure {
	var figures []figure
	for _, threads := range []int{1, 4} {
		for _, frames := range []int{5, 20} {
			b.step(func(b *bench) { figures = append(figures, pairs(b, threads, frames)...) })
		}
	}
	return figures
}

// settled is how long after its start, and before its end, stanch may
// be busy with something else than watching: snapshots, placing, removing.
const settled = 1500 * time.Millisecond

func pairs(b *bench, threads, frames int) []figure {
	exe := fixture.Build(b, "mallocbench", "-O2", "-fomit-frame-pointer")
	args := []string{"-t", strconv.Itoa(threads), "-f", strconv.Itoa(frames)}
	p := fixture.Start(b, exe, args...)
	var natives, overs, exacts []float64
	for range 3 {
		native := nanoseconds(b, p, 4)
		probed := watched(b, p, placed, "diagnose", "--for", "6s")
		native = append(native, nanoseconds(b, p, 4)...)
		exact := watched(b, p, recorded, "record", "--mode", "exact", "--max-overhead", "100", "--for", "5s", "--quiet")
		native = append(native, nanoseconds(b, p, 4)...)
		natives = append(natives, median(native))
		overs = append(overs, median(probed)-median(native))
		exacts = append(exacts, median(exact)-median(native))
	}
	tracked := tooled(b, b.heaptrack(), exe, args, func(p *fixture.Proc) []span { return pairsOf(b, p, 12) }).cpu
	native := median(natives)
	b.Logf("%d threads, %d frames: native %.1f ns, probe adds %.1f ns, %.1f ns when exact; heaptrack %.0f ns", threads, frames, natives, overs, exacts, tracked)
	bound := 6.0
	if threads > 1 {
		bound = 9
	}
	exactBound := 60.0
	if threads > 1 || frames > 5 {
		exactBound = 100
	}
	beside := fmt.Sprintf("native %.1f ns; heaptrack adds %.0f ns", native, tracked-native)
	return []figure{{
		name:  fmt.Sprintf("malloc and free with the probe, over native: %d threads, %d frames", threads, frames),
		value: median(overs), bound: bound, unit: "ns",
		beside: beside,
	}, {
		name:  fmt.Sprintf("malloc and free with every block recorded, over native: %d threads, %d frames", threads, frames),
		value: median(exacts), bound: exactBound, unit: "ns",
		beside: beside,
	}}
}

// span is how long something takes, in nanoseconds.
type span struct{ cpu, wall float64 }

// over is by how much it is longer than another.
func (s span) over(t span) span { return span{s.cpu - t.cpu, s.wall - t.wall} }

// middle is the median of each.
func middle(list []span) span {
	var cpu, wall []float64
	for _, s := range list {
		cpu, wall = append(cpu, s.cpu), append(wall, s.wall)
	}
	return span{median(cpu), median(wall)}
}

// spans asks a program n times.
func spans(b *bench, p *fixture.Proc, question string, n int) []span {
	var list []span
	for range n {
		answer := p.Ask(question, "ns")
		list = append(list, span{b.number(answer, "ns"), b.number(answer, "wall")})
	}
	return list
}

// pairsOf measures n times a quarter of a second.
func pairsOf(b *bench, p *fixture.Proc, n int) []span { return spans(b, p, "measure 250", n) }

// nanoseconds is the CPU time of it.
func nanoseconds(b *bench, p *fixture.Proc, n int) []float64 {
	var list []float64
	for _, s := range pairsOf(b, p, n) {
		list = append(list, s.cpu)
	}
	return list
}

// sample is one measurement and when it was made.
type sample struct {
	begin, end time.Time
	ns         float64
}

// watched measures while a command of stanch watches, and holds by its report
// that its probe was there.
func watched(b *bench, p *fixture.Proc, there func(report string) error, command ...string) []float64 {
	for try := 1; ; try++ {
		report := filepath.Join(b.TempDir(), "report.json")
		done := make(chan error, 1)
		began := time.Now()
		go func() {
			_, err := attempt(b.stanch, append(command, "-o", report, strconv.Itoa(p.PID()))...)
			done <- err
		}()
		samples, err := samplesUntil(b, p, done)
		ended := time.Now()
		if err == nil {
			err = there(report)
		}
		if err != nil {
			b.again(try, err)
			continue
		}
		var list []float64
		for _, s := range samples {
			if s.begin.Sub(began) > settled && ended.Sub(s.end) > settled {
				list = append(list, s.ns)
			}
		}
		if len(list) < 4 {
			b.Fatalf("stanch %s ended after %v: too short to measure", command[0], ended.Sub(began))
		}
		return list
	}
}

// samplesUntil measures until done says how it ended.
func samplesUntil(b *bench, p *fixture.Proc, done <-chan error) (samples []sample, err error) {
	for {
		select {
		case err := <-done:
			return samples, err
		default:
			began := time.Now()
			ns := nanoseconds(b, p, 1)[0]
			samples = append(samples, sample{began, time.Now(), ns})
		}
	}
}

// recorded is nil when the table of a recording counts blocks one by one.
func recorded(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte(`"mode": "exact"`)) {
		return fmt.Errorf("%s: not an exact recording: %.200s", path, text)
	}
	return nil
}

// placed is nil when the report says that a probe ran and is removed.
func placed(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r leak.Report
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if r.Observed.ProbeRemoved == nil || !*r.Observed.ProbeRemoved {
		return fmt.Errorf("no probe was placed, or it is not removed: %q %q", r.Notes, r.Gaps)
	}
	return nil
}
