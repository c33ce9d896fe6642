package heap

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"stanch/internal/leak"
)

// graph is which block points to which, for all blocks.
//
// Of each block a row of numbers is kept: 4 bytes for each other block it
// points to. A single one stands where the row's place would; following a list
// then takes one access to memory for each block. Large blocks, and those for
// which there was no room, have no row: they are read again when they are
// reached, once.
type graph struct {
	ctx     context.Context
	img     *Image
	space   *space
	types   *types
	classes *classes
	keys    map[uint64]bool
	workers int
	say     func(stage string, done, total uint64)

	rows   array[uint32] // for each block: 0, oneEdge and the only block it points to, where its row begins, or noRow
	edges  array[uint32] // the rows; the last entry of each has lastEdge set
	used   atomic.Uint64 // entries of edges that were given out
	class  array[uint16]
	cached array[uint64] // blocks that bear the mark of a thread cache
	marked array[uint64] // blocks that are reachable

	packedEdges []packedEdge // see packed.go

	lo, hi uint64 // pointers to blocks lie between
	read   atomic.Uint64
}

const (
	oneEdge  = 1 << 31
	lastEdge = 1 << 31
	noRow    = 1<<32 - 1

	// maxEdges bounds the memory that rows take: 128 MiB.
	maxEdges = 32 << 20
	// run is how many entries a worker takes at a time.
	run = 1 << 16
	// rowMax is the size of blocks from which on no row is kept.
	rowMax = 32 << 10
	// pieceSize is what a worker reads at a time.
	pieceSize = 1 << 20
)

func newGraph(w *walk) (*graph, error) {
	g := &graph{ctx: w.ctx, img: w.img, space: w.space, classes: newClasses(), keys: w.keys, workers: w.workers, say: w.say}
	g.types = &types{maps: w.img.Maps, pages: newPager(w.img.Mem)}
	n := int(g.space.total)
	var errs [5]error
	g.rows, errs[0] = newArray[uint32](n + 1)
	g.edges, errs[1] = newArray[uint32](maxEdges)
	g.class, errs[2] = newArray[uint16](n + 1)
	g.cached, errs[3] = newBits(n)
	g.marked, errs[4] = newBits(n)
	for _, err := range errs {
		if err != nil {
			g.free()
			return nil, err
		}
	}
	g.used.Store(1) // 0 means an empty row
	if len(g.space.spans) > 0 {
		g.lo, g.hi = g.space.spans[0].start, g.space.spans[len(g.space.spans)-1].end+headerSize
	}
	return g, nil
}

func (g *graph) free() {
	g.rows.free()
	g.edges.free()
	g.class.free()
	g.cached.free()
	g.marked.free()
}

// target gives the block that a word points to, if any. Pointers with a tag in
// their upper 16 bits count; tags in the lower ones make interior pointers.
func (g *graph) target(word uint64) (uint32, bool) {
	if word >= userEnd {
		word &= 1<<48 - 1
	}
	if word-g.lo >= g.hi-g.lo {
		return 0, false
	}
	return g.space.lookup(word)
}

// job is a part of a heap, or a mapped block.
type job struct {
	sp       *span
	from, to uint64
}

