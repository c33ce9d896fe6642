package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/render"
)

// TestEnding: what a run concludes of a process at its exit, number by number.
func TestEnding(t *testing.T) {
	exe := fixture.Build(t, "ending", "-fno-builtin")
	total := func(n *leak.ReportBlocks) string {
		if n == nil {
			return "not measured"
		}
		return fmt.Sprintf("%d/%d %s", n.Count, n.Bytes, n.BytesAre)
	}
	for _, c := range []struct {
		args   string
		totals string // lost directly, indirectly, still reachable
		want   []string
		text   []string
	}{
		{"keep free", "0/0 requested, 0/0 requested, 1/100 requested", nil, []string{"nothing lost: 1 block, 100 bytes were held at the exit"}},
		{"free", "0/0 requested, 0/0 requested, 0/0 requested", nil, []string{"nothing lost: every block was freed"}},
		{"lose lose keep", "2/32 requested, 8/320 requested, 1/100 requested",
			[]string{"leak heap.unreachable lose 10/352 (2 direct, 8 indirect with 320) in 1; indirect: add 8/320"},
			[]string{"10 blocks, 352 bytes unreachable: 2 direct (32 bytes), 8 indirect (320 bytes)", "below  8 blocks, 320 bytes from add"}},
		{"--reachable keep", "0/0 requested, 0/0 requested, 1/100 requested",
			[]string{"note heap.reachable keep 1/100 (0 direct, 0 indirect with 0) in 1"}, []string{"1 block, 100 bytes still reachable at the exit"}},
		{"map map", "0/0 requested, 0/0 requested, 0/0 requested",
			[]string{"note mapping.unreleased map 2/131072 (0 direct, 0 indirect with 0) in 1"}, []string{"2 mappings, 131 KB not unmapped"}},
		{"map", "0/0 requested, 0/0 requested, 0/0 requested", nil, []string{"nothing lost"}},
		{"twice", "0/0 requested, 0/0 requested, 0/0 requested",
			[]string{"error heap.invalid-free cleanup 1/48 (0 direct, 0 indirect with 0) in 1; freed first: close_conn 0/0; allocated: open_conn 0/0"},
			[]string{"ERROR  freed twice by cleanup", "freed again by cleanup", "freed first by close_conn", "allocated by open_conn", "killed by SIGABRT"}},
		{"keep stray", "0/0 requested, 0/0 requested, 1/100 requested",
			[]string{"error heap.invalid-free cleanup 1/0 (0 direct, 0 indirect with 0) in 1"}, []string{"ERROR  freed and never allocated by cleanup"}},
		{"fork fork lose", "1/16 requested, 4/160 requested, 0/0 requested",
			[]string{"leak heap.unreachable lose 20/704 (4 direct, 16 indirect with 640) in 4; indirect: add 16/640"}, []string{"in all 4 processes"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(c.args)
			flags := []string{}
			if args[0] == "--reachable" {
				flags, args = args[:1], args[1:]
			}
			_, r := ran(t, append(append(flags, "--", exe), args...)...)
			for i := range r.Targets {
				p := &r.Targets[i]
				if got := total(p.LostDirect) + ", " + total(p.LostIndirect) + ", " + total(p.StillReachable); got != c.totals {
					t.Errorf("%s[%d]: %s, want %s", p.Comm, p.PID, got, c.totals)
				}
			}
			var got []string
			for i := range r.Findings {
				got = append(got, inShort(&r.Findings[i]))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			var text bytes.Buffer
			if err := render.Text(&text, r); err != nil {
				t.Fatal(err)
			}
			for _, s := range c.text {
				if !strings.Contains(text.String(), s) {
					t.Errorf("no %q in\n%s", s, text.String())
				}
			}
		})
	}
}

// inShort writes what a finding claims in one line.
func inShort(f *leak.Finding) string {
	name := func(stack []leak.StackFrame, site int) string {
		if site >= len(stack) {
			return "?"
		}
		return stack[site].Function
	}
	s := fmt.Sprintf("%s %s %s %d/%d (%d direct, %d indirect with %d) in %d", f.Severity, f.Rule, name(f.Stack, f.Site), f.Count, f.Bytes,
		f.Direct, f.Indirect, f.IndirectBytes, f.Processes)
	for _, r := range f.Related {
		s += fmt.Sprintf("; %s: %s %d/%d", r.What, name(r.Stack, r.Site), r.Count, r.Bytes)
	}
	return s
}

// TestEndingUnseen: a program that cannot hold a probe runs to its end, and the
// report says that it was not examined.
func TestEndingUnseen(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "tiny32")
	text := tiny32()
	text[len(text)-8] = 1 // __NR_exit in place of __NR_pause
	if err := os.WriteFile(exe+".bytes", text, 0o600); err != nil {
		t.Fatal(err)
	}
	copyFile(t, exe+".bytes", exe)
	if err := exec.Command(exe).Run(); err != nil {
		t.Skipf("this kernel runs no 32-bit programs: %v", err)
	}
	o, r := ran(t, "--", exe)
	if len(r.Targets) != 1 || o.code != 0 {
		t.Fatalf("exit code %d, %+v\n%s", o.code, r.Targets, o.err)
	}
	p := &r.Targets[0]
	if said := strings.Join(append(r.Gaps, p.Gaps...), "\n"); p.LostDirect != nil || p.Ended != "exit 0" || !strings.Contains(said, "not recorded") || !strings.Contains(said, "32-bit") {
		t.Errorf("%+v, not seen: %s", p, said)
	}
}
