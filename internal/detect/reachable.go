package detect

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// Reachable reports what a program had not freed when it exited though
// pointers still led to it.
var Reachable = &Detector{
	Name: "heap.reachable",
	Doc:  "blocks that were never freed and were still reachable at the exit (on request)",
	Run:  reachable,
}

// HeldAtEnd reports what was held at the end of a process whose heap could not
// be walked: by the records alone.
var HeldAtEnd = &Detector{
	Name: "heap.held",
	Doc:  "blocks that were never freed, and nobody could see whether they were lost",
	Run:  heldAtEnd,
}

func reachable(p *Pass) {
	last := p.Proc.FinalLook()
	if last == nil || !p.Config.Reachable {
		return
	}
	for _, h := range holdings(p, leak.KindMemory) {
		f := h.finding()
		f.Title = fmt.Sprintf("%s from %s were still reachable at the exit", f.What, h.who())
		f.Evidence = append(f.Evidence, "held: pointers led to them when it exited")
		if by := holder(p, h); by != "" {
			f.Evidence = append(f.Evidence, "holder: "+by)
		}
		if f.Bytes < p.Config.MinBytes {
			continue
		}
		p.Report(f)
	}
}

// maxHeld is how many sites without proof are reported one by one.
const maxHeld = 10

func heldAtEnd(p *Pass) {
	if !p.Proc.Ended() || p.Proc.FinalLook() != nil {
		return
	}
	why := "its memory could not be looked at when it ended"
	if n := len(p.Proc.Blind); n > 0 && p.Proc.Blind[n-1].Allocator != "" {
		why = "the heap of " + p.Proc.Blind[n-1].Allocator + " cannot be walked"
	}
	for _, h := range most(holdings(p, leak.KindMemory), maxHeld) {
		f := h.finding()
		if f.Bytes < p.Config.MinBytes {
			continue
		}
		f.Title = fmt.Sprintf("%s from %s were never freed", f.What, h.who())
		f.Evidence = append(f.Evidence, "proof: none that they were lost: "+why)
		if lostEvents(p.View) {
			f.Evidence = append(f.Evidence, "weaker: events were missed, so some may have been freed unseen")
		}
		p.Report(f)
	}
}

// holding is what the recorded things of one site that are held add up to,
// lost blocks left out.
type holding struct {
	site     *site
	kind     leak.Kind
	n, bytes float64
	min, max uint64
	exact    bool
	thirds   [3]uint64
	others   int // how many sites are in it, when it is the rest
}

// holdings gives the sites that hold things of a kind, those with most bytes
// first.
func holdings(p *Pass, kind leak.Kind) []*holding {
	sites := map[string]*holding{}
	var out []*holding
	for i := range p.Proc.Live {
		l := &p.Proc.Live[i]
		n, bytes := l.Count.N-l.Lost.N, l.Count.Bytes-l.Lost.Bytes
		if l.Kind != kind || n < 0.5 {
			continue
		}
		key := ""
		s := p.names.stack(l.Stack)
		if s != nil {
			// Several instructions of one line are one site.
			if key = linesOf(s.stack, s.line); key == "" {
				key = s.key
			}
		}
		if !asked(p, kind, l.Stack, s) {
			continue
		}
		h := sites[key]
		if h == nil {
			h = &holding{site: s, kind: kind, min: l.MinRequest, exact: true, others: 1}
			sites[key] = h
			out = append(out, h)
		}
		h.n += n
		h.bytes += math.Max(bytes, 0)
		h.min, h.max = min(h.min, l.MinRequest), max(h.max, l.MaxRequest)
		h.exact = h.exact && l.Exact
		for j := range h.thirds {
			h.thirds[j] += l.Thirds[j]
		}
		if s != nil && s.key < h.site.key {
			h.site = s
		}
	}
	slices.SortStableFunc(out, func(a, b *holding) int {
		return cmp.Or(-cmp.Compare(a.bytes, b.bytes), -cmp.Compare(a.n, b.n), cmp.Compare(a.key(), b.key()))
	})
	return out
}

func (h *holding) key() string {
	switch {
	case h.others > 1:
		return "other"
	case h.site == nil:
		return "unknown"
	}
	return h.site.key
}

// who names the line for a title.
func (h *holding) who() string {
	switch {
	case h.others > 1:
		return leak.FormatCount(uint64(h.others)) + " other lines"
	case h.site == nil:
		return "a line that was not recorded"
	}
	return functionName(&h.site.stack[h.site.line])
}

