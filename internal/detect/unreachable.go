package detect

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// Unreachable reports blocks that nothing points to.
var Unreachable = &Detector{
	Name: "heap.unreachable",
	Doc:  "heap blocks that no pointer leads to any more",
	Run:  unreachable,
}

// part counts lost blocks.
type part struct {
	direct, directBytes     uint64
	indirect, indirectBytes uint64
}

func (p *part) add(c *ledger.Cell) {
	p.direct += c.Direct
	p.directBytes += c.DirectBytes
	p.indirect += c.Indirect
	p.indirectBytes += c.IndirectBytes
}

func (p *part) count() uint64 { return p.direct + p.indirect }
func (p *part) bytes() uint64 { return p.directBytes + p.indirectBytes }

// loss is what will be one finding: the lost blocks of one site, or of one
// kind when no site is known.
type loss struct {
	site     *site // nil when no stack is known
	group    int   // the kind with the most bytes; the only one when there is no site
	big      uint64
	old      part // lost before the attach and proved
	new      part // lost since and proved
	once     part // seen unreachable once only, or by uncertain looks
	since    part // all that were not lost in the first look, proved or not
	stack    leak.StackID
	stackN   uint64
	recorded uint64 // of new.direct
	oldSeen  uint64 // of old.direct, recorded
	min, max uint64 // requested sizes, when something is recorded
	request  uint64 // bytes requested for the recorded ones of new.direct
	earliest time.Duration
	kinds    map[int]bool
	paths    map[string]uint64 // directly lost blocks by who called from further out
	below    map[string]*child // indirectly lost ones by who acquired them
	belowN   uint64            // of the indirectly lost ones, recorded
	belowReq uint64            // bytes requested for those
	rivals   []rival           // sites that lose such blocks when none stands out
	others   bool              // the rest of many kinds, in one finding
	weak     []string

	untouched bool // more than the process has in memory
}

// child counts indirectly lost blocks of one site.
type child struct {
	site     *site
	n, bytes uint64 // requested
}

func unreachable(p *Pass) {
	last := p.Proc.LastLook()
	if last == nil {
		return
	}
	losses := collect(p)
	var found []*loss
	for _, l := range losses {
		// With several looks, what only the last one saw may be a pointer on
		// its way.
		if l.old.count()+l.new.count() == 0 && manyLooks(p.Proc) {
			continue
		}
		found = append(found, l)
	}
	found = fold(p, found)
	for _, l := range found {
		f := l.finding(p)
		if total(&f) < p.Config.MinBytes {
			continue
		}
		p.Report(f)
	}
}

// manyLooks reports whether two certain looks were taken far enough apart for
// a proof.
func manyLooks(p *ledger.Process) bool {
	for i := range p.Looks {
		for j := i + 1; j < len(p.Looks); j++ {
			if ledger.Certain(&p.Looks[i]) && ledger.Certain(&p.Looks[j]) && p.Looks[j].At-p.Looks[i].At >= ledger.ProofApart {
				return true
			}
		}
	}
	return false
}

// collect joins the cells of each site, and gives the unrecorded ones to the
// site that loses the same kind now.
func collect(p *Pass) []*loss {
	sites := map[string]*loss{}
	var out []*loss
	seen := recordedKinds{}
	for i := range p.Proc.Lost {
		c := &p.Proc.Lost[i]
		s := p.names.stack(c.Stack)
		if s == nil {
			continue
		}
		l := sites[s.key]
		if l == nil {
			l = newLoss(s, c.Group)
			sites[s.key] = l
			out = append(out, l)
		}
		l.add(p, c)
		l.record(c)
		l.paths[s.beyond()] += c.Direct
		if c.Direct > l.stackN {
			l.stackN, l.stack, l.site = c.Direct, c.Stack, s
		}
		seen.add(&p.Proc.Groups[c.Group], c, s)
	}
	kinds := map[int]*loss{}
	for i := range p.Proc.Lost {
		c := &p.Proc.Lost[i]
		if p.names.stack(c.Stack) != nil {
			continue
		}
		rivals := seen.match(&p.Proc.Groups[c.Group])
		if winner := dominant(rivals); winner != nil {
			sites[winner.key].add(p, c)
			continue
		}
		l := kinds[c.Group]
		if l == nil {
			l = newLoss(nil, c.Group)
			l.rivals = rivals
			kinds[c.Group] = l
			out = append(out, l)
		}
		l.add(p, c)
	}
	return out
}

