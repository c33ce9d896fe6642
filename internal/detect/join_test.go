package detect

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"stanch/internal/leak"
)

// ofProcess is the report of one process of a run.
func ofProcess(pid int, exe string, fs ...leak.Finding) *leak.Report {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC).Add(time.Duration(pid) * time.Second)
	r := &leak.Report{
		Targets:  []leak.ReportTarget{{ID: 1, PID: pid, Comm: exe, Exe: "/bin/" + exe}},
		Findings: fs, Observed: leak.Observed{Start: start, DurationS: 2, PauseMS: []float64{1}},
		Notes: []string{"pools are not seen"},
	}
	r.Targets[0].LostDirect = &leak.ReportBlocks{}
	for i := range r.Findings {
		r.Findings[i].Target = 1
	}
	return r
}

func lossOf(key string, n uint64, evidence ...string) leak.Finding {
	return leak.Finding{
		Key: key, Rule: "heap.unreachable", Severity: leak.SeverityLeak, Kind: "memory", Count: n, Bytes: n * 10, BytesAre: "requested", Direct: n,
		What: "10-byte blocks", SiteCertainty: leak.CertaintyProved, Evidence: evidence,
	}
}

// TestJoinFoldsWhatProcessesOfOneExecutableLose is a test binary run 200 times.
func TestJoinFoldsWhatProcessesOfOneExecutableLose(t *testing.T) {
	var rs []*leak.Report
	for i := range 200 {
		f := lossOf("a", 2, "proof: p")
		f.Related = []leak.Related{{What: leak.RelatedIndirect, Count: 3, Bytes: 30, Stack: []leak.StackFrame{{Function: "child", Module: "m", Offset: 4}}}}
		rs = append(rs, ofProcess(100+i, "test", f))
	}
	rs[7].Findings = append(rs[7].Findings, leak.Finding{Key: "b", Severity: leak.SeverityNote, Target: 1, Count: 1})
	rs = append(rs, ofProcess(900, "other", lossOf("a", 5)), ofProcess(901, "quiet"))
	r := Join(rs...)
	if len(r.Targets) != 202 || r.Targets[201].ID != 202 || r.Targets[201].PID != 901 {
		t.Fatalf("%d targets", len(r.Targets))
	}
	if len(r.Findings) != 3 {
		t.Fatalf("%d findings: %+v", len(r.Findings), r.Findings)
	}
	f := r.Findings[0]
	if f.Processes != 200 || f.Count != 400 || f.Bytes != 4000 || f.Direct != 400 || f.Target != 1 || f.BytesAre != "requested" {
		t.Errorf("%+v", f)
	}
	if !slices.Equal(f.Evidence, []string{"proof: p"}) || len(f.Related) != 1 || f.Related[0].Count != 600 {
		t.Errorf("evidence %q, related %+v", f.Evidence, f.Related)
	}
	if o := r.Findings[1]; o.Target != 201 || o.Count != 5 || o.Processes != 1 {
		t.Errorf("%+v", o)
	}
	if n := r.Findings[2]; n.Key != "b" || n.Target != 8 {
		t.Errorf("%+v", n)
	}
	if len(r.Notes) != 1 || len(r.Observed.PauseMS) != 202 || r.Observed.DurationS != 803 {
		t.Errorf("notes %q, observed %+v", r.Notes, r.Observed.DurationS)
	}
	// The reports that were joined are as they were.
	if rs[0].Findings[0].Count != 2 || rs[0].Findings[0].Related[0].Count != 3 {
		t.Errorf("a report was changed: %+v", rs[0].Findings[0])
	}
}

func TestJoinSaysWhoseWordsItKeeps(t *testing.T) {
	a, b := lossOf("a", 2, "seen: 2 of 3 freed"), lossOf("a", 4, "seen: 4 of 9 freed")
	b.What, b.BytesAre, b.SiteCertainty = "20-byte blocks", "usable", leak.CertaintyLikely
	b.BeforeAttach = &leak.BeforeAttach{Count: 1, Bytes: 10}
	r := Join(ofProcess(5, "test", a), ofProcess(6, "test", b))
	f := r.Findings[0]
	want := []string{"seen: 2 of 3 freed", "also: these lines are of the first of 2 processes, in test[5]"}
	if !slices.Equal(f.Evidence, want) || f.What != "blocks of several sizes" || f.BytesAre != "usable" || f.SiteCertainty != leak.CertaintyLikely || f.BeforeAttach.Count != 1 {
		t.Errorf("%+v", f)
	}
}

// TestJoinFoldsTheInstructionsOfOneLine is a loop that a compiler unrolled, in
// two processes: each has the calls of one line at several places.
func TestJoinFoldsTheInstructionsOfOneLine(t *testing.T) {
	at := func(key string, off uint64, caller int) leak.Finding {
		f := lossOf(key, 1)
		f.Stack = []leak.StackFrame{{Function: "make", File: "m.c", Line: 7, Offset: off}, {Function: "main", File: "m.c", Line: caller, Offset: off}}
		return f
	}
	r := Join(ofProcess(5, "test", at("b", 1, 40), at("a", 2, 40), at("c", 3, 41)), ofProcess(6, "test", at("b", 1, 40), at("a", 2, 40)))
	if len(r.Findings) != 2 {
		t.Fatalf("%+v", r.Findings)
	}
	if f := r.Findings[0]; f.Processes != 2 || f.Count != 4 || f.Key != "a" {
		t.Errorf("%+v", f)
	}
	if f := r.Findings[1]; f.Processes != 1 || f.Count != 1 || f.Key != "c" {
		t.Errorf("%+v", f)
	}
}

func TestJoinSaysWhoseNotesTheyAre(t *testing.T) {
	rs := []*leak.Report{ofProcess(5, "test"), ofProcess(6, "test"), ofProcess(7, "su"), ofProcess(8, "odd")}
	rs[3].Targets[0].LostDirect, rs[3].Notes = nil, nil // it was not examined
	rs[0].Notes = append(rs[0].Notes, "no probe: x")
	rs[1].Notes = append(rs[1].Notes, "no probe: x")
	rs[2].Notes = append(rs[2].Notes, "not checked: y")
	want := []string{"pools are not seen", "test[5] and 1 more: no probe: x", "su[7]: not checked: y"}
	if got := Join(rs...).Notes; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestJoinGivesGapsToTheirProcess(t *testing.T) {
	a, b, c := ofProcess(5, "test"), ofProcess(6, "test"), ofProcess(7, "su")
	for i, r := range []*leak.Report{a, b, c} {
		r.Gaps = []string{"all have this", fmt.Sprintf("only %d has this", i/2)}
	}
	r := Join(a, b, c)
	if !slices.Equal(r.Gaps, []string{"all have this"}) || !slices.Equal(r.Targets[0].Gaps, []string{"only 0 has this"}) || !slices.Equal(r.Targets[2].Gaps, []string{"only 1 has this"}) {
		t.Errorf("gaps %q, of targets %q, %q", r.Gaps, r.Targets[0].Gaps, r.Targets[2].Gaps)
	}
	if one := Join(a); !slices.Equal(one.Gaps, a.Gaps) {
		t.Errorf("alone: %q", one.Gaps)
	}
}
