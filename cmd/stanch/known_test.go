package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// knownPrograms are those of testdata/leaky that know block by block what they
// lost. Package heap compares the blocks; here the sums of the report count.
var knownPrograms = []string{
	"direct", "lists", "cycles", "mmapped", "freed", "realloc", "memalign", "pool", "objects", "threads", "interior",
	"tagged", "coroutine", "sighandler", "exceptions", "forker", "dlopener",
}

// TestKnownLeaks scans programs that know what they lost, with symbols and
// without, and their clean twins.
func TestKnownLeaks(t *testing.T) {
	privileged(t)
	for _, name := range knownPrograms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exe := fixture.Build(t, name)
			scanKnown(t, exe, name, true)
			if name == "direct" || name == "objects" || name == "threads" {
				scanKnown(t, fixture.Strip(t, exe), name, true)
				scanKnown(t, fixture.Build(t, name, "-DCLEAN"), name, false)
			}
		})
	}
}

// scanKnown starts a program, lets it lose blocks, and compares the report with
// what the program says of itself.
func scanKnown(t *testing.T, exe, name string, leaky bool) {
	t.Helper()
	p := startKnown(t, exe, name)
	for _, line := range []string{"keep 12", "leak 240", "free 5", "keep 3"} {
		p.Ask(line, "ok")
	}
	truth := p.Blocks()
	o := stanch(t, "scan", roomy, "--format", "json", pid(p))
	if !leaky {
		o.wantCode(t, 0)
		if n := len(truth.Lost); n != 0 {
			t.Fatalf("the clean twin lost %d blocks", n)
		}
	} else {
		o.wantCode(t, 3)
	}
	r := o.report(t)
	if len(r.Targets) != 1 || r.Targets[0].LostBlocks == nil {
		t.Fatalf("no heap was walked:\n%s", o.out)
	}
	found := sumLeaks(r)
	lost := uint64(len(truth.Lost))
	if found.count > lost {
		t.Errorf("%s: %d blocks are called leaked, %d are", exe, found.count, lost)
	}
	if float64(found.count) < 0.995*float64(lost) { // a stale word may hold one
		t.Errorf("%s: %d blocks are called leaked, %d are", exe, found.count, lost)
	}
	// Sizes in the report are usable bytes where no request is known: glibc's
	// chunks are 16 bytes apart, at least 24 usable, and may be 16 larger than
	// needed. Aligned blocks may have more.
	least, most := fixture.Bytes(truth.Lost), uint64(0)
	for _, size := range truth.Lost {
		most += max(size, 24) + 31
		if size >= 100<<10 {
			most += 1 << 20 // whole pages, and what was left for the alignment
		}
	}
	if found.count == lost && (found.bytes < least || found.bytes > most) {
		t.Errorf("%s: %d bytes in %d blocks, want between %d and %d", exe, found.bytes, lost, least, most)
	}
	if want := uint64(len(truth.Indirect)); name != "cycles" && found.count == lost && found.indirect != want {
		t.Errorf("%s: %d blocks are called indirectly lost, %d are", exe, found.indirect, want)
	}
	p.Quit()
}

func startKnown(t *testing.T, exe, name string) *fixture.Proc {
	t.Helper()
	var args []string
	if name == "dlopener" {
		args = append(args, fixture.Build(t, "plugin", "-shared", "-fPIC"))
	}
	return fixture.Start(t, exe, args...)
}

// lostSum adds up what a report calls leaked.
type lostSum struct{ count, bytes, indirect uint64 }

func sumLeaks(r *leak.Report) lostSum {
	var s lostSum
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity != leak.SeverityLeak || f.Kind != leak.KindMemory.String() {
			continue
		}
		s.count += f.Count
		s.bytes += f.Bytes
		s.indirect += f.Indirect
		if b := f.BeforeAttach; b != nil {
			s.count += b.Count
			s.bytes += b.Bytes
			s.indirect += b.IndirectCount
		}
	}
	return s
}

// TestPlantedLines lets programs lose blocks while stanch watches them: the
// lines that lose them are named, each with its function, and no other.
func TestPlantedLines(t *testing.T) {
	privileged(t)
	for _, name := range []string{"direct", "lists", "objects", "threads", "realloc", "memalign"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startKnown(t, fixture.Build(t, name), name)
			// Old losses tell the probe what to aim at.
			p.Ask("leak 60", "ok")
			s := begin(t, "diagnose", roomy, "--for", "6s", "--format", "json", pid(p))
			s.await("watching")
			p.Ask("leak 120", "ok")
			o := s.wait()
			o.wantCode(t, 3)
			checkPlanted(t, name, o)
			p.Quit()
		})
	}
}

