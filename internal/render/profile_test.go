package render

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"stanch/internal/leak"
)

// profiles are what the golden files show.
func profiles() map[string]*leak.Profile {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	collectd := leak.ReportTarget{ID: 1, PID: 4711, Comm: "collectd", Exe: "/usr/sbin/collectd", Allocator: "glibc 2.36", UptimeS: ptr(6 * 86400.0),
		RSSBytes: ptr(uint64(7_200_000_000)), MemoryLimitBytes: ptr(uint64(8_000_000_000)), MemoryLimit: "cgroup memory.max"}
	cost := leak.Observed{Start: start, DurationS: 30, PauseMS: []float64{1.73, 0.779, 2.97}, OverheadPercent: ptr(1.1), PeakMemoryBytes: ptr(uint64(635_000)), ProbeRemoved: ptr(true)}
	text := leak.Mapping{ID: 1, Start: 0x55d000001000, End: 0x55d000005000, Exec: true, Read: true, Offset: 0x1000, Dev: 1, Inode: 2, Path: "/usr/sbin/collectd", BuildID: "4f1c99aa"}
	heapless := leak.Mapping{ID: 2, Start: 0x7f0000001000, End: 0x7f0000002000, Exec: true, Read: true}
	xmalloc := leak.StackFrame{Function: "xmalloc", File: "/build/collectd/src/util.c", Line: 9, Module: "collectd", BuildID: "4f1c99aa", Offset: 0x1010, Inlined: true}
	parse := leak.StackFrame{Function: "parse_reply", File: "/build/collectd/src/net.c", Line: 88, Module: "collectd", BuildID: "4f1c99aa", Offset: 0x1010}
	poll := leak.StackFrame{Function: "poll_host", File: "/build/collectd/src/poll.c", Line: 60, Module: "collectd", BuildID: "4f1c99aa", Offset: 0x2000}
	bare := leak.StackFrame{Module: "[anonymous]", Offset: 0x40}
	lost := leak.ProfileCounts{Held: leak.Amount{Count: 1210, Bytes: 484000}, Acquired: leak.Amount{Count: 6520, Bytes: 2608000}, Released: leak.Amount{Count: 5310, Bytes: 2124000}}
	none := leak.ProfileCounts{Acquired: leak.Amount{Count: 3, Bytes: 24}, Released: leak.Amount{Count: 3, Bytes: 24}}
	rough := lost
	rough.Estimated = true
	return map[string]*leak.Profile{
		"record": {
			Targets: []leak.ReportTarget{collectd}, Observed: cost, Count: 3,
			Recorded: leak.Recorded{Mode: leak.RecordSizes, Sizes: []leak.SizeRange{{Min: 400, Max: 400}, {Min: 65536, Max: 1 << 20}}, Sort: "bytes", Allocator: "glibc 2.36"},
			Total:    leak.ProfileCounts{Held: lost.Held, Acquired: leak.Amount{Count: 6526, Bytes: 2608048}, Released: leak.Amount{Count: 5316, Bytes: 2124048}},
			Sites: []leak.ProfileSite{
				{ProfileCounts: lost, Key: "4f1c99aa:1010:0f523ee9", NameKey: "collectd:parse_reply:poll_host", OldestS: ptr(29.4), BytesPerHour: ptr(58e6),
					Stack: []leak.StackFrame{xmalloc, parse, poll}, Site: 1},
				{ProfileCounts: none, Key: "anonymous:40:0f523ee9", NameKey: "anonymous:", Stack: []leak.StackFrame{bare, poll}},
			},
			Stacks: []leak.ProfileStack{
				{ProfileCounts: lost, Places: []leak.Place{
					{Frame: leak.Frame{Map: 1, Off: 0x1010}, Mapping: text, Names: []leak.StackFrame{xmalloc, parse}},
					{Frame: leak.Frame{Map: 1, Off: 0x2000}, Mapping: text, Names: []leak.StackFrame{poll}}}},
				{ProfileCounts: none, Places: []leak.Place{
					{Frame: leak.Frame{Map: 2, Off: 0x40}, Mapping: heapless, Names: []leak.StackFrame{bare}},
					{Frame: leak.Frame{Map: 1, Off: 0x2000}, Mapping: text, Names: []leak.StackFrame{poll}}}},
				{ProfileCounts: none},
			},
			Gaps: []string{"the probe's table of held blocks is full: blocks were not recorded"},
		},
		"record_sample": {
			Targets: []leak.ReportTarget{collectd}, Observed: leak.Observed{Start: start, DurationS: 7200}, Count: 2,
			Recorded: leak.Recorded{Mode: leak.RecordSample, SampleBytes: 512 << 10, Through: []string{"parse_reply", "poll\x1bhost"}, Sort: "age"},
			Total:    rough,
			Sites: []leak.ProfileSite{
				{ProfileCounts: rough, Key: "4f1c99aa:1010:0f523ee9", NameKey: "collectd:parse_reply", OldestS: ptr(7000.0), BytesPerHour: ptr(-1e6), Stack: []leak.StackFrame{parse, poll}},
				{Key: "none", NameKey: "none"},
			},
		},
		"record_nothing": {
			Targets: []leak.ReportTarget{{ID: 1, PID: 1, Comm: "idle"}}, Recorded: leak.Recorded{Mode: leak.RecordSample, SampleBytes: 512 << 10, Sort: "bytes"},
			Observed: leak.Observed{Start: start, DurationS: 3, ProbeRemoved: ptr(false)},
		},
	}
}

