package suppress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

// lost is a finding with a key and a name key of its own.
func lost(key, functions string, count uint64) leak.Finding {
	f := finding(strings.Split(functions, " ")...)
	f.Key, f.NameKey = "heap.unreachable:"+key, "heap.unreachable:prog:"+strings.ReplaceAll(functions, " ", ":")
	f.Count, f.Direct, f.Bytes = count, count, 64*count
	f.Title = fmt.Sprintf("64-byte blocks from %s are never freed", f.Stack[0].Function)
	return f
}

func titles(r *leak.Report) []string {
	out := []string{}
	for i := range r.Findings {
		out = append(out, r.Findings[i].Key)
	}
	return out
}

func TestApply(t *testing.T) {
	r := &leak.Report{Findings: []leak.Finding{lost("a:1", "parse main", 3), lost("b:2", "poll main", 2), lost("c:3", "draw main", 1)}, Notes: []string{"first"}}
	r.Findings[0].BeforeAttach = &leak.BeforeAttach{Count: 10, Bytes: 1000}
	fd := leak.Finding{Key: "fd.growth:all", Rule: "fd.growth", Kind: "descriptor", Count: 40}
	r.Findings = append(r.Findings, fd)
	parse(t, `
function:parse
function:po*
module:prog2
function:poll  # the same as po*, and used as well
key:fd.growth:all
{
  theirs
  Memcheck:Cond
  fun:x
}
{
  wide
  Memcheck:Leak
  fun:_ZN*Cache*
}
`).Apply(r)
	if diff := cmp.Diff([]string{"heap.unreachable:c:3"}, titles(r)); diff != "" {
		t.Error(diff)
	}
	want := []leak.Suppressed{
		{Rule: "function:parse", At: "x.supp:2", Findings: 1, Count: 13, Bytes: 1192},
		{Rule: "function:po*", At: "x.supp:3", Findings: 1, Count: 2, Bytes: 128},
		{Rule: "module:prog2", At: "x.supp:4"},
		{Rule: "function:poll", At: "x.supp:5"},
		{Rule: "key:fd.growth:all", At: "x.supp:6", Findings: 1},
	}
	if diff := cmp.Diff(want, r.Suppressed); diff != "" {
		t.Error(diff)
	}
	notes := []string{
		"first",
		"1 finding (13 blocks, 1.2 KB) suppressed by function:parse (x.supp:2)",
		"1 finding (2 blocks, 128 bytes) suppressed by function:po* (x.supp:3)",
		"1 finding suppressed by key:fd.growth:all (x.supp:6)",
		"unused suppression: module:prog2 (x.supp:4)",
		"x.supp:13: the suppression wide is not used: the mangled name _ZN*Cache* cannot be compared with the readable names of a report; write the function without wildcards",
		"x.supp: ignored 1 suppression of other kinds than Memcheck:Leak and Memcheck:Free",
	}
	if diff := cmp.Diff(notes, r.Notes); diff != "" {
		t.Error(diff)
	}
}

// TestApplyNothing: without rules a report stays as it is.
func TestApplyNothing(t *testing.T) {
	r := &leak.Report{Findings: []leak.Finding{lost("a:1", "parse", 3)}}
	(&Rules{}).Apply(r)
	parse(t, "# nothing yet\n").Apply(r)
	if len(r.Findings) != 1 || r.Suppressed != nil || r.Notes != nil {
		t.Errorf("%+v", r)
	}
}

// TestManyUnused: a long file does not bury the report.
func TestManyUnused(t *testing.T) {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "function:f%d\n", i)
	}
	blind := lost("a:1", "parse", 3)
	blind.Stack = nil
	r := &leak.Report{Findings: []leak.Finding{blind}}
	parse(t, b.String()).Apply(r)
	want := []string{"and 40 more unused suppressions: --format json has them all", "no finding of this report has a line, and without one only key: suppressions match"}
	if len(r.Suppressed) != 50 || len(r.Notes) != maxListed+2 || cmp.Diff(want, r.Notes[maxListed:]) != "" {
		t.Errorf("%d counted, notes %q", len(r.Suppressed), r.Notes)
	}
}

