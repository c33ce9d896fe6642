package detect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// fdSite is a line, with its caller, that opened descriptors: compilers make
// several calls of one.
type fdSite struct {
	site    *site
	opened  uint64
	closed  uint64
	held    uint64
	thirds  [3]uint64 // of the held ones, by when they came
	closers []fdCloser
	open    []*fdEntry // those that are open now
}

// fdCloser is a place where others of a site's descriptors were closed.
type fdCloser struct {
	site *site
	call string
	n    uint64
}

// inheritedCalls are the calls by which a descriptor comes that the program
// itself did not open.
func inheritedCall(call string) bool { return call == "fork" || call == "exec" }

// fdSites gives the sites that opened descriptors, those that hold most first.
// What was inherited is no site's.
func fdSites(n *names, p *ledger.Process, entries []*fdEntry) []*fdSite {
	byKey := map[string]*fdSite{}
	var out []*fdSite
	for i := range p.Openers {
		o := &p.Openers[i]
		s := n.stack(o.Stack)
		if s == nil || inheritedCall(o.Call) {
			continue
		}
		f := byKey[s.lines]
		if f == nil {
			f = &fdSite{site: s}
			byKey[s.lines] = f
			out = append(out, f)
		}
		if s.key < f.site.key {
			f.site = s
		}
		f.opened += o.Opened
		f.closed += o.Closed
		f.held += o.Held
		for i := range o.Thirds {
			f.thirds[i] += o.Thirds[i]
		}
		for _, c := range o.Closers {
			f.closer(n.stack(c.Stack), c)
		}
	}
	for _, e := range entries {
		if e.site != nil && e.certainty == leak.CertaintyProved {
			if f := byKey[e.site.lines]; f != nil && !inheritedCall(e.Call) {
				f.open = append(f.open, e)
			}
		}
	}
	for _, f := range out {
		slices.SortStableFunc(f.closers, func(a, b fdCloser) int { return cmp.Compare(b.n, a.n) })
	}
	slices.SortStableFunc(out, func(a, b *fdSite) int {
		return cmp.Or(cmp.Compare(b.held, a.held), cmp.Compare(a.site.key, b.site.key))
	})
	return out
}

func (f *fdSite) closer(s *site, c ledger.Closer) {
	if s == nil {
		return
	}
	for i := range f.closers {
		if f.closers[i].site.short() == s.short() {
			f.closers[i].n += c.N
			return
		}
	}
	f.closers = append(f.closers, fdCloser{s, c.Call, c.N})
}

// The least that a site holds of what it opened during a watch before it is
// said to accumulate: so many when as good as none was closed, and so many
// when most are; then the oldest third must hold its share, since what only
// lives long is mostly young.
const (
	leastKept      = 6
	leastKeptChurn = 16
	fewClosed      = 20 // one in so many
	leastThird     = 12 // each third of the watch has one in so many of those held
)

// accumulates reports whether the descriptors of a site only become more: some
// of each third of the watch are still held, and there are more in all.
func (f *fdSite) accumulates(p *Pass) bool {
	window := p.watchedFDs()
	kept := f.kept(p)
	held := kept[0] + kept[1] + kept[2]
	if window < trendTime || held < leastKept || fdGrowth(p) < float64(held)/2 {
		return false
	}
	for _, n := range kept {
		if n*leastThird < held {
			return false
		}
	}
	return f.closed*fewClosed <= f.opened || held >= leastKeptChurn && kept[0]*4 >= held
}

// kept counts the held ones by the third of the watch in which they came. After
// calls were missed, only those count that the last listing shows: others may
// have been closed unseen.
func (f *fdSite) kept(p *Pass) (kept [3]uint64) {
	missed := missedCalls(p) > 0
	if !missed && !fdsFull(p.Proc) {
		return f.thirds
	}
	window := p.watchedFDs()
	for _, e := range f.open {
		if e.OpenedAt >= 0 && (e.Kind != "" || !missed) {
			third := int(3 * (e.OpenedAt - max(p.Proc.FirstAt, 0)) / max(window, 1))
			kept[min(max(third, 0), 2)]++
		}
	}
	return kept
}

// fdsFull reports whether the limit on descriptors is reached.
func fdsFull(p *ledger.Process) bool {
	u, ok := fdLimit(p)
	return ok && u.Max > 0 && u.Used >= u.Max
}

// fdGrowth is by how much all descriptors of a process became more while it
// was watched: the least of what the sources say.
func fdGrowth(p *Pass) float64 {
	grown := -float64(p.Proc.ClosedOlder)
	for i := range p.Proc.Openers {
		if o := &p.Proc.Openers[i]; !inheritedCall(o.Call) {
			grown += float64(o.Opened) - float64(o.Closed)
		}
	}
	if l, ok := fdLimit(p.Proc); ok && len(l.Points) >= trendPoints {
		grown = min(grown, l.Points[len(l.Points)-1].Value-l.Points[0].Value)
	}
	return grown
}

// missedCalls is how many calls on descriptors were missed. A gap that is of
// descriptors only says that the openers of some are unknown.
func missedCalls(p *Pass) uint64 {
	var n uint64
	for i := range p.View.Gaps {
		g := &p.View.Gaps[i]
		if (g.Source == "fdtrace" || g.Source == "fdcalls") && !strings.HasPrefix(g.What, "descriptors ") && (g.Proc == p.Proc.ID || g.Proc == leak.ProcID{}) {
			n += g.Lost
		}
	}
	return n
}