func TestProfileGolden(t *testing.T) {
	for name, p := range profiles() {
		for _, f := range ProfileFormats[:2] {
			var got bytes.Buffer
			if err := f.Write(&got, p); err != nil {
				t.Fatal(err)
			}
			agrees(t, filepath.Join("testdata", name+f.Ext), got.Bytes())
			for line := range strings.Lines(got.String()) {
				if n := utf8.RuneCountInString(line); f.Name == "text" && (n > columns+1 || strings.ContainsAny(line, "\x1b\u00a0")) {
					t.Errorf("%s: %d columns, or control characters: %q", name, n, line)
				}
			}
		}
	}
}

func TestProfileReadsBack(t *testing.T) {
	for name, p := range profiles() {
		var b bytes.Buffer
		if err := ProfileJSON(&b, p); err != nil {
			t.Fatal(err)
		}
		got, err := ReadProfile(&b)
		if err != nil {
			t.Fatal(err)
		}
		p.Stacks = nil
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if err := Pprof(&b, got); (err != nil) != (p.Count > 0) {
			t.Errorf("%s: a pprof profile without stacks: %v", name, err)
		}
	}
	for _, s := range []string{"", "[]", `{"schema": "stanch.report/v1"}`} {
		if _, err := ReadProfile(strings.NewReader(s)); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

func TestPprof(t *testing.T) {
	var b bytes.Buffer
	recorded := profiles()["record"]
	// A library's frame comes first, the program is the first mapping all the same.
	recorded.Stacks[0], recorded.Stacks[1] = recorded.Stacks[1], recorded.Stacks[0]
	if err := Pprof(&b, recorded); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.pb.gz")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if p.DefaultSampleType != "inuse_space" || len(p.SampleType) != 4 || p.Period != 1 || p.DurationNanos != 30e9 || p.TimeNanos == 0 || len(p.Comments) != 2 {
		t.Errorf("%v", p)
	}
	if len(p.Sample) != 3 || len(p.Location) != 4 || len(p.Mapping) != 2 || len(p.Function) != 4 {
		t.Errorf("%d samples, %d locations, %d mappings, %d functions", len(p.Sample), len(p.Location), len(p.Mapping), len(p.Function))
	}
	// What is inlined shares a location with its caller, innermost first.
	first := p.Sample[1].Location[0]
	if len(first.Line) != 2 || first.Line[0].Function.Name != "xmalloc" || first.Line[1].Line != 88 || first.Address != 0x55d000001010 {
		t.Errorf("%+v", first)
	}
	m := first.Mapping
	if m != p.Mapping[0] || m.BuildID != "4f1c99aa" || m.File != "/usr/sbin/collectd" || m.Offset != 0x1000 || !m.HasFunctions || !m.HasLineNumbers || !m.HasInlineFrames {
		t.Errorf("%+v", m)
	}
	if diff := cmp.Diff([]int64{484000, 1210, 2608000, 6520}, p.Sample[1].Value); diff != "" {
		t.Error(diff)
	}
	// The tool agrees.
	cmd := exec.Command("go", "tool", "pprof", "-top", "-lines", "-sample_index=alloc_objects", file)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"6520 99.91% 99.91%       6520 99.91%  xmalloc /build/collectd/src/util.c:9 (inline)", "6523   100%  poll_host /build/collectd/src/poll.c:60"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("go tool pprof lacks %q:\n%s", want, out)
		}
	}
}