func newLoss(s *site, group int) *loss {
	return &loss{site: s, group: group, kinds: map[int]bool{}, paths: map[string]uint64{}, below: map[string]*child{}, earliest: -1}
}

// add counts a cell.
func (l *loss) add(p *Pass, c *ledger.Cell) {
	switch {
	case !c.Proved:
		l.once.add(c)
	case c.Old:
		l.old.add(c)
	default:
		l.new.add(c)
	}
	if c.Since > p.Proc.Looks[0].At {
		l.since.add(c)
	}
	if c.Proved && (l.earliest < 0 || c.Since < l.earliest) {
		l.earliest = c.Since
	}
	l.kinds[c.Group] = true
	for _, b := range c.Below {
		l.addBelow(p, b)
	}
	if c.DirectBytes > l.big {
		l.big, l.group = c.DirectBytes, c.Group
	}
}

// addBelow counts indirectly lost blocks that were recorded.
func (l *loss) addBelow(p *Pass, b ledger.Below) {
	l.belowN += b.N
	l.belowReq += b.Requested
	s := p.names.stack(b.Stack)
	if s == nil {
		return
	}
	if l.below[s.key] == nil {
		l.below[s.key] = &child{site: s}
	}
	l.below[s.key].n += b.N
	l.below[s.key].bytes += b.Requested
}

// maxBelow is how many sites of indirectly lost blocks a finding names.
const maxBelow = 3

// related gives the sites of the indirectly lost blocks, the largest first.
func (l *loss) related() []leak.Related {
	children := slices.SortedFunc(maps.Values(l.below), func(a, b *child) int {
		return cmp.Or(-cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.site.key, b.site.key))
	})
	var out []leak.Related
	for _, c := range children[:min(len(children), maxBelow)] {
		out = append(out, leak.Related{What: leak.RelatedIndirect, Count: c.n, Bytes: c.bytes, Stack: c.site.stack, Site: c.site.line})
	}
	return out
}

// record notes the requests of a recorded cell.
func (l *loss) record(c *ledger.Cell) {
	if l.min == 0 && l.max == 0 {
		l.min = c.MinRequest
	}
	l.min, l.max = min(l.min, c.MinRequest), max(l.max, c.MaxRequest)
	switch {
	case c.Proved && !c.Old:
		l.recorded += c.Direct
		l.request += c.Requested
	case c.Proved:
		l.oldSeen += c.Direct
	}
}

// finding puts a loss into words and numbers.
func (l *loss) finding(p *Pass) leak.Finding {
	f := leak.Finding{Kind: leak.KindMemory.String(), SiteCertainty: leak.CertaintyNone, BytesAre: "usable"}
	l.sizes(p, &f)
	l.name(p, &f)
	l.judge(p, &f)
	l.speed(p, &f)
	f.Related = l.related()
	f.Evidence = l.evidence(p, &f)
	f.Advice = l.advice(p, &f)
	return f
}

