package detect

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"stanch/internal/leak"
)

// Unclosed reports descriptors that a program opened and did not close.
var Unclosed = &Detector{
	Name: "fd.unclosed",
	Doc:  "descriptors that the program opened and had not closed at its exit, by who opened them",
	Run:  unclosed,
}

func unclosed(p *Pass) {
	switch {
	case !p.Proc.Ended():
	case p.Proc.TracedAt >= 0:
		unclosedByOpener(p)
	default:
		unclosedByClass(p)
	}
}

// unclosedByOpener lists every descriptor that the program opened itself, and
// nothing that it was given when it began, or later by whom nobody saw.
func unclosedByOpener(p *Pass) {
	type left struct {
		site    *site
		entries []*fdEntry
	}
	byKey := map[string]*left{}
	var all []*left
	for _, e := range p.fds().entries {
		if e.Call == "" || inheritedCall(e.Call) || e.Call == "received" && e.site == nil {
			continue
		}
		key := ""
		if e.site != nil {
			key = e.site.lines
		}
		l := byKey[key]
		if l == nil {
			l = &left{site: e.site}
			byKey[key] = l
			all = append(all, l)
		}
		if e.site != nil && e.site.key < l.site.key {
			l.site = e.site
		}
		l.entries = append(l.entries, e)
	}
	slices.SortStableFunc(all, func(a, b *left) int { return cmp.Compare(len(b.entries), len(a.entries)) })
	for _, l := range all {
		n := uint64(len(l.entries))
		noun := fdNoun(l.entries, n)
		f := leak.Finding{
			Severity: leak.SeverityNote, Kind: leak.KindDescriptor.String(), What: noun, Count: n, SiteCertainty: leak.CertaintyNone,
			Key: "unknown", NameKey: "unknown", Evidence: heldAtExit(l.entries),
			Title: fmt.Sprintf("%s %s not closed", leak.FormatCount(n), noun),
		}
		if n >= leastDescriptors && missedCalls(p) == 0 {
			f.Severity = leak.SeverityGrowth
		}
		if s := l.site; s != nil {
			f.Key, f.NameKey, f.Stack, f.Site, f.SiteCertainty = s.key, s.nameKey, s.stack, s.line, leak.CertaintyProved
			f.Title = fmt.Sprintf("%s %s from %s not closed", leak.FormatCount(n), noun, functionName(&s.stack[s.line]))
			if i := slices.IndexFunc(p.fds().sites, func(o *fdSite) bool { return o.site.lines == s.lines }); i >= 0 {
				opener := p.fds().sites[i]
				f.Evidence = append(f.Evidence, "seen: "+opener.seen())
				f.Advice = opener.closeAdvice()
			}
		} else {
			f.Severity = leak.SeverityNote
		}
		if calls := lastCalls(l.entries); calls != "" {
			f.Evidence = append(f.Evidence, calls)
		}
		if missedCalls(p) > 0 {
			f.Evidence = append(f.Evidence, missedEvidence)
		}
		p.Report(f)
	}
}

// maxEach is how many lines describe the descriptors of a place.
const maxEach = 16

// heldAtExit names each descriptor; those in a row that are the same thing in
// one line.
func heldAtExit(entries []*fdEntry) []string {
	var out []string
	words := func(e *fdEntry) string {
		if e.Kind != "" && e.call != "" {
			return e.what() + ", by " + e.call
		}
		return e.what()
	}
	for len(entries) > 0 && len(out) < maxEach {
		what, n := words(entries[0]), 1
		for n < len(entries) && words(entries[n]) == what {
			n++
		}
		out = append(out, fmt.Sprintf("held: fd %s, %s", ranges(entries[:n]), what))
		entries = entries[n:]
	}
	if len(entries) > 0 {
		out = append(out, fmt.Sprintf("held: %s more, fd %s", leak.FormatCount(uint64(len(entries))), ranges(entries)))
	}
	return out
}

// maxRanges is how many runs of numbers are written.
const maxRanges = 12

// ranges writes the numbers of descriptors in their order: "19-30, 33".
func ranges(entries []*fdEntry) string {
	var parts []string
	for i := 0; i < len(entries); {
		j := i
		for j+1 < len(entries) && entries[j+1].Num == entries[j].Num+1 {
			j++
		}
		if len(parts) == maxRanges {
			return strings.Join(append(parts, "..."), ", ")
		}
		part := strconv.Itoa(entries[i].Num)
		if j > i {
			part += "-" + strconv.Itoa(entries[j].Num)
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

// unclosedByClass compares the first and the last count of a process whose
// calls nobody saw. Few are no news, unless all that was held is asked for:
// programs open a file and keep it.
func unclosedByClass(p *Pass) {
	least := float64(leastDescriptors)
	if p.Config.Reachable {
		least = 1
	}
	if t, grows := rising(p.Proc.Gauges[leak.GaugeFDs]); grows && t.grown >= leastDescriptors {
		return
	}
	var all float64
	var kinds []string
	for _, c := range classes {
		s := p.Proc.Gauges[c.name]
		if len(s) < 2 {
			continue
		}
		if n := s[len(s)-1].Value - s[0].Value; n > 0 {
			all += n
			kinds = append(kinds, number(n)+" "+c.word)
		}
	}
	if all < least {
		return
	}
	p.Report(leak.Finding{
		Key: "all", NameKey: "all", Severity: leak.SeverityNote, Kind: leak.KindDescriptor.String(), SiteCertainty: leak.CertaintyNone,
		What: "descriptors", Title: fmt.Sprintf("%s descriptors were not closed", number(all)), Count: uint64(all),
		Evidence: []string{"held: open at the exit and not at the start: " + strings.Join(kinds, ", ")},
	})
}
