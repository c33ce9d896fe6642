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
		probed := watched(b, p, placed, "diagnose", "--for", "8s")
		native = append(native, nanoseconds(b, p, 4)...)
		exact := watched(b, p, recorded, "record", "--mode", "exact", "--max-overhead", "100", "--for", "6s", "--quiet")
		native = append(native, nanoseconds(b, p, 4)...)
		natives = append(natives, median(native))
		overs = append(overs, median(probed)-median(native))
		exacts = append(exacts, median(exact)-median(native))
	}
	tracked := heaptracked(b, exe, args)
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

// nanoseconds measures n times a quarter of a second.
func nanoseconds(b *bench, p *fixture.Proc, n int) []float64 {
	var list []float64
	for range n {
		list = append(list, b.number(p.Ask("measure 250", "ns"), "ns"))
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

// heaptracked measures the same program below heaptrack.
func heaptracked(b *bench, exe string, args []string) float64 {
	heaptrack := fixture.Package(b, "heaptrack")
	p := fixture.Start(b, heaptrack, append([]string{"-o", filepath.Join(b.TempDir(), "track"), exe}, args...)...)
	var list []float64
	for range 3 {
		list = append(list, b.number(p.Ask("measure 1000", "ns"), "ns"))
	}
	ns := median(list)
	p.Say("quit")
	_ = p.Wait() // its own exit code is not our matter
	return ns
}
