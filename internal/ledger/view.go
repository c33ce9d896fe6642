package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"stanch/internal/leak"
)

// View is a frozen copy of the books. Nothing in it may be changed.
type View struct {
	Procs  []*Process // in the order in which they were first heard of
	Maps   map[leak.MapID]leak.Mapping
	Stacks map[leak.StackID][]leak.Frame // innermost first
	Gaps   []leak.Gap
	End    time.Duration // the latest moment that anything was said of
}

// Process is what is known of one process.
type Process struct {
	ID      leak.ProcID
	Looks   []leak.Look // those that listed blocks, in order
	Blind   []leak.Look // those that could not: unknown allocator, broken heap
	Groups  []Group     // kinds of blocks lost in the last look; Cell.Group points here
	Lost    []Cell      // every block lost in the last look is counted in one cell
	Live    []LiveSite  // recorded blocks that are still held, lost ones included
	Large   []LargeSize // requested sizes from 64 KiB on
	Invalid []Invalid   // releases of what was not held
	Tallies []TallySeries
	Gauges  map[leak.GaugeName][]Point // in the order of time; at most 512 points
	Holders []Holder
	ProbeAt time.Duration // first word of a probe; negative when there was none

	Open        []OpenDescriptor // in order of their numbers: of the last listing, else those that a tracer saw come and not go
	Openers     []Opener         // of all that a tracer saw come
	ClosedOlder uint64           // descriptors that were closed, and were open before a tracer came
	Exited      bool             // a tracer saw the process end; Open is what it left to the kernel to close
	FirstAt     time.Duration    // first word of descriptors; negative when there was none
	LastAt      time.Duration    // and the last
	TracedAt    time.Duration    // first word of a tracer of descriptors; likewise
	ListedAt    time.Duration    // of the last listing of them; likewise
	Usages      []UsageSeries
	Ownerless   []leak.Ownerless // of the last moment
	Failures    []leak.Failure   // most first
	Inputs      []leak.Input
}

// Group is one kind of lost block: same usable size, same first word.
type Group struct {
	Size     uint64 // usable bytes of each block
	Shape    leak.Shape
	Type     leak.Frame
	Magic    uint8
	Heads    [][]byte // a few first bytes, only when the user asked for contents
	Returned uint64   // blocks of this kind that were lost in a look and then freed or reachable
	Disproof uint64   // of those, blocks that two looks had found lost: a pointer was hidden from them
}

// Cell counts lost blocks that have everything in common: their kind, who
// acquired them, since when they are lost, and how sure that is. Indirectly
// lost blocks are charged to the cell of the block that leads to them.
type Cell struct {
	Group         int
	Stack         leak.StackID // who acquired the directly lost ones; 0 when not recorded
	Old           bool         // lost in the first look already, before any probe was placed
	Proved        bool         // lost in two certain looks at least ProofApart apart, or in one at the exit
	Since         time.Duration
	Direct        uint64
	DirectBytes   uint64 // usable
	Indirect      uint64
	IndirectBytes uint64  // usable
	Requested     uint64  // bytes requested for the direct ones, when recorded
	Below         []Below // the recorded ones of the indirect ones, by who acquired them
	MinRequest    uint64
	MaxRequest    uint64
	Exact         uint64  // direct ones whose size was recorded each time
	Weight        float64 // what the records stand for
	OldestAt      time.Duration
	NewestAt      time.Duration // when they were acquired, when recorded
}

// Below counts the blocks of one stack that only the lost ones of a cell lead
// to.
type Below struct {
	Stack     leak.StackID
	N         uint64
	Requested uint64 // bytes
}

// LiveSite counts the recorded blocks of one stack that are still held.
type LiveSite struct {
	Kind       leak.Kind
	Stack      leak.StackID
	Records    uint64
	Count      leak.Count // what they stand for
	Lost       leak.Count // what those stand for that the last look found lost
	MinRequest uint64
	MaxRequest uint64
	OldestAt   time.Duration // when the oldest of them was acquired
	Exact      bool          // all of them
	// Of things that are no memory: how many records came in each third of the
	// time from the first word of their source to the end.
	Thirds [3]uint64
}

