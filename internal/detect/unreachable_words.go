package detect

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// judge decides what the finding may claim.
func (l *loss) judge(p *Pass, f *leak.Finding) {
	f.Severity = leak.SeverityNote
	l.weak = weaknesses(p.Proc)
	if l.new.count()+l.old.count() > 0 {
		// Proved cells come from certain looks only; other looks in between
		// take nothing away.
		l.weak = nil
	}
	var direct, disproof uint64
	for g := range l.kinds {
		disproof += p.Proc.Groups[g].Disproof
	}
	direct = l.old.direct + l.new.direct
	// A single one may be a stale word on a stack that became live again.
	if disproof > 1 && disproof*10 >= direct+disproof {
		l.weak = append(l.weak, fmt.Sprintf("%s blocks of this kind that two snapshots had found unreachable were freed or reachable later: the program keeps pointers where they cannot be seen",
			leak.FormatCount(disproof)))
	}
	if l.new.count()+l.old.count() > 0 && len(l.weak) == 0 {
		f.Severity = leak.SeverityLeak
	}
}

// weaknesses says what keeps the looks from proving anything.
func weaknesses(p *ledger.Process) []string {
	var out []string
	add := func(s string) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	last := p.LastLook()
	switch {
	case last.Single:
		add("one core file: what was on its way between two places cannot be told from what is lost")
	case last.Final:
	case len(p.Looks) == 1:
		add("one snapshot only: it takes two, at least a second apart, to prove a leak")
	case last.At-p.Looks[0].At < ledger.ProofApart:
		add(fmt.Sprintf("the snapshots were only %s apart: it takes a second or more to prove a leak", leak.FormatDuration(last.At-p.Looks[0].At)))
	}
	for i := range p.Looks {
		k := &p.Looks[i]
		if k.PendingIO {
			add("kernel I/O requests (io_uring, aio) were under way and may hold pointers that nobody can see")
		}
		if !k.Walked {
			add("the allocator's own structures could not be walked completely")
		}
		for _, u := range ledger.Doubts(k) {
			add(u)
		}
	}
	return out
}

// leastEvents is how many losses tell when a limit comes.
const leastEvents = 3

// speed fills the rate and when the limit comes.
func (l *loss) speed(p *Pass, f *leak.Finding) {
	first, last := p.Proc.Looks[0].At, p.Proc.LastLook().At
	if f.Severity != leak.SeverityLeak || last-first < minRateTime {
		return
	}
	bytes := float64(l.since.bytes())
	if f.BytesAre == "requested" && l.min == l.max && f.Indirect == 0 {
		bytes = float64(l.min * l.since.direct)
	}
	// Indirect ones come along with direct ones: these are the events.
	f.Rate = eventRate(float64(l.since.direct), bytes, last-first)
	if f.Rate == nil {
		return
	}
	f.Rate.CountPerHour = float64(l.since.count()) / (last - first).Hours()
	// Blocks that were never written take no memory.
	rss, known := latest(p.Proc, leak.GaugeRSS)
	l.untouched = known && float64(l.bytes()) > rss
	if l.since.direct >= leastEvents && !l.untouched {
		f.Exhaustion = exhaustion(p.Proc, p.Config, f.Rate)
	}
	p.shared.rate += f.Rate.BytesPerHour
	if l.site != nil {
		p.shared.lost[l.site.key] = siteLoss{bytes: bytes}
	}
}

// evidence says what was seen, one sentence each, after a label of six letters at most.
func (l *loss) evidence(p *Pass, f *leak.Finding) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	last := p.Proc.LastLook()
	switch {
	case last.Single:
		say("proof: no pointer to them in this core")
	case l.earliest >= 0 && last.Final:
		say("proof: no pointer to them in memory, registers or kernel when it exited")
	case last.Final:
		say("proof: none; no pointer to them was found when it exited")
	case l.earliest >= 0:
		say("proof: no pointer to them in memory, registers or kernel; two snapshots %s apart", leak.FormatDuration(last.At-l.earliest))
	default:
		say("proof: none yet; no pointer to them was found in the last snapshot")
	}
	for _, w := range l.weak {
		say("weaker: %s", w)
	}
	if l.untouched {
		say("memory: most of it was never written and takes no memory yet")
	}
	if l.indirect() > 0 && !last.Final {
		say("parts: %s of them are held only by the other %s", leak.FormatCount(l.indirect()), leak.FormatCount(f.Direct+l.old.direct))
	}
	l.siteEvidence(p, say)
	l.pathEvidence(say)
	l.sizeEvidence(p, say)
	if more := l.once.count(); more > 0 && !last.Final && f.Severity == leak.SeverityLeak {
		say("also: %s more were unreachable in the last snapshot only, and are not counted", leak.FormatCount(more))
	}
	g := &p.Proc.Groups[l.group]
	if kind := p.names.kind(g); !l.others && l.site == nil && g.Shape != leak.ShapeOther {
		say("type: %s", kind)
	} else if l.site != nil && g.Magic != 0 {
		say("type: %s", kind)
	}
	if p.Config.ShowContents {
		for _, h := range g.Heads {
			say("bytes: %q", h)
		}
	}
	if up := p.Config.Uptime; l.old.count() > 0 && l.since.count() == 0 && up > time.Hour {
		say("mean: %s/h since the start %s ago", leak.FormatBytes(float64(l.old.bytes())/up.Hours()), leak.FormatDuration(up))
	}
	return out
}