// most keeps the first n and puts the rest into one.
func most(hs []*holding, n int) []*holding {
	if len(hs) <= n+1 {
		return hs
	}
	rest := *hs[n]
	rest.site, rest.others = nil, len(hs)-n
	for _, h := range hs[n+1:] {
		rest.n += h.n
		rest.bytes += h.bytes
		rest.min, rest.max = min(rest.min, h.min), max(rest.max, h.max)
		rest.exact = rest.exact && h.exact
	}
	return append(slices.Clone(hs[:n]), &rest)
}

// finding fills what findings over holdings have in common: a note.
func (h *holding) finding() leak.Finding {
	f := leak.Finding{
		Severity: leak.SeverityNote, Kind: h.kind.String(), Key: h.key(), NameKey: h.key(), What: h.what(),
		Count: uint64(h.n + 0.5), Bytes: uint64(h.bytes + 0.5), BytesAre: "estimated", SiteCertainty: leak.CertaintyNone,
	}
	if h.exact {
		f.BytesAre = "requested"
	}
	if h.site != nil {
		f.Stack, f.Site, f.NameKey, f.SiteCertainty = h.site.stack, h.site.line, h.site.nameKey, leak.CertaintyProved
	}
	return f
}

// what names the things: "400-byte blocks", "mappings of 4 KB".
func (h *holding) what() string {
	noun := map[leak.Kind]string{leak.KindMapping: "mappings", leak.KindThread: "threads", leak.KindPool: "pool blocks"}[h.kind]
	switch {
	case h.kind == leak.KindThread:
		return noun
	case h.kind == leak.KindMapping && h.min == h.max && h.max > 0:
		return "mappings of " + leak.FormatBytes(float64(h.min))
	case h.kind == leak.KindMapping:
		return noun
	case noun == "":
		noun = "blocks"
	}
	switch {
	case h.max == 0:
		return noun
	case h.min == h.max:
		return leak.FormatCount(h.min) + "-byte " + noun
	}
	return fmt.Sprintf("%s of %s to %s bytes", noun, leak.FormatCount(h.min), leak.FormatCount(h.max))
}

// holder names what held the most reachable blocks of the one size of a site.
func holder(p *Pass, h *holding) string {
	if h.site == nil || h.max == 0 || h.min != h.max {
		return ""
	}
	var all uint64
	held := map[string]uint64{}
	for i := range p.Proc.Holders {
		o := &p.Proc.Holders[i]
		if ledger.Fits(h.max, o.Size) {
			held[p.names.root(o.Root)] += o.Last.N
			all += o.Last.N
		}
	}
	// All blocks of that size are this site's, or it cannot be told.
	if all == 0 || float64(all) > 1.1*h.n+1 {
		return ""
	}
	for name, n := range held {
		if n*2 > all {
			return fmt.Sprintf("%s leads to most of them", name)
		}
	}
	return ""
}

// Totals gives what the look at the exit of a process found in all, for its
// part of the report: requested bytes where every block was recorded. They are
// nil when there was no such look.
func Totals(p *ledger.Process) (direct, indirect, reachable *leak.ReportBlocks) {
	last := p.FinalLook()
	if last == nil || !last.Walked {
		return nil, nil, nil
	}
	direct, indirect, reachable = &leak.ReportBlocks{}, &leak.ReportBlocks{}, &leak.ReportBlocks{}
	var usable [2]uint64
	var recorded [2]uint64
	for i := range p.Lost {
		c := &p.Lost[i]
		direct.Count += c.Direct
		direct.Bytes += c.Requested
		indirect.Count += c.Indirect
		usable[0] += c.DirectBytes
		usable[1] += c.IndirectBytes
		if c.Stack != 0 {
			recorded[0] += c.Direct
		}
		for _, b := range c.Below {
			recorded[1] += b.N
			indirect.Bytes += b.Requested
		}
	}
	all := exact(p)
	for i, t := range []*leak.ReportBlocks{direct, indirect} {
		t.BytesAre = "requested"
		if recorded[i] != t.Count || t.Count > 0 && !all {
			t.Bytes, t.BytesAre = usable[i], "usable"
		}
	}
	if all || last.Blocks == 0 {
		reachable.BytesAre = "requested"
		for i := range p.Live {
			if l := &p.Live[i]; l.Kind == leak.KindMemory {
				reachable.Count += uint64(math.Max(l.Count.N-l.Lost.N, 0) + 0.5)
				reachable.Bytes += uint64(math.Max(l.Count.Bytes-l.Lost.Bytes, 0) + 0.5)
			}
		}
		return direct, indirect, reachable
	}
	reachable.Count = last.Blocks - min(last.Blocks, last.LostBlocks)
	reachable.Bytes, reachable.BytesAre = last.Bytes-min(last.Bytes, last.LostBytes), "usable"
	return direct, indirect, reachable
}