// LargeSize counts acquisitions of one large size from one stack.
type LargeSize struct {
	Size  uint64 // bytes requested
	Stack leak.StackID
	N     uint64
}

// TallySeries are the totals of one stack over time, at most 64 of them. A
// stack may have two, for the blocks that are counted and those sampled.
type TallySeries struct {
	Kind   leak.Kind
	Stack  leak.StackID
	Exact  bool
	Points []Total
}

// Holder says how many reachable blocks of a kind something holds, in the
// first and in the last look.
type Holder struct {
	Root        leak.Root
	Size        uint64
	Shape       leak.Shape
	Type        leak.Frame
	First, Last Blocks
}

// Blocks is a number of blocks and their usable bytes.
type Blocks struct{ N, Bytes uint64 }

// View closes an open look and copies the conclusions. It may be called again
// after more events.
func (l *Ledger) View() *View {
	v := &View{
		Maps: maps.Clone(l.maps), Stacks: maps.Clone(l.stacks), Gaps: slices.Clone(l.gaps), End: l.end,
	}
	if l.astray > 0 {
		v.Gaps = append(v.Gaps, leak.Gap{At: l.end, Source: "ledger", What: "lost blocks were listed outside of a snapshot and are left out", Lost: l.astray})
	}
	if l.crowded > 0 {
		v.Gaps = append(v.Gaps, leak.Gap{At: l.end, Source: "ledger", What: "more limits, failed calls or ownerless sockets than are kept", Lost: l.crowded})
	}
	for _, b := range l.procs {
		b.seal()
		v.Procs = append(v.Procs, b.view(l.end))
	}
	return v
}

func (b *books) view(end time.Duration) *Process {
	p := &Process{
		ID: b.id, Looks: slices.Clone(b.looks), Blind: slices.Clone(b.blind),
		Gauges: make(map[leak.GaugeName][]Point, len(b.gauges)), ProbeAt: b.probeAt,
		Invalid: b.invalid.view(),
	}
	for name, s := range b.gauges {
		p.Gauges[name] = slices.Clone(s.points)
	}
	for k, t := range b.tallies {
		p.Tallies = append(p.Tallies, TallySeries{k.kind, k.stack, k.exact, slices.Clone(t.points)})
	}
	slices.SortFunc(p.Tallies, func(x, y TallySeries) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Stack, y.Stack), leak.CompareBool(x.Exact, y.Exact))
	})
	for k, n := range b.live.large {
		p.Large = append(p.Large, LargeSize{k.size, k.stack, n})
	}
	slices.SortFunc(p.Large, func(x, y LargeSize) int {
		return cmp.Or(cmp.Compare(x.Size, y.Size), cmp.Compare(x.Stack, y.Stack))
	})
	b.viewLost(p)
	b.viewLive(p, end)
	b.viewHolders(p)
	b.fds.view(p)
	b.resources.view(p)
	return p
}

// viewLost joins the lost blocks with the records of who acquired them.
func (b *books) viewLost(p *Process) {
	returned := map[uint32]uint64{}
	if b.lost != nil {
		b.cells(p, returned)
	}
	p.Groups = make([]Group, len(b.groups.list))
	for i := range b.groups.list {
		g := &b.groups.list[i]
		p.Groups[i] = Group{g.size, g.shape, g.typ, g.magic, slices.Clone(g.heads),
			g.returned + returned[uint32(i)], g.disproof + returned[uint32(i)]}
	}
}