// build reads all blocks.
func (g *graph) build() error {
	var jobs []job
	var total, done uint64
	for i := range g.space.spans {
		sp := &g.space.spans[i]
		if sp.cell < 0 {
			jobs = append(jobs, job{sp: sp})
			continue
		}
		total += sp.end - sp.start
		for from := sp.start; from < sp.end; {
			// Pieces end at multiples of their size, so that reads are aligned.
			to := min((from+pieceSize)&^(pieceSize-1), sp.end)
			jobs = append(jobs, job{sp, from, to})
			from = to
		}
	}
	var mu sync.Mutex
	var first error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range g.workers {
		wg.Go(func() {
			b := g.builder()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(jobs) || g.ctx.Err() != nil {
					mu.Lock()
					g.packedEdges = append(g.packedEdges, b.packedEdges...)
					mu.Unlock()
					return
				}
				if err := b.do(jobs[i]); err != nil {
					fail(err)
					return
				}
				if i%64 == 63 && g.say != nil {
					mu.Lock()
					done = max(done, uint64(i)*pieceSize)
					g.say("reading blocks", min(done, total), total)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if first == nil {
		first = g.ctx.Err()
	}
	return first
}

// builder is one worker of build.
type builder struct {
	*graph
	shapes  *shapes
	class   classCache
	buf     []byte
	out     []uint32 // the rest of the run
	at      uint32   // where out begins in edges
	full    bool     // there is no room for more rows
	resides []leak.Range
	span    *span // that resides belongs to

	packedEdges []packedEdge
}

func (g *graph) builder() *builder {
	return &builder{graph: g, shapes: newShapes(g.types), class: classCache{of: g.classes}, buf: make([]byte, pieceSize+rowMax+pageSize)}
}

func (b *builder) do(j job) error {
	if j.sp.cell < 0 {
		p := place{j.sp.start + headerSize, j.sp.end - j.sp.start}
		b.rows.s[j.sp.id] = noRow
		return b.head(j.sp.id, p)
	}
	return b.piece(j)
}

// head classifies a block of which no row is kept.
func (b *builder) head(id uint32, p place) error {
	var start [16]byte
	if err := readFull(b.img.Mem, start[:], p.user); err != nil {
		return fmt.Errorf("block of %d bytes: %w", p.size, err)
	}
	_, heap := b.target(load(start[:]))
	b.describe(id, p, start[:], heap)
	return nil
}

// describe notes what kind of block this is; heap says that its first word is a
// pointer to a block.
func (b *builder) describe(id uint32, p place, start []byte, heap bool) {
	shape, kind := b.shapes.of(start, heap)
	b.graph.class.s[id] = b.class.id(class{p.size, shape, kind})
	if len(b.keys) > 0 && b.keys[load(start[8:])] {
		atomic.OrUint64(&b.cached.s[id>>6], 1<<(id&63))
	}
}

// piece reads the blocks that begin in a part of a heap.
func (b *builder) piece(j job) error {
	// What has to be read: from the first block's start to the end of the last
	// one that gets a row.
	first, last, ok := b.space.extent(j.sp, j.from, j.to)
	if !ok {
		return nil
	}
	from := first.user
	data, err := b.fetch(j.sp, from, last.user+min(last.size, rowMax))
	if err != nil {
		return err
	}
	b.space.each(j.sp, j.from, j.to, func(id uint32, p place) bool {
		bytes := data[p.user-from:]
		t, heap := b.target(load(bytes))
		b.describe(id, p, bytes, heap)
		if p.size >= rowMax {
			b.rows.s[id] = noRow
			return true
		}
		if !heap {
			t = id
		}
		b.rows.s[id] = b.row(id, t, bytes[:p.size])
		return true
	})
	return nil
}

// fetch reads [from, to). Pages that were never touched are zero and not read.
func (b *builder) fetch(sp *span, from, to uint64) ([]byte, error) {
	if b.span != sp {
		b.span, b.resides = sp, b.img.resident(leak.Range{Start: leak.Addr(sp.start &^ (pageSize - 1)), End: leak.Addr((sp.end + pageSize - 1) &^ (pageSize - 1))})
	}
	data := b.buf[:to-from]
	at := from
	i := firstEndingAfter(b.resides, from)
	for ; at < to; i++ {
		start, end := to, to
		if i < len(b.resides) {
			start, end = uint64(b.resides[i].Start), uint64(b.resides[i].End)
		}
		if start > at {
			n := min(start, to) - at
			clear(data[at-from:][:n])
			at += n
		}
		if n := min(end, to); n > at {
			if err := readFull(b.img.Mem, data[at-from:n-from], at); err != nil {
				return nil, fmt.Errorf("blocks of the heap: %w", err)
			}
			b.read.Add(n - at)
			at = n
		}
	}
	return data, nil
}

// row keeps which blocks this one points to: first, unless it is the block
// itself, and those that the words of data name after the first. It returns
// the block's entry in rows.
func (b *builder) row(id, first uint32, data []byte) uint32 {
	if len(b.out) <= len(data)/8 && !b.room() {
		return noRow
	}
	n := 0
	prev := id // a pointer to itself says nothing
	if first != id {
		b.out[0], n, prev = first, 1, first
	}
	before := load(data)
	for data = data[8:]; len(data) >= 8; data = data[8:] {
		w := load(data)
		if w == 0 {
			before = 0
			continue
		}
		if t, ok := b.target(w); ok {
			if t != prev && t != id {
				b.out[n] = t
				n++
				prev = t
			}
		} else if mayBePacked(w) {
			if t, ok := b.packed(before, w); ok && len(b.packedEdges) < maxPacked {
				b.packedEdges = append(b.packedEdges, packedEdge{id, t})
			}
		}
		before = w
	}
	switch n {
	case 0:
		return 0
	case 1:
		return b.out[0] | oneEdge
	}
	b.out[n-1] |= lastEdge
	at := b.at
	b.out = b.out[n:]
	b.at += uint32(n)
	return at
}

// room takes another run of entries.
func (b *builder) room() bool {
	if b.full {
		return false
	}
	at := b.used.Add(run) - run
	if at+run > maxEdges {
		b.full = true
		return false
	}
	b.at = uint32(at)
	b.out = b.edges.s[at:][:run]
	return true
}

// firstEndingAfter is the index of the first of sorted ranges that ends after
// a.
func firstEndingAfter(r []leak.Range, a uint64) int {
	lo, hi := 0, len(r)
	for lo < hi {
		if m := (lo + hi) / 2; uint64(r[m].End) > a {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}
