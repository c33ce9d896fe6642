package detect

import (
	"fmt"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// InvalidFree reports releases of blocks that are not held.
var InvalidFree = &Detector{
	Name: "heap.invalid-free",
	Doc:  "blocks that were freed twice, or were never allocated",
	Run:  invalidFree,
}

func invalidFree(p *Pass) {
	type same struct{ free, acquired, released string }
	found := map[same]*invalid{}
	var order []*invalid
	for i := range p.Proc.Invalid {
		x := &p.Proc.Invalid[i]
		v := &invalid{free: p.names.stack(x.Stack), sum: *x}
		k := same{free: fmt.Sprint(x.Kind, x.Double, siteKey(v.free))}
		if x.Double {
			v.acquired, v.released = p.names.stack(x.Acquired), p.names.stack(x.Released)
			k.acquired, k.released = siteKey(v.acquired), siteKey(v.released)
		}
		old := found[k]
		if old == nil {
			found[k] = v
			order = append(order, v)
			continue
		}
		old.add(x)
	}
	for _, v := range order {
		p.Report(v.finding())
	}
}

func siteKey(s *site) string {
	if s == nil {
		return "unknown"
	}
	return s.key
}

// invalid is what will be one finding: invalid releases that have their sites
// in common.
type invalid struct {
	free, acquired, released *site // nil when no stack is known
	sum                      ledger.Invalid
}

func (v *invalid) add(x *ledger.Invalid) {
	v.sum.N += x.N
	v.sum.Bytes += x.Bytes
	if x.MinSize != 0 && (v.sum.MinSize == 0 || x.MinSize < v.sum.MinSize) {
		v.sum.MinSize = x.MinSize
	}
	v.sum.MaxSize = max(v.sum.MaxSize, x.MaxSize)
}

func (v *invalid) finding() leak.Finding {
	kind := "unknown:"
	f := leak.Finding{
		Severity: leak.SeverityError, Kind: v.sum.Kind.String(), SiteCertainty: leak.CertaintyNone,
		Count: v.sum.N, Bytes: v.sum.Bytes, BytesAre: "requested", What: v.what(), Title: "freed and never allocated",
		Evidence: []string{"proof: every allocation was recorded since the program began, and this was none of them"},
		Advice:   []string{"free only what the allocator gave: an address inside a block, on a stack, or of another allocator is none"},
	}
	if v.sum.Double {
		kind = "double:"
		f.Title = "freed twice"
		f.Evidence = []string{"proof: every allocation was recorded since the program began, and the block was not held any more"}
		f.Advice = []string{"decide which of the two owns the block; set the pointer to NULL where it is freed first"}
	}
	if v.free != nil {
		f.Stack, f.Site, f.SiteCertainty = v.free.stack, v.free.line, leak.CertaintyProved
		f.Title += " by " + functionName(&v.free.stack[v.free.line])
		f.Key, f.NameKey = kind+v.free.key, kind+v.free.nameKey
	} else {
		f.Key, f.NameKey = kind+"nowhere", kind+"nowhere"
	}
	// Where a block was allocated and freed first tells two mistakes apart.
	for _, r := range []struct {
		what string
		site *site
	}{{leak.RelatedFreedFirst, v.released}, {leak.RelatedAllocated, v.acquired}} {
		if r.site == nil {
			continue
		}
		f.Related = append(f.Related, leak.Related{What: r.what, Stack: r.site.stack, Site: r.site.line})
		f.Key += ":" + r.site.key
		f.NameKey += ":" + functionName(&r.site.stack[r.site.line])
	}
	return f
}

// what names the blocks.
func (v *invalid) what() string {
	noun := "blocks"
	if v.sum.Kind != leak.KindMemory {
		noun = nounOf(v.sum.Kind)
	}
	switch {
	case !v.sum.Double && v.sum.N == 1:
		return "an address"
	case !v.sum.Double:
		return "addresses"
	case v.sum.MaxSize == 0:
		return noun
	case v.sum.MinSize == v.sum.MaxSize:
		return leak.FormatCount(v.sum.MinSize) + "-byte " + noun
	}
	return fmt.Sprintf("%s of %s to %s bytes", noun, leak.FormatCount(v.sum.MinSize), leak.FormatCount(v.sum.MaxSize))
}