func (b *books) cells(p *Process, returned map[uint32]uint64) {
	type cellKey struct {
		group uint32
		stack leak.StackID
		since uint16
		seen  uint16
	}
	set := b.lost
	end := &b.looks[len(b.looks)-1]
	// Nothing comes before a probe whose process is looked at once, at its exit.
	probed := b.probeAt >= 0 && b.looks[0].At <= b.probeAt && !b.looks[0].Final
	last := end.At
	phase := b.phase()
	cells := map[cellKey]*Cell{}
	var lastKey cellKey // neighbours are often alike
	var lastCell *Cell
	recorded := func(i int) (record, bool) {
		// A record that is newer than the look is of another block; none is
		// newer than the look at the exit, whatever its coarse clock says.
		r, ok := b.live.block(set.addr[i], b.groups.size(set.group[i]))
		return r, ok && (r.at <= last || r.said < phase || end.Final) && b.current(&r, set.since[i], phase)
	}
	cell := func(i int) (*Cell, record, bool) {
		r, ok := recorded(i)
		k := cellKey{group: set.group[i], since: set.since[i], seen: set.seen[i]}
		if ok {
			k.stack = r.stack
		}
		if lastCell != nil && lastKey == k {
			return lastCell, r, ok
		}
		c := cells[k]
		if c == nil {
			c = &Cell{
				Group: int(k.group), Stack: k.stack, Since: b.looks[k.since].At,
				Old: probed && k.since == 0, Proved: b.proved(k.since, k.seen),
			}
			cells[k] = c
		}
		lastKey, lastCell = k, c
		return c, r, ok
	}
	// What was given back after the look was not lost. Nothing is given back
	// after the exit.
	gone := func(i int) bool {
		at, ok := b.release[set.addr[i]]
		return ok && at > last && !end.Final
	}
	type belowKey struct {
		owner *Cell
		stack leak.StackID
	}
	below := map[belowKey]*Below{}
	head, owner := -1, (*Cell)(nil) // neighbours often have one owner
	for i := range set.addr {
		size := b.groups.size(set.group[i])
		if gone(i) {
			if set.direct(i) {
				returned[set.group[i]]++
			}
			continue
		}
		if set.direct(i) {
			c, r, ok := cell(i)
			c.Direct++
			c.DirectBytes += size
			if ok {
				c.record(&r)
			}
			continue
		}
		h := set.head(i)
		if gone(h) {
			continue
		}
		if h != head {
			head = h
			owner, _, _ = cell(h)
		}
		owner.Indirect++
		owner.IndirectBytes += size
		if r, ok := recorded(i); ok {
			k := belowKey{owner, r.stack}
			if below[k] == nil {
				below[k] = &Below{Stack: r.stack}
			}
			below[k].N++
			below[k].Requested += r.size
		}
	}
	for k, n := range below {
		k.owner.Below = append(k.owner.Below, *n)
	}
	keys := slices.SortedFunc(maps.Keys(cells), func(x, y cellKey) int {
		return cmp.Or(cmp.Compare(x.group, y.group), cmp.Compare(x.stack, y.stack), cmp.Compare(x.since, y.since), cmp.Compare(x.seen, y.seen))
	})
	for _, k := range keys {
		slices.SortFunc(cells[k].Below, func(x, y Below) int { return cmp.Compare(x.Stack, y.Stack) })
		p.Lost = append(p.Lost, *cells[k])
	}
}

// current reports whether a record is of the block that is lost since then, and
// not of an earlier one at its address. A source that repeats its table may
// have ceased to, and then says no releases either: what it last said of a
// block that was lost by then stays true.
func (b *books) current(r *record, since, phase uint16) bool {
	return b.live.repeated == 0 || r.last+1 >= phase || b.phases[since] <= r.last+1
}

// record adds what is known of how the block was acquired.
func (c *Cell) record(r *record) {
	if c.Requested == 0 && c.Weight == 0 {
		c.MinRequest, c.OldestAt = r.size, r.at
	}
	c.Requested += r.size
	c.Weight += float64(r.weight)
	c.MinRequest, c.MaxRequest = min(c.MinRequest, r.size), max(c.MaxRequest, r.size)
	c.OldestAt, c.NewestAt = min(c.OldestAt, r.at), max(c.NewestAt, r.at)
	if r.exact {
		c.Exact++
	}
}

