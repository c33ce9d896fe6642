package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"stanch/internal/leak"
)

// CloseWait reports connections that the peer has closed and the program has
// not.
var CloseWait = &Detector{
	Name: "fd.closewait",
	Doc:  "connections that the peer closed and this program does not",
	Run:  closeWait,
}

// A connection in CLOSE_WAIT for longer than staleTime was not about to be
// closed; so many of them are worth saying.
const (
	staleTime  = time.Minute
	leastStale = 5
)

// waiting are connections in CLOSE_WAIT of one opener.
type waiting struct {
	site    *site // nil when it is not known
	entries []*fdEntry
	thirds  [3]uint64 // of those that came into the state during the watch, by when
	stale   uint64
}

func closeWait(p *Pass) {
	if p.over() || p.Proc.ListedAt < 0 {
		return
	}
	for _, w := range waitings(p) {
		opener := w.opener(p)
		grows := w.grows() || opener != nil && opener.accumulates(p) && uint64(len(w.entries))*10 >= opener.held*7
		if !grows && w.stale < leastStale {
			continue
		}
		f := w.finding()
		window := p.watchedFDs()
		if grows {
			f.Severity = leak.SeverityGrowth
			entered := w.thirds[0] + w.thirds[1] + w.thirds[2]
			if opener != nil && opener.accumulates(p) {
				entered = max(entered, opener.held)
				p.fds().closing[w.site.lines] = true
			}
			f.Rate, f.Exhaustion = keptRate(p, entered, window)
			f.Evidence = append(f.Evidence, limitEvidence(p)...)
		}
		if opener != nil {
			f.Evidence = append(f.Evidence, "seen: "+opener.seen())
			f.Advice = append(f.Advice, opener.closeAdvice()...)
		}
		if missedCalls(p) > 0 && opener != nil {
			f.Evidence = append(f.Evidence, missedEvidence)
		}
		if grows {
			p.remedy(&f)
			p.fds().explains(&f)
		}
		p.Report(f)
	}
}

// waitings gives the connections in CLOSE_WAIT by their openers, most first.
func waitings(p *Pass) []*waiting {
	byKey := map[string]*waiting{}
	var out []*waiting
	start := firstListing(p)
	window := p.Proc.ListedAt - start
	for _, e := range p.fds().entries {
		if e.Socket == nil || e.Socket.State != "CLOSE_WAIT" {
			continue
		}
		key := ""
		if e.site != nil {
			key = e.site.lines
		}
		w := byKey[key]
		if w == nil {
			w = &waiting{site: e.site}
			byKey[key] = w
			out = append(out, w)
		}
		if e.site != nil && e.site.key < w.site.key {
			w.site = e.site
		}
		w.entries = append(w.entries, e)
		if e.StateAt > start && window > 0 {
			w.thirds[min(int(3*(e.StateAt-start)/window), 2)]++
		}
		if idle, known := e.idle(); known && idle >= staleTime || e.StateAt >= 0 && p.Proc.ListedAt-e.StateAt >= staleTime {
			w.stale++
		}
	}
	slices.SortStableFunc(out, func(a, b *waiting) int { return cmp.Compare(len(b.entries), len(a.entries)) })
	return out
}

// firstListing is the first listing that the open descriptors tell of: the
// standard ones are as old as the process.
func firstListing(p *Pass) time.Duration {
	first := p.Proc.ListedAt
	for i := range p.Proc.Open {
		if at := p.Proc.Open[i].SeenAt; at >= 0 {
			first = min(first, at)
		}
	}
	return first
}

// grows reports whether connections came into the state, and stayed there, in
// every third of the watch.
func (w *waiting) grows() bool {
	all := w.thirds[0] + w.thirds[1] + w.thirds[2]
	for _, n := range w.thirds {
		if n*6 < all {
			return false
		}
	}
	return all >= leastKept
}

func (w *waiting) opener(p *Pass) *fdSite {
	if w.site == nil {
		return nil
	}
	i := slices.IndexFunc(p.fds().sites, func(s *fdSite) bool { return s.site.lines == w.site.lines })
	if i < 0 {
		return nil
	}
	return p.fds().sites[i]
}

func (w *waiting) finding() leak.Finding {
	n := uint64(len(w.entries))
	f := leak.Finding{
		Severity: leak.SeverityRisk, Kind: leak.KindDescriptor.String(), What: "connections", Count: n, SiteCertainty: leak.CertaintyNone,
		Key: "all", NameKey: "all",
		Title: fmt.Sprintf("%s in CLOSE_WAIT: the peer closed, this program did not", plural(n, "connection")),
	}
	if s := w.site; s != nil {
		f.Key, f.NameKey, f.Stack, f.Site = s.key, s.nameKey, s.stack, s.line
		f.SiteCertainty = certaintyOf(w.entries)
		f.Title = fmt.Sprintf("%s from %s in CLOSE_WAIT: the peer closed, this program did not", plural(n, "connection"), functionName(&s.stack[s.line]))
	}
	f.Evidence = append(f.Evidence, "which: "+kindsOf(w.entries))
	if low, high, ok := idleOf(w.entries); ok {
		f.Evidence = append(f.Evidence, "idle: no data for "+leak.FormatDurations(low, high))
	}
	var unread uint64
	for _, e := range w.entries {
		unread += e.Socket.ReceiveQueue
	}
	// The end of the stream counts as one byte of each.
	if unread > n {
		f.Evidence = append(f.Evidence, fmt.Sprintf("unread: %s wait in them", leak.FormatBytes(float64(unread))))
	}
	if calls := lastCalls(w.entries); calls != "" {
		f.Evidence = append(f.Evidence, calls)
	}
	f.Advice = []string{"close the connection when read or recv returns 0, which says that the peer has closed it; a pool must look at its idle connections too"}
	return f
}

// certaintyOf is proved when all of them were seen to be opened.
func certaintyOf(entries []*fdEntry) leak.Certainty {
	for _, e := range entries {
		if e.certainty != leak.CertaintyProved {
			return e.certainty
		}
	}
	return leak.CertaintyProved
}

// plural writes a number of things.
func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return leak.FormatCount(n) + " " + what + "s"
}
