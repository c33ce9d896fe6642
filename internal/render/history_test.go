package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
	"stanch/internal/ui/example"
)

func text(t *testing.T, r *leak.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHistories holds the texts of all examples against golden files.
func TestHistories(t *testing.T) {
	for name, r := range example.Reports() {
		t.Run(name, func(t *testing.T) {
			got := text(t, r)
			agrees(t, filepath.Join("testdata", "history", name+".txt"), []byte(got))
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 && strings.Contains(strings.TrimSpace(line), "  ") {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if i := strings.IndexFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 && name == "hostile" {
				t.Errorf("a character that is none of a text at %d: %q", i, got[max(0, i-20):i+5])
			}
		})
	}
}

// TestHistoryReadBack writes a history as JSON, reads it, and shows the same.
func TestHistoryReadBack(t *testing.T) {
	for name, r := range example.Reports() {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		back, err := ReadJSON(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(text(t, r), text(t, back)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if !json.Valid(b.Bytes()) {
			t.Errorf("%s: not JSON", name)
		}
	}
}

// TestManyServices shows no more than fits a screen, whatever the number.
func TestManyServices(t *testing.T) {
	r := &leak.Report{}
	for i := range 600 {
		s := leak.ReportService{Name: fmt.Sprintf("worker-%03d.service with a command line that does not end /soon/ --at=all", i), From: example.Now.Add(-time.Minute), To: example.Now}
		t := leak.ReportTrend{Resource: "memory", Verdict: leak.VerdictUnknown, Bytes: true, Now: 1e6, PID: 4_194_000 + i}
		if i%2 == 0 {
			rate, low, high := 123.4e6, 1e4, 9e5
			t.Verdict, t.PerHour = leak.VerdictStepping, &rate
			t.Exhaustion = &leak.Exhaustion{Limit: "cgroup memory.max of /system.slice", InS: 86400 * 2.9, LowS: &low, HighS: &high}
			t.Since = &s.From
		}
		s.Trends = []leak.ReportTrend{t}
		r.Services = append(r.Services, s)
	}
	got := text(t, r)
	if n := strings.Count(got, "\n"); n > 50 {
		t.Errorf("%d lines", n)
	}
	for _, want := range []string{"600 services, watched for 60 s", "300 grow", "and 275 more", "and 290 more services"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(line); n > 101 {
			t.Errorf("%d columns: %s", n-1, line)
		}
	}
}

// TestZones says times in the zone of the report.
func TestZones(t *testing.T) {
	r := example.Reports()["descriptors"]
	zone := time.FixedZone("CET", 3600)
	s := &r.Services[0]
	s.From, s.To = s.From.In(zone), s.To.In(zone)
	if got := text(t, r); !strings.Contains(got, "until Sat 21 Nov 2026 04:12 CET") || !strings.Contains(got, "since  Fri 20 Nov 2026 08:12 CET") {
		t.Error(got)
	}
}

// TestNoInnerWords keeps names of metrics and fields out of the text.
func TestNoInnerWords(t *testing.T) {
	for name, r := range example.Reports() {
		got := text(t, r)
		for _, word := range []string{"stanch_process", "Theil", "Mann-Kendall", "template", "nil", "NaN", "%!"} {
			if strings.Contains(got, word) {
				t.Errorf("%s says %q: %s", name, word, got)
			}
		}
	}
	if !slices.ContainsFunc(Formats, func(f Format) bool { return f.Name == "text" }) {
		t.Error("no text")
	}
}

// TestTwice says what grows once: as history, not as a finding again. What else
// was found of the same process stands below.
func TestTwice(t *testing.T) {
	r := example.Reports()["steps"]
	r.Targets = []leak.ReportTarget{{ID: 1, PID: 4802, Comm: "collectd.service"}}
	r.Findings = []leak.Finding{{Rule: "trend.step", Severity: leak.SeverityGrowth, Target: 1, Title: "said again"}}
	once := text(t, example.Reports()["steps"])
	if got := text(t, r); got != once {
		t.Error(cmp.Diff(once, got))
	}
	r.Findings = append(r.Findings, leak.Finding{Rule: "heap.unreachable", Severity: leak.SeverityLeak, Kind: "memory", Target: 1, Title: "64-byte blocks", Count: 7, Bytes: 448})
	got := text(t, r)
	if !strings.HasPrefix(got, strings.TrimRight(once, "\n")) || !strings.Contains(got, "collectd.service[4802]\nLEAK  7 blocks, 448 bytes unreachable") || strings.Contains(got, "said again") {
		t.Error(got)
	}
}

func TestShort(t *testing.T) {
	for _, c := range [][2]string{
		{"nginx.service", "nginx.service"},
		{"systemd-journald-remote.service", "systemd-journald-..."},
		{"systemd-journald.service", "systemd-journald"},
		{"python3 /opt/shop/releases/4/visits.py", "python3 visits.py"},
		{"docker/1f2e3d4c5b6a77", "docker/1f2e3d4c5b..."},
		{"/ / /a", "/ / /a"},
	} {
		if got := short(c[0], 20); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
}

// TestColumnsOf counts what a terminal shows, not letters.
func TestColumnsOf(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{{"nginx", 5}, {"", 0}, {"é", 1}, {"e\u0301", 1}, {"日本語", 6}, {"한국어", 6}, {"ｗｅｂ", 6}, {"שלום", 4}, {"🚀", 2}, {"▲", 1}} {
		if got := columnsOf(c.text); got != c.want {
			t.Errorf("%s: %d columns, want %d", c.text, got, c.want)
		}
	}
	if got := short("日本語のとても長い名前.service", 12); got != "日本語の..." {
		t.Errorf("%q", got)
	}
}

// TestWideNames keeps the columns of a table below one another, and lines
// within the width, when names have letters that are wider than others.
func TestWideNames(t *testing.T) {
	r := &leak.Report{}
	for _, name := range []string{"nginx.service", "日本語のとても長い名前の付いたサービス.service", "cafe\u0301.service"} {
		s := leak.ReportService{Name: name, From: example.Now.Add(-time.Hour), To: example.Now}
		rate := 58e6
		s.Trends = []leak.ReportTrend{{Resource: "memory", Worker: "0", PID: 4711, Bytes: true, Verdict: leak.VerdictGrowing, Now: 1e9, PerHour: &rate}}
		r.Services = append(r.Services, s)
	}
	rows := 0
	for line := range strings.Lines(text(t, r)) {
		before, _, ok := strings.Cut(line, "4711")
		if !ok {
			continue
		}
		if rows++; columnsOf(before) != columnsOf("日本語のとても長い名前の付い...  ") {
			t.Errorf("the PID is in column %d: %s", columnsOf(before), line)
		}
		if n := columnsOf(line); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if rows != 3 {
		t.Errorf("%d rows", rows)
	}
}

// TestHostIsNotRestarted advises a restart to services alone.
func TestHostIsNotRestarted(t *testing.T) {
	rate := 4000.0
	s := leak.ReportService{Name: "host", Kind: "host", From: example.Now.Add(-time.Hour), To: example.Now}
	s.Trends = []leak.ReportTrend{{
		Metric: "stanch_host_open_files", Resource: "open files", Verdict: leak.VerdictGrowing, Now: 3882, PerHour: &rate,
		Exhaustion: &leak.Exhaustion{Limit: "fs.file-max", InS: 3600},
	}}
	if got := text(t, &leak.Report{Services: []leak.ReportService{s}}); strings.Contains(got, "restart") {
		t.Error(got)
	}
	s.Kind = "unit"
	if got := text(t, &leak.Report{Services: []leak.ReportService{s}}); !strings.Contains(got, "restart it at a quiet time") {
		t.Error(got)
	}
}

// TestNotesApart keeps what is said of the whole report apart from the last
// service.
func TestNotesApart(t *testing.T) {
	r := example.Reports()["undecided"]
	r.Notes = []string{"this is a look"}
	if got := text(t, r); !strings.HasSuffix(got, "\n\nnote: this is a look\n") {
		t.Error(got)
	}
}

// TestChanceOnce says a chance once: the evidence may have it already, and more
// exactly.
func TestChanceOnce(t *testing.T) {
	r := example.Reports()["steps"]
	trend := &r.Services[0].Trends[0]
	if got := text(t, r); strings.Count(got, "that noise") != 1 {
		t.Error(got)
	}
	trend.Evidence = append(trend.Evidence, "rose by 1 GB; the chance that noise does this is 1 in 619616")
	if got := text(t, r); strings.Count(got, "that noise") != 1 || !strings.Contains(got, "1 in 619616") {
		t.Error(got)
	}
}