const missedEvidence = "weaker: calls were missed, so some may have been closed unseen"

// seen says how many a site opened and closed.
func (f *fdSite) seen() string {
	return fmt.Sprintf("%s opened here, %s of them closed", leak.FormatCount(f.opened), leak.FormatCount(f.closed))
}

// closeAdvice says where others of the site's descriptors are closed, and how
// none is missed.
func (f *fdSite) closeAdvice() []string {
	var out []string
	if len(f.closers) > 0 {
		var places []string
		for _, c := range f.closers[:min(2, len(f.closers))] {
			places = append(places, c.site.short())
		}
		out = append(out, fmt.Sprintf("others from this line were closed by %s; these never get there: check the returns between", strings.Join(places, " and ")))
	}
	if e := lastError(f.open); e != "" {
		out = append(out, e)
	}
	return append(out, singleExit(f.site))
}

// singleExit says, in the terms of the language of a site, how a descriptor is
// closed on every way out.
func singleExit(s *site) string {
	line := &s.stack[s.line]
	name := line.File
	has := func(suffixes ...string) bool {
		return slices.ContainsFunc(suffixes, func(x string) bool { return strings.HasSuffix(name, x) })
	}
	through := func(prefix string) bool {
		return slices.ContainsFunc(s.stack, func(f leak.StackFrame) bool { return strings.HasPrefix(f.Function, prefix) })
	}
	switch {
	case through("net/http.(*Server)"):
		return "give the http.Server an IdleTimeout and a ReadTimeout, so that it closes what clients forget"
	case through("net/http.(*Transport)"):
		return "close the Body of every response, also of those that are not read: defer resp.Body.Close() after the check of the error"
	case has(".go"):
		return "defer Close right after the check of the error, so that every return closes it"
	case has(".cc", ".cpp", ".cxx", ".hpp", ".C"):
		return "hold it in an object whose destructor closes it, so that returns and exceptions do too"
	case has(".rs"):
		return "see who keeps it from being dropped: mem::forget, into_raw_fd, a collection"
	case has(".c", ".h"):
		return "let every way out of the function pass one place that closes it (goto out), error paths too"
	}
	return "let every way out of the function that opens it pass one place that closes it, error paths too"
}

// lastCalls says what was last done with descriptors, "" when nothing was
// seen.
func lastCalls(entries []*fdEntry) string {
	n, none := map[string]uint64{}, uint64(0)
	for _, e := range entries {
		if e.Use == nil {
			none++
			continue
		}
		n[useWords(e.Use)]++
	}
	if len(n) == 0 {
		return ""
	}
	var parts []string
	for _, c := range counted(n)[:min(3, len(n))] {
		parts = append(parts, fmt.Sprintf("%s (%s)", c.what, leak.FormatCount(c.n)))
	}
	if none > 0 {
		parts = append(parts, fmt.Sprintf("none seen (%s)", leak.FormatCount(none)))
	}
	return "last call on them: " + strings.Join(parts, ", ")
}

func useWords(u *leak.Use) string {
	if u.Error == "" {
		return u.Call
	}
	return u.Call + " failed with " + u.Error
}

// lastError is the advice for descriptors of which most were left after a call
// that failed; EAGAIN only says that nothing was there.
func lastError(entries []*fdEntry) string {
	n := map[string]uint64{}
	for _, e := range entries {
		if e.Use != nil && e.Use.Error != "" && e.Use.Error != "EAGAIN" && e.Use.Error != "EINPROGRESS" {
			n[useWords(e.Use)]++
		}
	}
	if c := counted(n); len(c) > 0 && c[0].n*2 > uint64(len(entries)) {
		return fmt.Sprintf("most were left after a %s: look at what the program does then", c[0].what)
	}
	return ""
}

// count is a number of what is alike.
type count struct {
	what string
	n    uint64
}

// counted orders counts, the largest first.
func counted(n map[string]uint64) []count {
	var out []count
	for what, k := range n {
		out = append(out, count{what, k})
	}
	slices.SortFunc(out, func(a, b count) int {
		return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(a.what, b.what))
	})
	return out
}

// kindsOf says what descriptors are, the most frequent first.
func kindsOf(entries []*fdEntry) string {
	groups := groupsOf(entries)
	var parts []string
	for _, g := range groups[:min(4, len(groups))] {
		parts = append(parts, fmt.Sprintf("%s %s", leak.FormatCount(uint64(len(g.entries))), g.what()))
	}
	if more := len(groups) - 4; more > 0 {
		parts = append(parts, fmt.Sprintf("%s other kinds", leak.FormatCount(uint64(more))))
	}
	return strings.Join(parts, ", ")
}

// fdNoun is the word for descriptors that are of one sort.
func fdNoun(entries []*fdEntry, n uint64) string {
	word := ""
	for _, e := range entries {
		w := "descriptor"
		switch {
		case e.Kind == "socket" || e.Kind == "" && makesSocket(e.Call):
			w = "socket"
		case e.Kind == "file" || e.Kind == "directory" || e.Kind == "" && strings.HasPrefix(e.Call, "open"):
			w = "file"
		case e.Kind == "pipe":
			w = "pipe"
		}
		if word != "" && word != w {
			word = "descriptor"
			break
		}
		word = w
	}
	if word == "" {
		word = "descriptor"
	}
	if n != 1 {
		word += "s"
	}
	return word
}

func makesSocket(call string) bool {
	return call == "socket" || call == "socketpair" || call == "accept" || call == "accept4"
}
