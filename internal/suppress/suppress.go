// Package suppress takes out of a report what its reader already knows: by
// rules in suppression files (stanch's own, Valgrind's, LeakSanitizer's), and
// by a baseline, which is what an earlier report found. Nothing disappears
// without a word: the report counts what was taken out, and names the rules
// and the entries that met nothing.
package suppress

import (
	"fmt"
	"strings"

	"stanch/internal/leak"
)

// Rules are the rules of suppression files, in the order in which they were
// read. The zero value holds none.
type Rules struct {
	rules []rule
	notes []string
}

// rule is one suppression.
type rule struct {
	text   string // as the reader knows it: the line, or the name in a Valgrind file
	at     string // file:line
	stacks bool   // it looks at frames
	match  func(*leak.Finding) bool
}

// Empty reports whether there is nothing to apply.
func (r *Rules) Empty() bool { return len(r.rules) == 0 && len(r.notes) == 0 }

// maxListed is how many unused rules, or entries that were not seen, the notes
// name; JSON has all.
const maxListed = 10

// Apply takes the findings that a rule matches out of the report, and says in
// it what each rule took out and which rules are unused. A finding that
// several rules match is counted for the first of them.
func (r *Rules) Apply(report *leak.Report) {
	if r.Empty() {
		return
	}
	took := make([]leak.Suppressed, len(r.rules))
	used := make([]bool, len(r.rules))
	for i := range r.rules {
		took[i] = leak.Suppressed{Rule: r.rules[i].text, At: r.rules[i].at}
	}
	named := false
	left := []leak.Finding{}
	for i := range report.Findings {
		f := &report.Findings[i]
		named = named || len(f.Stack) > 0
		first := -1
		for j := range r.rules {
			if r.rules[j].match(f) {
				used[j] = true
				if first < 0 {
					first = j
				}
			}
		}
		if first < 0 {
			left = append(left, *f)
			continue
		}
		count, bytes := memory(f)
		took[first].Findings++
		took[first].Count += count
		took[first].Bytes += bytes
	}
	found := len(report.Findings) > 0
	report.Findings = left
	report.Suppressed = append(report.Suppressed, took...)

	note := noter(report)
	for i := range took {
		if t := &took[i]; t.Findings > 0 {
			note("%s suppressed by %s (%s)", amount(t.Findings, t.Count, t.Bytes), t.Rule, t.At)
		}
	}
	var unused []string
	blind := false
	for i := range r.rules {
		if !used[i] {
			unused = append(unused, fmt.Sprintf("unused suppression: %s (%s)", r.rules[i].text, r.rules[i].at))
			blind = blind || r.rules[i].stacks
		}
	}
	list(note, unused, "unused suppressions")
	if blind && found && !named {
		note("no finding of this report has a line, and without one only key: suppressions match")
	}
	for _, n := range r.notes {
		note("%s", n)
	}
}

// memory is how many blocks and bytes a memory finding stands for; others have
// none.
func memory(f *leak.Finding) (count, bytes uint64) {
	switch f.Kind {
	case leak.KindDescriptor.String(), leak.KindThread.String():
		return 0, 0
	}
	if f.Rule == invalidFree {
		return 0, 0
	}
	count, bytes = f.Count, f.Bytes
	if b := f.BeforeAttach; b != nil {
		count += b.Count
		bytes += b.Bytes
	}
	return count, bytes
}

// amount writes "3 findings (12 blocks, 4.8 kB)".
func amount(findings int, count, bytes uint64) string {
	s := plural(uint64(findings), "finding")
	if count+bytes == 0 {
		return s
	}
	return fmt.Sprintf("%s (%s, %s)", s, plural(count, "block"), leak.FormatBytes(float64(bytes)))
}

func plural(n uint64, word string) string {
	if n != 1 {
		word += "s"
	}
	return leak.FormatCount(n) + " " + word
}

// noter adds notes to a report, each once.
func noter(report *leak.Report) func(format string, args ...any) {
	return func(format string, args ...any) {
		s := fmt.Sprintf(format, args...)
		for _, n := range report.Notes {
			if n == s {
				return
			}
		}
		report.Notes = append(report.Notes, s)
	}
}

// list adds the first of the lines to the notes, and says how many more there
// are.
func list(note func(string, ...any), lines []string, what string) {
	for _, l := range lines[:min(len(lines), maxListed)] {
		note("%s", l)
	}
	if more := len(lines) - maxListed; more > 0 {
		note("and %s more %s: --format json has them all", leak.FormatCount(uint64(more)), what)
	}
}

// leaks reports whether a finding is about memory that is held or lost, which
// is what the leak suppressions of other tools are about.
func leaks(f *leak.Finding) bool {
	return f.Kind == leak.KindMemory.String() && strings.HasPrefix(f.Rule, "heap.") && f.Rule != invalidFree
}

// invalidFree is the rule of what is freed and not held.
const invalidFree = "heap.invalid-free"
