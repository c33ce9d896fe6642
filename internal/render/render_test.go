package render

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ptr[T any](v T) *T { return &v }

// reports are what the golden files show.
func reports() map[string]*leak.Report {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	stack := []leak.StackFrame{
		{Function: "xmalloc", File: "/build/collectd/src/util.c", Line: 9, Module: "collectd", BuildID: "4f1c99aa", Offset: 0x10},
		{Function: "parse_reply", File: "/build/collectd/src/net.c", Line: 88, Module: "collectd", BuildID: "4f1c99aa", Offset: 0x1139},
		{Function: "poll_host", File: "/build/collectd/src/poll.c", Line: 60, Module: "collectd", BuildID: "4f1c99aa", Offset: 0x2000},
		{Function: "main", File: "/build/collectd/src/main.c", Line: 212, Module: "collectd", BuildID: "4f1c99aa", Offset: 0x3000},
	}
	collectd := leak.ReportTarget{
		ID: 1, PID: 4711, Comm: "collectd", Exe: "/usr/sbin/collectd", Allocator: "glibc 2.36", UptimeS: ptr(6 * 86400.0),
		RSSBytes: ptr(uint64(7_200_000_000)), MemoryLimitBytes: ptr(uint64(8_000_000_000)), MemoryLimit: "cgroup memory.max",
		HeapBytes: ptr(uint64(6_900_000_000)), HeapBlocks: ptr(uint64(9_123_456)), LostBytes: ptr(uint64(85_840_000)), LostBlocks: ptr(uint64(214_600)),
	}
	lost := leak.Finding{
		Key: "heap.unreachable:4f1c99aa:1139:0f523ee9", NameKey: "heap.unreachable:collectd:parse_reply:poll_host:main",
		Rule: "heap.unreachable", Severity: leak.SeverityLeak, Kind: "memory", Target: 1,
		Title: "400-byte blocks from parse_reply are never freed", What: "400-byte blocks",
		Count: 1210, Bytes: 484000, BytesAre: "requested", Direct: 1210,
		BeforeAttach:  &leak.BeforeAttach{Count: 213390, Bytes: 85356000, Type: "Conn object", Site: leak.CertaintyLikely},
		SiteCertainty: leak.CertaintyProved,
		Rate:          &leak.Rate{BytesPerHour: 58e6, CountPerHour: 145200, BytesPerHourLow: ptr(47e6), BytesPerHourHigh: ptr(72e6)},
		Exhaustion:    &leak.Exhaustion{Limit: "memory.max", InS: 49600, LowS: ptr(40000.0), HighS: ptr(61200.0)},
		Stack:         stack, Site: 1,
		Evidence: []string{
			"proof: no pointer to them in memory, registers or kernel; two snapshots 30 s apart",
			"site: 1,210 new: seen. 213,390 older: likely (same size, same vtable Conn)",
		},
		Advice: []string{"5,310 of 6,520 from this line were freed while it was watched; these never are: check the early returns and error paths after parse_reply net.c:88"},
	}
	grows := leak.Finding{
		Key: "heap.growth:4f1c99aa:1500:e6238e75", NameKey: "heap.growth:collectd:cache_put:main", Rule: "heap.growth", Severity: leak.SeverityGrowth,
		Kind: "memory", Target: 1, What: "blocks", Title: "11.9 MB more held by cache_put after 29 s, and still reachable",
		Count: 29700, Bytes: 11_880_000, BytesAre: "estimated", SiteCertainty: leak.CertaintyProved,
		Rate:  &leak.Rate{BytesPerHour: 1.4256e9, CountPerHour: 3.56e6},
		Stack: []leak.StackFrame{{Function: "Cache::put(std::string const&)", Module: "collectd", Offset: 0x1500}, {Module: "collectd", Offset: 0x3000}},
		Evidence: []string{"seen: 30,000 acquired, 300 freed in 29 s; each third added +3.6 MB, +4 MB, +4 MB",
			"heap: pointers lead to them; all that is reachable grew by 12 MB"},
		Advice: []string{"see what keeps what cache_put allocates: a cache without a bound, a list or table that is only added to"},
	}
	rest := leak.Finding{
		Key: "heap.growth:unexplained", NameKey: "heap.growth:unexplained", Rule: "heap.growth", Severity: leak.SeverityGrowth, Kind: "memory", Target: 1,
		What: "reachable growth", Title: "310 MB of reachable growth", Bytes: 310_000_000, BytesAre: "usable", SiteCertainty: leak.CertaintyNone,
		Evidence: []string{"holder: g_cache holds 290 MB more in 408-byte blocks"},
	}
	fds := leak.Finding{
		Key: "fd.growth:sockets", Rule: "fd.growth", Severity: leak.SeverityGrowth, Kind: "descriptor", Target: 1, What: "descriptors",
		Title: "at least 40 more descriptors in 30 s", Count: 40, Rate: &leak.Rate{CountPerHour: 4800},
		Exhaustion: &leak.Exhaustion{Limit: "RLIMIT_NOFILE", InS: 432},
		Evidence:   []string{"kinds: +40 sockets", "limit: 160 of 1,024 in use"},
	}
	cost := leak.Observed{Start: start, DurationS: 31.4, PauseMS: []float64{86.2, 84.1}, OverheadPercent: ptr(1.1), PeakMemoryBytes: ptr(uint64(31e6)), ProbeRemoved: ptr(true)}
	older := leak.Finding{
		Key: "heap.unreachable:size408:zero", NameKey: "heap.unreachable:size408:zero", Rule: "heap.unreachable", Severity: leak.SeverityNote, Kind: "memory", Target: 1,
		Title: "408-byte blocks that nothing points to", What: "408-byte blocks", Count: 1, Bytes: 408, BytesAre: "usable", Direct: 1, SiteCertainty: leak.CertaintyNone,
		Evidence: []string{"proof: no pointer to them in this core", "weaker: one core file: what was on its way between two places cannot be told from what is lost", "type: starts with zeros"},
		Advice:   []string{"the line is not in a core: run stanch diagnose on the process while it lives"},
	}
	clean := collectd
	clean.LostBlocks, clean.LostBytes = ptr(uint64(0)), ptr(uint64(0))
	scanned := clean
	scanned.Held = []leak.ReportHeld{
		{Holder: "g_cache", Type: "starts with a heap pointer", Size: 408, Count: 9_000_000, Bytes: 3_672_000_000},
		{Holder: "the stack of thread 4712", Type: "Conn", Size: 88, Count: 2, Bytes: 176},
	}
	hostile := leak.ReportTarget{ID: 1, PID: 1, Comm: "\x1b[31mevil\nname", Allocator: "\x07jemalloc"}
	all := map[string]*leak.Report{
		"diagnose":  {Targets: []leak.ReportTarget{collectd}, Observed: cost, Findings: []leak.Finding{lost, fds, grows, rest}, Gaps: []string{"120 allocations were not recorded for lack of room"}},
		"nothing":   {Targets: []leak.ReportTarget{clean}, Observed: cost, Notes: []string{"a loss that happens less than 441 times an hour may not have happened in 30 s"}},
		"scan":      {Targets: []leak.ReportTarget{scanned}, Observed: leak.Observed{Start: start, DurationS: 1.4, PauseMS: []float64{11.9, 12.2}}},
		"core":      {Targets: []leak.ReportTarget{{ID: 1, PID: 4711, Comm: "collectd", Allocator: "glibc 2.36"}}, Observed: leak.Observed{Start: start}, Findings: []leak.Finding{older}},
		"unwalked":  {Targets: []leak.ReportTarget{hostile}, Observed: leak.Observed{Start: start, DurationS: 30, ProbeRemoved: ptr(false)}, Findings: []leak.Finding{}},
		"only_rest": {Targets: []leak.ReportTarget{clean}, Observed: cost, Findings: []leak.Finding{rest}},
		"two": {Targets: []leak.ReportTarget{clean, {ID: 2, PID: 4712, Comm: "worker"}}, Observed: leak.Observed{Start: start, DurationS: 3},
			Findings: []leak.Finding{fds}},
		"known": {Targets: []leak.ReportTarget{collectd}, Observed: cost,
			Suppressed: []leak.Suppressed{{Rule: "function:parse_*", At: "known.supp:1", Findings: 1, Count: 2, Bytes: 800}, {Rule: "leak:poll", At: "known.supp:2"}},
			Known:      []leak.Known{{Baseline: "base.json", Findings: 1, Count: 4, Bytes: 400, WasCount: 3, WasBytes: 300, Gone: []string{"64-byte blocks from draw are never freed"}}},
			Notes:      []string{"1 finding (2 blocks, 800 bytes) suppressed by function:parse_* (known.supp:1)"}},
	}
	maps.Copy(all, runs())
	maps.Copy(all, descriptors())
	return all
}