// read writes a baseline of the findings and reads it back.
func read(t *testing.T, findings ...leak.Finding) *Baseline {
	t.Helper()
	var b bytes.Buffer
	if err := NewBaseline(&leak.Report{Findings: findings}).Write(&b); err != nil {
		t.Fatal(err)
	}
	base, err := ReadBaseline(&b)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

func TestBaseline(t *testing.T) {
	base := read(t, lost("a:1", "parse main", 3), lost("b:2", "poll main", 2), lost("b:2", "poll main", 5))
	if len(base.Findings) != 2 || base.Findings[1].Count != 7 {
		t.Errorf("the same place in two processes: %+v", base.Findings)
	}
	for _, c := range []struct {
		name  string
		found []leak.Finding
		left  []string
		gone  int
	}{
		{"the same again, and more of it", []leak.Finding{lost("b:2", "poll main", 200), lost("a:1", "parse main", 3)}, []string{}, 0},
		{"a new place", []leak.Finding{lost("a:1", "parse main", 3), lost("c:3", "draw main", 1)}, []string{"heap.unreachable:c:3"}, 1},
		{"a new place in the same functions", []leak.Finding{lost("a:9", "parse main", 3), lost("a:1", "parse main", 3)}, []string{"heap.unreachable:a:9"}, 1},
		{"rebuilt", []leak.Finding{lost("x:1", "parse main", 3), lost("y:2", "poll main", 2)}, []string{}, 0},
		{"rebuilt, with a second place in the same functions", []leak.Finding{lost("x:1", "parse main", 3), lost("x:8", "parse main", 3)}, []string{"heap.unreachable:x:8"}, 1},
		{"rebuilt, in two processes", []leak.Finding{lost("x:1", "parse main", 3), lost("x:1", "parse main", 4)}, []string{}, 1},
		{"nothing", nil, []string{}, 2},
	} {
		r := &leak.Report{Findings: c.found}
		base.Apply(r, "base.json")
		if diff := cmp.Diff(c.left, titles(r)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if len(r.Known) != 1 || len(r.Known[0].Gone) != c.gone || r.Known[0].Findings != len(c.found)-len(c.left) {
			t.Errorf("%s: %+v", c.name, r.Known)
		}
	}
	// Of two in the same functions, the one with the same title is the known one.
	other := lost("x:8", "parse main", 3)
	other.Title = "80-byte blocks from parse are never freed"
	r := &leak.Report{Findings: []leak.Finding{other, lost("x:1", "parse main", 4)}}
	base.Apply(r, "base.json")
	if diff := cmp.Diff([]string{"heap.unreachable:x:8"}, titles(r)); diff != "" {
		t.Error(diff)
	}
	want := []string{
		"1 finding (4 blocks, 256 bytes) known from base.json and not counted; 3 blocks, 192 bytes in the baseline",
		"in base.json and not seen now: 64-byte blocks from poll are never freed",
	}
	if diff := cmp.Diff(want, r.Notes); diff != "" {
		t.Error(diff)
	}
}

func TestReadBaselineRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "not a baseline",
		"[]":                             "not a baseline",
		"{}":                             `its schema is ""`,
		`{"schema": "stanch.report/v1"}`: "this is a report",
		`{"schema": "stanch.baseline/v1", "findings": [{}]}`:                                 "finding 1 of the baseline has no key",
		`{"schema": "stanch.baseline/v1", "findings": []} {"schema": "stanch.baseline/v1" }`: "two documents",
	} {
		if _, err := ReadBaseline(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if b, err := ReadBaseline(strings.NewReader(`{"schema": "stanch.baseline/v1", "later": 1, "findings": [{"key": "k", "x": []}]}`)); err != nil || len(b.Findings) != 1 {
		t.Errorf("a baseline of a later version: %v", err)
	}
}

func FuzzReadBaseline(f *testing.F) {
	f.Add([]byte(`{"schema": "stanch.baseline/v1", "findings": [{"rule": "r", "key": "k", "name_key": "n", "count": 1, "bytes": 2, "title": "t"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBaseline(bytes.NewReader(data))
		if err != nil {
			return
		}
		r := &leak.Report{Findings: []leak.Finding{lost("k", "main", 1)}}
		b.Apply(r, "b")
		if len(r.Findings)+r.Known[0].Findings != 1 {
			t.Errorf("%+v", r)
		}
		var out bytes.Buffer
		if err := b.Write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := ReadBaseline(&out)
		if err != nil || cmp.Diff(b, again) != "" {
			t.Errorf("%v %s", err, cmp.Diff(b, again))
		}
	})
}