// sizes fills counts and bytes. Requested bytes are given where every block's
// request is known; blocks of the same kind as recorded ones that all had one
// size are taken to have it too.
func (l *loss) sizes(p *Pass, f *leak.Finding) {
	now := l.new
	if now.count()+l.old.count() == 0 {
		now = l.once
	}
	f.Count, f.Direct, f.Indirect = now.count(), now.direct, now.indirect
	f.Bytes, f.IndirectBytes = now.bytes(), now.indirectBytes
	one := l.site != nil && l.max > 0 && l.min == l.max
	switch {
	case one && now.indirect == 0:
		f.Bytes, f.BytesAre = l.min*now.direct, "requested"
	case l.recorded == now.direct && now.direct > 0 && now.indirect == 0 && l.request > 0:
		f.Bytes, f.BytesAre = l.request, "requested"
	case l.recorded == now.direct && now.direct > 0 && l.belowN == now.indirect && l.old.count() == 0:
		f.Bytes, f.IndirectBytes, f.BytesAre = l.request+l.belowReq, l.belowReq, "requested"
	}
	if l.old.count() == 0 {
		return
	}
	b := &leak.BeforeAttach{
		Count: l.old.count(), Bytes: l.old.bytes(), IndirectCount: l.old.indirect, IndirectBytes: l.old.indirectBytes,
		Type: p.names.kind(&p.Proc.Groups[l.group]), Site: leak.CertaintyNone,
	}
	if one && l.old.indirect == 0 && now.indirect == 0 {
		b.Bytes = l.min * l.old.direct
		f.BytesAre = "requested"
	}
	if l.site != nil {
		b.Site = leak.CertaintyLikely
	}
	f.BeforeAttach = b
}

// name fills title, keys and stack.
func (l *loss) name(p *Pass, f *leak.Finding) {
	f.What = l.what(p)
	if l.site != nil {
		f.Stack, f.Site = l.site.stack, l.site.line
		f.Key, f.NameKey = l.site.key, l.site.nameKey
		f.SiteCertainty = leak.CertaintyProved
		if l.recorded+l.oldSeen == 0 && l.new.count()+l.old.count() > 0 {
			// The recorded ones are among those that were seen once only.
			f.SiteCertainty = leak.CertaintyLikely
		}
		f.Title = fmt.Sprintf("%s from %s are never freed", f.What, functionName(&l.site.stack[l.site.line]))
		return
	}
	f.Title = f.What + " that nothing points to"
	if l.others {
		f.Key, f.NameKey = "other", "other"
		return
	}
	g := &p.Proc.Groups[l.group]
	size := fmt.Sprintf("size%d", g.Size)
	if len(l.kinds) > 1 {
		size = "sizes"
	}
	f.Key = size + ":" + slug(g.Shape)
	f.NameKey = f.Key
	if g.Shape == leak.ShapeType {
		m := p.View.Maps[g.Type.Map]
		id := m.BuildID
		if id == "" {
			id = moduleName(m)
		}
		f.Key = fmt.Sprintf("%s:%.8s+%x", size, id, g.Type.Off)
		if object := p.names.object(g.Type); object != "" {
			f.NameKey = size + ":" + object
		}
	}
	if g.Magic != 0 && int(g.Magic) < len(leak.Magics) {
		f.NameKey += ":" + leak.Magics[g.Magic].Name
		f.Key += fmt.Sprintf(":%x", leak.Magics[g.Magic].Bytes)
	}
}

// what names the blocks: "400-byte blocks", "Conn objects".
func (l *loss) what(p *Pass) string {
	if l.others {
		return fmt.Sprintf("blocks of %s other kinds", leak.FormatCount(uint64(len(l.kinds))))
	}
	g := &p.Proc.Groups[l.group]
	if class, ok := p.names.class(g.Type); ok && g.Shape == leak.ShapeType {
		return class + " objects"
	}
	switch {
	case l.max > 0 && l.min == l.max:
		return leak.FormatCount(l.min) + "-byte blocks"
	case l.max > 0:
		return fmt.Sprintf("blocks of %s to %s bytes", leak.FormatCount(l.min), leak.FormatCount(l.max))
	}
	smallest, largest := g.Size, g.Size
	for k := range l.kinds {
		smallest, largest = min(smallest, p.Proc.Groups[k].Size), max(largest, p.Proc.Groups[k].Size)
	}
	if smallest < largest {
		return fmt.Sprintf("blocks of %s to %s bytes", leak.FormatCount(smallest), leak.FormatCount(largest))
	}
	return leak.FormatCount(g.Size) + "-byte blocks"
}

func slug(s leak.Shape) string {
	switch s {
	case leak.ShapeType:
		return "type"
	case leak.ShapePointer:
		return "pointer"
	case leak.ShapeZero:
		return "zero"
	case leak.ShapeText:
		return "text"
	case leak.ShapeNumber:
		return "number"
	}
	return "other"
}