// checkPlanted holds the lines of a report against the want comments in the
// program.
func checkPlanted(t *testing.T, name string, o outcome) {
	t.Helper()
	r := o.report(t)
	named := map[string]bool{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity != leak.SeverityLeak || len(f.Stack) == 0 {
			continue
		}
		site := f.Stack[f.Site]
		named[fmt.Sprintf("%s:%d", filepath.Base(site.File), site.Line)] = true
		if site.Function == "" || f.SiteCertainty != leak.CertaintyProved {
			t.Errorf("the site of %q is %q, %s", f.Title, site.Function, f.SiteCertainty)
		}
	}
	var wants []string
	var last fixture.Want
	for _, w := range fixture.Wants(t, name) {
		if w.Kind != "memory" {
			continue
		}
		line := fmt.Sprintf("%s:%d", w.File, w.Line)
		wants = append(wants, line)
		// Of two lines that make a cycle or a list together, one is enough: the
		// other's blocks are held by its.
		partner := fmt.Sprintf("%s:%d", last.File, last.Line)
		if !named[line] && (w.Line > last.Line+3 || !named[partner]) {
			t.Errorf("%s is not named", line)
		}
		last = w
	}
	for n := range named {
		if !slices.Contains(wants, n) {
			t.Errorf("%s is named, and no block is lost there", n)
		}
	}
	if t.Failed() {
		t.Logf("the report:\n%s", o.out)
	}
}

// TestCollector diagnoses the daemon of the demonstration: what it counts
// itself, the report says, old losses and new ones, each by its line.
func TestCollector(t *testing.T) {
	privileged(t)
	p := fixture.Start(t, fixture.Build(t, "collector", "-O2"), "-s", "-r", "200", "-o", "2000")
	s := begin(t, "diagnose", roomy, "--for", "8s", "--format", "json", pid(p))
	s.await("watching")
	o := s.wait()
	p.Ask("pause", "ok")
	after := collectorCount(t, p)
	o.wantCode(t, 3)
	r := o.report(t)
	for _, function := range []string{"parse_reply", "add_metrics"} {
		f := findSite(r, function)
		if f == nil {
			t.Errorf("%s is not named:\n%s", function, o.out)
			continue
		}
		site := f.Stack[f.Site]
		if filepath.Base(site.File) != "collector.c" || site.Line == 0 {
			t.Errorf("%s is at %s:%d", function, site.File, site.Line)
		}
		if f.BeforeAttach == nil || f.BeforeAttach.Site != leak.CertaintyLikely {
			t.Errorf("what %s lost before is %+v", function, f.BeforeAttach)
			continue
		}
		was := after.replies
		if function == "add_metrics" {
			was = after.metrics
		}
		if n := f.Count + f.BeforeAttach.Count; n > was || n < was/2 {
			t.Errorf("%s: %d lost, the daemon has counted %d", function, n, was)
		}
		if f.Rate == nil || f.Rate.BytesPerHour <= 0 {
			t.Errorf("%s: rate %+v", function, f.Rate)
		}
	}
	// 1000-byte entries of a place that never runs again: counted, no line.
	entries := uint64(0)
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity == leak.SeverityLeak && len(f.Stack) == 0 && f.BeforeAttach != nil && f.BeforeAttach.Count > 0 {
			each := f.BeforeAttach.Bytes / f.BeforeAttach.Count
			if each >= 1000 && each <= 1024 {
				entries += f.BeforeAttach.Count
			}
		}
	}
	if math.Abs(float64(entries)-float64(after.entries)) > 1 {
		t.Errorf("%d old entries without a line, the daemon lost %d", entries, after.entries)
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity == leak.SeverityLeak && len(f.Stack) > 0 && f.Stack[f.Site].Function == "remember" {
			t.Errorf("the cache is called a leak: %s", f.Title)
		}
	}
	if r.Observed.ProbeRemoved == nil || !*r.Observed.ProbeRemoved || len(r.Observed.PauseMS) < 3 || r.Observed.OverheadPercent == nil {
		t.Errorf("what it cost: %+v", r.Observed)
	}
	p.Ask("resume", "ok")
	p.Quit()
}

type collectorCounts struct{ replies, metrics, frames, entries uint64 }

func collectorCount(t *testing.T, p *fixture.Proc) collectorCounts {
	t.Helper()
	var c collectorCounts
	line := p.Ask("count", "count ")
	if _, err := fmt.Sscanf(line, "count replies=%d metrics=%d frames=%d entries=%d", &c.replies, &c.metrics, &c.frames, &c.entries); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return c
}

// findSite is the leak whose line lies in a function.
func findSite(r *leak.Report, function string) *leak.Finding {
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity == leak.SeverityLeak && len(f.Stack) > 0 && strings.HasPrefix(f.Stack[f.Site].Function, function) {
			return f
		}
	}
	return nil
}