// agrees holds what was written against a golden file, or writes the file.
func agrees(t *testing.T, golden string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: want - got +\n%s", golden, diff)
	}
}

func TestGolden(t *testing.T) {
	for name, r := range reports() {
		for _, f := range Formats {
			var got bytes.Buffer
			if err := f.Write(&got, r); err != nil {
				t.Fatal(err)
			}
			agrees(t, filepath.Join("testdata", name+f.Ext), got.Bytes())
		}
	}
}

func TestTextFitsATerminal(t *testing.T) {
	for name, r := range reports() {
		var b bytes.Buffer
		if err := Text(&b, r); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > columns {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == '\u00a0' }) {
				t.Errorf("%s: control characters: %q", name, line)
			}
			for _, word := range []string{" aim", "books", "detour", " gap"} {
				if strings.Contains(line, word) {
					t.Errorf("%s: the inner word %q: %s", name, word, line)
				}
			}
		}
	}
}

func TestJSONReadsBack(t *testing.T) {
	for name, r := range reports() {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), ": null") && strings.Contains(b.String(), `"stack": null`) {
			t.Errorf("%s: a slice is null", name)
		}
		got, err := ReadJSON(&b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestReadJSONRefuses(t *testing.T) {
	for _, s := range []string{"", "[]", "{}", `{"schema": "stanch.report/v9"}`, `{"schema": "stanch.report/v1", "findings": 3}`} {
		if _, err := ReadJSON(strings.NewReader(s)); err == nil {
			t.Errorf("%q was read", s)
		}
	}
	r, err := ReadJSON(strings.NewReader(`{"schema": "stanch.report/v1", "later": {"x": 1}}`))
	if err != nil || r.Findings == nil {
		t.Errorf("a report of a later version: %v", err)
	}
}

func TestExplain(t *testing.T) {
	var b bytes.Buffer
	if err := Explain(&b, 1213486160, []leak.Meaning{{Text: `"HTTP" (HTTP response)`, How: "4 bytes of text read as a big-endian number"}}); err != nil {
		t.Fatal(err)
	}
	if err := Explain(&b, 42, nil); err != nil {
		t.Fatal(err)
	}
	want := `1213486160 = 0x48545450 = 1.2 GB
  "HTTP" (HTTP response): 4 bytes of text read as a big-endian number
42 = 0x2a
  no text, time, address or pattern that stanch knows
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

func FuzzText(f *testing.F) {
	for _, r := range reports() {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadJSON(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Text(&b, r); err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(b.Bytes(), "\x1b\x07\x00\r") {
			t.Errorf("control characters in the text: %q", b.String())
		}
	})
}
