package heap

import (
	"time"

	"stanch/internal/leak"
)

// Look is what a Result does not know of its look.
type Look struct {
	N      int
	At     time.Duration
	Proc   leak.ProcID
	Single bool // a core file
	Final  bool // the process stood at its end
	Pause  time.Duration
}

const batchSize = 4096

// Emit says the result to a sink: the Look, a Gap when nothing could be
// concluded, the verdicts over lost blocks in the order of their addresses, and
// the holders of the rest. An EdgeSink also gets every block and pointer. The
// image must still be readable.
func (r *Result) Emit(sink leak.Sink, k Look) error {
	sink.Look(leak.Look{
		N: k.N, At: k.At, Proc: k.Proc, Single: k.Single, Final: k.Final, Pause: k.Pause,
		Allocator: r.Allocator, Walked: r.Walked, Blocks: r.Blocks, Bytes: r.Bytes, Free: r.Free,
		LostBlocks: r.LostBlocks, LostBytes: r.LostBytes, PendingIO: r.img.PendingIO,
		ReadBytes: r.ReadBytes, Uncertainty: r.Doubts,
	})
	if !r.Walked {
		sink.Gap(leak.Gap{At: k.At, Proc: k.Proc, Source: "heap", What: r.gap()})
		return nil
	}
	e := &emission{Result: r, sink: sink, proc: k.Proc, shapes: newShapes(r.graph.types), pages: newPager(r.img.Mem)}
	if err := e.lostBlocks(); err != nil {
		return err
	}
	if len(r.Held) > 0 {
		for i := range r.Held {
			r.Held[i].Proc = k.Proc
		}
		sink.Held(r.Held)
	}
	if edges, ok := sink.(leak.EdgeSink); ok {
		return e.everything(edges)
	}
	return nil
}

// gap is the sentence for the report.
func (r *Result) gap() string {
	if r.Allocator == "" || r.Allocator == "unknown" {
		return "the heap was not looked into: " + r.Why
	}
	return "the heap of " + r.Allocator + " was not looked into: " + r.Why
}

// emission is one run of Emit.
type emission struct {
	*Result
	sink   leak.Sink
	proc   leak.ProcID
	shapes *shapes
	pages  *pager
	batch  []leak.Verdict
	start  [headSize]byte
}

// lostBlocks says the verdicts over lost blocks.
func (e *emission) lostBlocks() error {
	e.batch = make([]leak.Verdict, 0, batchSize)
	err := e.lost.places(func(id uint32, p place) error {
		v := leak.Verdict{Ref: e.ref(p), Size: p.size}
		if err := e.describe(&v, p); err != nil {
			return err
		}
		var owner uint32
		if v.State, owner = e.lost.state(id); v.State == leak.LostIndirect {
			v.Owner = e.space.where(owner).user
		}
		e.batch = append(e.batch, v)
		if len(e.batch) == batchSize {
			e.sink.Verdicts(e.batch)
			e.batch = e.batch[:0]
		}
		return e.graph.ctx.Err()
	})
	if err != nil {
		return err
	}
	if len(e.batch) > 0 {
		e.sink.Verdicts(e.batch)
	}
	return nil
}

func (e *emission) ref(p place) leak.Ref {
	return leak.Ref{Proc: e.proc, Kind: leak.KindMemory, ID: p.user}
}

const (
	headSize = 64 // bytes of a block that --show-contents shows
	lookSize = 32 // bytes that its shape and magic are told from
)

// describe fills in what the start of a block shows.
func (e *emission) describe(v *leak.Verdict, p place) error {
	n := int(min(p.size, lookSize))
	if e.opts.ShowContents {
		n = int(min(p.size, headSize))
	}
	b := e.start[:n]
	if err := e.pages.read(b, p.user); err != nil {
		return err
	}
	var kind uint64
	_, heap := e.graph.target(load(b))
	if v.Shape, kind = e.shapes.of(b, heap); kind != 0 && e.opts.Atlas != nil {
		v.Type = e.opts.Atlas.Frame(leak.Addr(kind))
	}
	v.Magic = magicOf(b)
	if e.opts.ShowContents {
		v.Head = append([]byte(nil), b...)
	}
	return nil
}

// places calls f for every lost block with its place, in the order of numbers:
// of addresses within the heaps, then the mapped ones.
func (l *lost) places(f func(id uint32, p place) error) error {
	var err error
	for _, i := range l.space.walked {
		sp := &l.space.spans[i]
		l.space.each(sp, sp.start, sp.end, func(id uint32, p place) bool {
			if l.set.has(id) {
				err = f(id, p)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	for id := l.space.heaps; id < l.space.total; id++ {
		if l.set.has(id) {
			if err := f(id, l.space.where(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// everything says all blocks and all pointers between them.
func (e *emission) everything(sink leak.EdgeSink) error {
	all := &lost{graph: e.graph, set: make(bitset, int(e.space.total)/64+1), buf: make([]byte, 64<<10)}
	for i := range all.set {
		all.set[i] = ^uint64(0)
	}
	blocks := make([]leak.Verdict, 0, batchSize)
	edges := make([]leak.Edge, 0, batchSize)
	say := func(id uint32, p place) error {
		blocks = append(blocks, e.verdict(id, p))
		if len(blocks) == batchSize {
			sink.Blocks(blocks)
			blocks = blocks[:0]
		}
		return nil
	}
	point := func(id uint32, p place) error {
		return all.pointers(id, func(t uint32) {
			edges = append(edges, leak.Edge{From: p.user, To: e.space.where(t).user})
			if len(edges) == batchSize {
				sink.Edges(edges)
				edges = edges[:0]
			}
		})
	}
	if err := all.places(say); err != nil {
		return err
	}
	if len(blocks) > 0 {
		sink.Blocks(blocks)
	}
	if err := all.places(point); err != nil {
		return err
	}
	if len(edges) > 0 {
		sink.Edges(edges)
	}
	return nil
}

// verdict says what was kept of a block: its class tells shape and type.
func (e *emission) verdict(id uint32, p place) leak.Verdict {
	v := leak.Verdict{Ref: e.ref(p), Size: p.size, State: leak.Reachable}
	c := e.graph.classes.list[e.graph.class.s[id]]
	v.Shape = c.shape
	if c.kind != 0 && e.opts.Atlas != nil {
		v.Type = e.opts.Atlas.Frame(leak.Addr(c.kind))
	}
	if e.lost.set.has(id) {
		var owner uint32
		if v.State, owner = e.lost.state(id); v.State == leak.LostIndirect {
			v.Owner = e.space.where(owner).user
		}
	}
	return v
}

// pointers calls f for each block that id points to.
func (l *lost) pointers(id uint32, f func(uint32)) error {
	row := l.rows.s[id]
	if row == noRow {
		last := id
		return l.targets(id, l.buf, func(t uint32) {
			if t != last && t != id {
				f(t)
			}
			last = t
		})
	}
	l.follow(row, f)
	return nil
}
