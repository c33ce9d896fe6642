package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"stanch/internal/leak"
)

// invalidFree is the rule whose stack is that of a free.
const invalidFree = "heap.invalid-free"

// amounts are the rules whose headline is a number of things, and what it says
// of them.
var amounts = map[string]string{
	"heap.unreachable":   "unreachable",
	"heap.reachable":     "still reachable at the exit",
	"heap.held":          "never freed",
	"mapping.unreleased": "not unmapped",
	"thread.unjoined":    "neither joined nor detached",
	"pool.unreleased":    "not given back",
	"fd.accumulating":    "not closed",
	"fd.unclosed":        "not closed",
	"fd.closewait":       "closed by the peer, not by this program",
	"fd.silent":          "open and silent",
	"fd.inherited":       "inherited and not used",
}

// amounted reports whether the headline of a finding is a number of things. A
// title that has the number already is a headline itself.
func amounted(f *leak.Finding) bool {
	switch {
	case amounts[f.Rule] == "":
		return false
	case ofDescriptors(f):
		return !slices.Contains(strings.Fields(f.Title), leak.FormatCount(f.Count))
	}
	return f.Severity != leak.SeverityGrowth
}

// nouns are what findings count that are not of memory, by rule or kind.
var nouns = map[string]string{
	"fd.closewait": "connection", "fd.silent": "connection",
	leak.KindDescriptor.String(): "descriptor", leak.KindMapping.String(): "mapping", leak.KindThread.String(): "thread", leak.KindPool.String(): "pool block",
}

// headline says how much, how fast, until when, and in how many processes.
func headline(s *section, f *leak.Finding) string {
	var parts []string
	switch {
	case amounted(f):
		parts = append(parts, quantity(s, f))
	case f.Rule == invalidFree && f.Count > 1:
		parts = append(parts, Clean(f.Title), together(leak.FormatCount(f.Count)+" times"))
	default:
		parts = append(parts, Clean(f.Title))
	}
	parts = append(parts, speed(f)...)
	if in := inProcesses(s, f); in != "" {
		parts = append(parts, in)
	}
	return strings.Join(parts, "; ")
}

// quantity writes "214,600 blocks, 85.8 MB unreachable".
func quantity(s *section, f *leak.Finding) string {
	count, bytes := f.Count, f.Bytes
	if f.BeforeAttach != nil {
		count += f.BeforeAttach.Count
		bytes += f.BeforeAttach.Bytes
	}
	noun := cmp.Or(nouns[f.Rule], nouns[f.Kind], "block")
	text := counted(count, noun)
	if f.BytesAre == "estimated" {
		text = "about " + text
	}
	if bytes > 0 || f.Kind == leak.KindMemory.String() {
		text += ", " + leak.FormatBytes(float64(bytes))
	}
	text = together(text + " " + amounts[f.Rule])
	if f.Indirect > 0 && f.BeforeAttach == nil && ended(s.targets[0]) {
		text += ": " + part(f.Direct, f.Bytes-min(f.Bytes, f.IndirectBytes), "direct") + ", " + part(f.Indirect, f.IndirectBytes, "indirect")
	}
	return text
}

// part writes "30 indirect (720 bytes)".
func part(n, bytes uint64, word string) string {
	return together(fmt.Sprintf("%s %s (%s)", leak.FormatCount(n), word, leak.FormatBytes(float64(bytes))))
}

// rough is how far the bounds of a rate lie apart before it is called rough.
const rough = 4

// speed writes the rate and when the limit comes.
func speed(f *leak.Finding) []string {
	var parts []string
	if r := f.Rate; r != nil {
		switch {
		case f.Kind != leak.KindMemory.String() && r.CountPerHour > 0:
			parts = append(parts, "+"+perHour(r.CountPerHour)+"/h")
		case r.BytesPerHour > 0 && r.BytesPerHourLow != nil && r.BytesPerHourHigh != nil && *r.BytesPerHourHigh > rough**r.BytesPerHourLow:
			parts = append(parts, "roughly +"+leak.FormatBytes(r.BytesPerHour)+"/h")
		case r.BytesPerHour > 0:
			parts = append(parts, "+"+leak.FormatBytes(r.BytesPerHour)+"/h")
		}
	}
	if x := f.Exhaustion; x != nil {
		s := "limit in " + seconds(x.InS)
		if x.InS <= 0 {
			s = "limit reached"
		}
		if x.LowS != nil && x.HighS != nil {
			if between := leak.FormatDurations(duration(*x.LowS), duration(*x.HighS)); strings.Contains(between, "-") {
				s += " (" + between + ")"
			}
		}
		parts = append(parts, s)
	}
	for i := range parts {
		parts[i] = together(parts[i])
	}
	return parts
}

func perHour(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.2g", n)
	}
	return leak.FormatCount(uint64(n + 0.5))
}