func (l *loss) indirect() uint64 { return l.old.indirect + l.new.indirect }

// siteEvidence says how the line is known, or why it is not.
func (l *loss) siteEvidence(p *Pass, say func(string, ...any)) {
	watched := leak.FormatDuration(p.Proc.LastLook().At - p.Proc.Looks[0].At)
	ended := p.Proc.Ended()
	if l.site != nil && ended && l.recorded == l.new.direct && l.recorded > 0 && l.oldSeen == l.old.direct {
		say("site: recorded when they were allocated")
		return
	}
	if l.site != nil {
		var parts []string
		if l.recorded > 0 && ended {
			parts = append(parts, leak.FormatCount(l.recorded)+" recorded")
		} else if l.recorded > 0 {
			parts = append(parts, leak.FormatCount(l.recorded)+" new: seen")
		}
		if n := l.new.direct - l.recorded; n > 0 && ended {
			parts = append(parts, fmt.Sprintf("%s likely (%s)", leak.FormatCount(n), l.why(p)))
		} else if n > 0 {
			parts = append(parts, fmt.Sprintf("%s new: likely (%s)", leak.FormatCount(n), l.why(p)))
		}
		if l.oldSeen > 0 {
			parts = append(parts, leak.FormatCount(l.oldSeen)+" older: seen")
		}
		if n := l.old.direct - l.oldSeen; n > 0 {
			parts = append(parts, fmt.Sprintf("%s older: likely (%s)", leak.FormatCount(n), l.why(p)))
		}
		if len(parts) > 0 {
			say("site: %s", strings.Join(parts, ". "))
		}
		return
	}
	probed := p.Proc.ProbeAt >= 0
	switch {
	case len(l.rivals) > 0:
		var names []string
		for i := range l.rivals[:min(3, len(l.rivals))] {
			names = append(names, fmt.Sprintf("%s (%s)", l.rivals[i].site.short(), leak.FormatCount(l.rivals[i].n)))
		}
		now := " now"
		if ended {
			now = " too"
		}
		say("site: not known; blocks like these are lost%s by %s", now, strings.Join(names, ", "))
	case !probed:
		say("site: not recorded, no probe was placed")
	case ended:
		say("site: not recorded")
	case p.Proc.LastLook().At == p.Proc.Looks[0].At:
		say("site: not recorded; one snapshot does not tell what is being lost now")
	case l.since.count() == 0:
		_, most := countInterval(0)
		h := (p.Proc.LastLook().At - p.Proc.Looks[0].At).Hours()
		say("site: none new in %s, so no line was seen losing them; it happens less than %s times an hour", watched, leak.FormatCount(uint64(most/h)+1))
	default:
		say("site: %s new in %s, none of them recorded: they were allocated before the watch, or not sampled", leak.FormatCount(l.since.count()), watched)
	}
}

// manyPaths is from how many callers on a line looks like a wrapper.
const manyPaths = 4

// pathEvidence says through whom else the line is reached.
func (l *loss) pathEvidence(say func(string, ...any)) {
	delete(l.paths, "")
	if l.site == nil || len(l.paths) < 2 {
		return
	}
	names := slices.SortedFunc(maps.Keys(l.paths), func(a, b string) int {
		return cmp.Or(-cmp.Compare(l.paths[a], l.paths[b]), cmp.Compare(a, b))
	})
	var parts []string
	for _, n := range names[:min(3, len(names))] {
		parts = append(parts, fmt.Sprintf("%s (%s)", n, leak.FormatCount(l.paths[n])))
	}
	more := ""
	if n := len(names) - 3; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	say("paths: it is reached through %s%s", strings.Join(parts, ", "), more)
	if len(names) >= manyPaths {
		name := functionName(&l.site.stack[l.site.line])
		say("paths: if %s only wraps the allocator, --wrapper %s looks behind it", name, name)
	}
}

// sizeEvidence says what a size is that hardly is one.
func (l *loss) sizeEvidence(p *Pass, say func(string, ...any)) {
	switch {
	case l.max > 0 && l.min == l.max:
		if m, ok := Suspicious(l.min); ok {
			say("size: %s is %s: %s", leak.FormatCount(l.min), m.Text, m.How)
			p.shared.sizes[l.min] = true
			for _, e := range inputEvidence(p, l.min, l.stack) {
				say("%s", e)
			}
		}
	case l.max == 0 && len(l.kinds) == 1:
		// A mapped block is rounded up to pages: what was asked for is not known.
		usable := p.Proc.Groups[l.group].Size
		if n, what, ok := lengthWithin(usable); ok {
			say("size: %s bytes would fit, which is %s read as a length", leak.FormatCount(n), what)
		}
	}
}