func (b *books) viewLive(p *Process, end time.Duration) {
	type siteKey struct {
		kind  leak.Kind
		stack leak.StackID
	}
	// The sums are whole numbers of 1/weightUnit, so that they do not depend on
	// the order of a map.
	const weightUnit = 1 << 12
	type sums struct{ n, bytes, lostN, lostBytes uint64 }
	sites, totals := map[siteKey]*LiveSite{}, map[siteKey]*sums{}
	add := func(kind leak.Kind, r record, lost bool) {
		if !b.live.held(&r) {
			return
		}
		k := siteKey{kind, r.stack}
		s := sites[k]
		if s == nil {
			s = &LiveSite{Kind: kind, Stack: r.stack, MinRequest: r.size, OldestAt: r.at, Exact: true}
			sites[k], totals[k] = s, &sums{}
		}
		s.Records++
		n, bytes := uint64(float64(r.weight)*weightUnit), uint64(float64(r.weight)*float64(r.size))
		totals[k].n += n
		totals[k].bytes += bytes
		if lost {
			totals[k].lostN += n
			totals[k].lostBytes += bytes
		}
		s.MinRequest, s.MaxRequest = min(s.MinRequest, r.size), max(s.MaxRequest, r.size)
		s.OldestAt = min(s.OldestAt, r.at)
		s.Exact = s.Exact && r.exact
	}
	for addr, r := range b.live.memory {
		i, lost := b.lost.find(addr)
		add(leak.KindMemory, r, lost && aligned(r.size, b.groups.size(b.lost.group[i])))
	}
	for ref, r := range b.live.other {
		add(ref.Kind, r, false)
		if s := sites[siteKey{ref.Kind, r.stack}]; s != nil && b.live.held(&r) {
			s.Thirds[third(r.at, b.probeAt, end)]++
		}
	}
	for _, h := range b.fds.held {
		if !h.gone {
			add(leak.KindDescriptor, h.record, false)
			sites[siteKey{leak.KindDescriptor, h.stack}].Thirds[third(h.at, b.fds.firstAt, b.fds.lastAt)]++
		}
	}
	for k, s := range sites {
		s.Count = leak.Count{N: float64(totals[k].n) / weightUnit, Bytes: float64(totals[k].bytes)}
		s.Lost = leak.Count{N: float64(totals[k].lostN) / weightUnit, Bytes: float64(totals[k].lostBytes)}
		p.Live = append(p.Live, *s)
	}
	slices.SortFunc(p.Live, func(x, y LiveSite) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Stack, y.Stack))
	})
}

// third says in which third of the time from start to end a moment lies.
func third(at, start, end time.Duration) int {
	start = max(start, 0)
	if at <= start || end <= start {
		return 0
	}
	// In floating point, since a damaged recording may hold any time.
	return min(int(3*(float64(at-start)/float64(end-start))), 2)
}

func (b *books) viewHolders(p *Process) {
	for k, c := range b.held.last {
		f := b.held.first[k]
		p.Holders = append(p.Holders, Holder{k.root, k.size, k.shape, k.typ, Blocks{f.n, f.bytes}, Blocks{c.n, c.bytes}})
	}
	for k, f := range b.held.first {
		if _, ok := b.held.last[k]; !ok {
			p.Holders = append(p.Holders, Holder{k.root, k.size, k.shape, k.typ, Blocks{f.n, f.bytes}, Blocks{}})
		}
	}
	slices.SortFunc(p.Holders, func(x, y Holder) int {
		return cmp.Or(-cmp.Compare(x.Last.Bytes, y.Last.Bytes), cmp.Compare(x.Root.What, y.Root.What),
			cmp.Compare(x.Root.Frame.Map, y.Root.Frame.Map), cmp.Compare(x.Root.Frame.Off, y.Root.Frame.Off),
			cmp.Compare(x.Root.TID, y.Root.TID), cmp.Compare(x.Size, y.Size), cmp.Compare(x.Shape, y.Shape),
			cmp.Compare(x.Type.Map, y.Type.Map), cmp.Compare(x.Type.Off, y.Type.Off))
	})
}