// why says what the older blocks have in common with those that were recorded.
func (l *loss) why(p *Pass) string {
	g := &p.Proc.Groups[l.group]
	size := "same size"
	if l.min != l.max {
		size = "same sizes"
	}
	if class, ok := p.names.class(g.Type); ok && g.Shape == leak.ShapeType {
		return size + ", same vtable " + class
	}
	switch {
	case g.Shape == leak.ShapeType:
		return size + ", same first word"
	case g.Magic != 0:
		return size + ", same start"
	case g.Shape == leak.ShapeOther:
		return size
	}
	return size + ", both " + strings.Replace(g.Shape.String(), "starts", "start", 1)
}

// advice says what to do next.
func (l *loss) advice(p *Pass, f *leak.Finding) []string {
	pid := p.Proc.ID.PID
	ended := p.Proc.Ended()
	if l.site == nil {
		switch {
		case len(l.rivals) > 0 && ended:
			return []string{"follow the lines named above first: they lose blocks like these too"}
		case ended && p.Proc.ProbeAt >= 0 && !exact(p.Proc):
			return []string{"record every block, so that the line is known: stanch run --mode exact"}
		case ended:
			return nil
		case len(l.rivals) > 0:
			return []string{"follow the lines named above first: they lose blocks like these now"}
		case p.Proc.LastLook().Single:
			return []string{"the line is not in a core: run stanch diagnose on the process while it lives"}
		case p.Proc.ProbeAt < 0:
			return []string{fmt.Sprintf("to see the line that loses them: stanch diagnose %d", pid)}
		case l.since.count() == 0:
			return []string{fmt.Sprintf("watch until the line shows itself: stanch diagnose --until 5 %d", pid)}
		}
		return []string{fmt.Sprintf("watch longer: stanch diagnose --until 5 %d", pid)}
	}
	line := l.site.short()
	if ended {
		return l.endedAdvice(p, line)
	}
	if t := siblings(p, l.site.key); t.Released.N >= 1 && t.Acquired.N > 0 {
		return []string{fmt.Sprintf("%s of %s from this line were freed while it was watched; these never are: check the early returns and error paths after %s",
			about(t.Released.N), about(t.Acquired.N), line)}
	}
	none := "none from this line was freed while it was watched: "
	if lostEvents(p.View) {
		none = "no release of any from this line was seen: "
	}
	if class, ok := p.names.class(p.Proc.Groups[l.group].Type); ok {
		return []string{fmt.Sprintf("%sfind who should delete the %s that %s makes", none, class, line)}
	}
	if f.Severity == leak.SeverityLeak && l.recorded > 0 {
		return []string{none + "find who should free what " + line + " allocates"}
	}
	return []string{"find who should free what " + line + " allocates"}
}

// endedAdvice is the advice for a program that has ended.
func (l *loss) endedAdvice(p *Pass, line string) []string {
	who := "what " + line + " allocates"
	if class, ok := p.names.class(p.Proc.Groups[l.group].Type); ok {
		who = fmt.Sprintf("the %s that %s makes", class, line)
	}
	t := siblings(p, l.site.key)
	switch {
	case t.Released.N >= 1 && t.Acquired.N > 0:
		return []string{fmt.Sprintf("%s of %s from this line were freed; these were not: check the early returns and error paths after %s",
			about(t.Released.N), about(t.Acquired.N), line)}
	case t.Acquired.N > 0 && !lostEvents(p.View):
		return []string{"none from this line was ever freed: find who should free " + who}
	}
	return []string{"find who should free " + who}
}

// exact reports whether every memory block that is recorded as held was
// recorded as such, and not as a sample.
func exact(p *ledger.Process) bool {
	any := false
	for i := range p.Live {
		if l := &p.Live[i]; l.Kind == leak.KindMemory {
			if !l.Exact {
				return false
			}
			any = true
		}
	}
	return any
}

// siblings sums the last tallies of the stacks of a site.
func siblings(p *Pass, key string) ledger.Total {
	var t ledger.Total
	for i := range p.Proc.Tallies {
		y := &p.Proc.Tallies[i]
		if y.Kind != leak.KindMemory || len(y.Points) == 0 {
			continue
		}
		if s := p.names.stack(y.Stack); s == nil || s.key != key {
			continue
		}
		last := y.Points[len(y.Points)-1]
		t.Acquired.N += last.Acquired.N
		t.Acquired.Bytes += last.Acquired.Bytes
		t.Released.N += last.Released.N
		t.Released.Bytes += last.Released.Bytes
	}
	return t
}

// about writes an estimated count.
func about(n float64) string { return leak.FormatCount(uint64(n + 0.5)) }
