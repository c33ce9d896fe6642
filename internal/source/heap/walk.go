package heap

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"stanch/internal/leak"
)

// walk is the look at the allocator's structures.
type walk struct {
	ctx     context.Context
	img     *Image
	workers int
	say     func(stage string, done, total uint64)
	only    *answer // where the only thread is; nil when it is to be found out

	pages       *pager
	lay         *layout
	name        string // "glibc 2.36"
	proved      bool   // the layout is known from a core file, not only from the sources
	arenas      []*arena
	space       *space
	par         *par
	heapMax     uint64
	mapped      map[uint64]bool // chunks of mapped blocks
	unused      map[uint64]bool // those of them that a thread's cache holds
	keys        map[uint64]bool // what the second word of a cached block may be
	unusedBytes uint64
	own         []leak.Range // the allocator's own memory beside the heaps: never a root
	doubts      []string     // what weakens the look
	read        uint64       // bytes
}

// refusal is why nothing is concluded of a process.
type refusal struct {
	allocator string
	why       string
}

// walkHeap finds and walks all heaps of the image. A refusal says why it cannot;
// an error means that the image itself cannot be read any more.
func (w *walk) run() (*refusal, error) {
	w.pages = newPager(w.img.Mem)
	w.heapMax = heapMax
	w.keys, w.mapped, w.unused = map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}
	w.space = &space{}
	if r := w.identify(); r != nil {
		return r, nil
	}
	atWork := w.atWork()
	for _, a := range w.arenas {
		if a.mutex != 0 || atWork {
			a.busy = true
			a.leaveOut(errors.New("a thread was at work in it"))
		}
		w.findHeaps(a)
	}
	w.tell("walking the heap")
	candidates, err := w.chains()
	if err != nil {
		return nil, err
	}
	if r := w.settleLayout(candidates); r != nil {
		return r, nil
	}
	w.dropBad()
	for _, a := range w.arenas {
		if a.bad == nil {
			if err := w.drainFast(a); err != nil {
				a.leaveOut(err)
			}
		}
	}
	w.dropBad()
	mapped := w.findMapped()
	if err := w.drainCaches(candidates); err != nil {
		return &refusal{w.name, fmt.Sprintf("the caches of its threads are not as they should be (%v)", err)}, nil
	}
	w.addMapped(mapped)
	if r := w.judge(); r != nil {
		return r, nil
	}
	return nil, w.space.number()
}

// tell says what is done now.
func (w *walk) tell(stage string) {
	if w.say != nil {
		w.say(stage, 0, 0)
	}
}

// atWork reports whether the only thread of the process is, or may be, inside
// the allocator, where it takes no locks.
func (w *walk) atWork() bool {
	if w.only != nil {
		return *w.only != outside
	}
	if len(w.img.Threads) != 1 {
		return false
	}
	var mains []*arena
	for _, a := range w.arenas {
		if a.main {
			mains = append(mains, a)
		}
	}
	g := newGuard(w.img, mains)
	where := g.only(&w.img.Threads[0])
	if where == unsure {
		g.prepare()
		where = g.only(&w.img.Threads[0])
	}
	return where != outside
}

// identify finds the allocator, its version and its arenas.
func (w *walk) identify() *refusal {
	if name := w.img.foreign(); name != "" {
		return &refusal{name, "its structures are not walked; only blocks that a probe records while it watches are known"}
	}
	mains := mainArenas(w.img, w.pages, stoppedWrong)
	used := 0
	for _, a := range mains {
		if !a.fresh {
			used++
		}
	}
	if used == 0 {
		if name := w.img.linkedIn(); name != "" {
			return &refusal{name, "its structures are not walked; only blocks that a probe records while it watches are known"}
		}
		if len(mains) == 0 {
			return &refusal{"unknown", "no allocator that can be walked was found in it (glibc is the only one)"}
		}
	}
	minor := w.version(mains)
	w.name = fmt.Sprintf("glibc 2.%d", minor)
	w.lay, w.proved = layoutOf(minor), proved[minor]
	if minor == 0 {
		w.name = "glibc" // linked statically: its structures tell the layout
	} else if w.lay == nil {
		return &refusal{w.name, "the layout of this version's heap is not known (those of 2.28 to 2.44 are)"}
	}
	for _, m := range mains {
		w.own = append(w.own, leak.Range{Start: leak.Addr(m.addr), End: leak.Addr(m.addr + m.state.size)})
		if m.fresh {
			continue
		}
		w.arenas = append(w.arenas, m)
		more, err := threadArenas(w.pages, m)
		if err != nil {
			return &refusal{w.name, fmt.Sprintf("its list of arenas cannot be followed (%v)", err)}
		}
		w.arenas = append(w.arenas, more...)
	}
	if w.lay == nil {
		w.lay = w.guess()
	}
	for _, a := range w.arenas {
		if a.state != w.lay.state {
			return &refusal{w.name, "its arenas do not have the layout of this version"}
		}
	}
	w.findPar()
	return nil
}

// version finds glibc's version: by the module of the first arena, or when that
// has none (libc_malloc_debug.so) by the libc.
func (w *walk) version(mains []*arena) int {
	for _, m := range mains {
		if v := w.img.minorVersion(m.mapping); v != 0 {
			return v
		}
	}
	for i := range w.img.Maps {
		base := filepath.Base(w.img.Maps[i].Path)
		if base == "libc.so.6" || strings.HasPrefix(base, "libc-2.") {
			return w.img.minorVersion(i)
		}
	}
	return 0
}

// chains walks all heaps, several at a time, and returns the chunks that may
// hold thread caches.
func (w *walk) chains() ([]uint64, error) {
	cells := 0
	for i, a := range w.arenas {
		if a.bad != nil {
			continue
		}
		for _, h := range a.heaps {
			sp := span{start: uint64(h.Start), end: uint64(h.End), cell: cells, arena: i}
			cells += sp.cells()
			w.space.spans = append(w.space.spans, sp)
		}
	}
	var err error
	if w.space.cells, err = newArray[cell](cells); err != nil {
		return nil, err
	}
	w.space.locate()
	order := make([]int, len(w.space.spans)) // large ones first
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(i, j int) bool {
		return w.space.spans[order[i]].cells() > w.space.spans[order[j]].cells()
	})
	results := make([]*chain, len(order))
	errs := make([]error, len(order))
	w.parallel(len(order), func(n int) {
		i := order[n]
		sp := &w.space.spans[i]
		c := &chain{ar: w.arenas[sp.arena], sp: sp, cells: w.space.cells.s, caches: w.cacheLayouts(), most: w.mostCached(), win: newWindow(w.img.Mem, sp.end)}
		errs[i] = c.walk()
		c.win.close()
		results[i] = c
	})
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	return w.collect(results, errs), nil
}

// collect joins what the chains of each arena gave, and checks its bins.
func (w *walk) collect(chains []*chain, errs []error) (candidates []uint64) {
	total := make([]sums, len(w.arenas))
	for i, c := range chains {
		if c == nil {
			continue
		}
		w.read += c.win.read
		a := c.ar
		if errs[i] != nil {
			a.leaveOut(errs[i])
			continue
		}
		total[c.sp.arena].join(c.sums)
		a.gaps = append(a.gaps, c.gaps...)
		a.count.blocks += c.blocks
		a.count.bytes += c.bytes
		a.count.free += c.free
		candidates = append(candidates, c.candidates...)
	}
	for i, a := range w.arenas {
		s := &total[i]
		for b := 1; b <= binCount; b++ {
			s.add(a.bin(b), a.bins[2*b-2], a.bins[2*b-1])
		}
		if s.fd != s.nodes || s.bk != s.nodes {
			a.leaveOut(fmt.Errorf("its lists do not hold exactly its free chunks: %w", errNotAllocator))
		}
	}
	return candidates
}

// parallel runs f(0) to f(n-1) on the workers.
func (w *walk) parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(w.workers, n) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		if w.ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
}

// dropBad takes the spans of arenas that are left out back. Their memory is
// then like any other: a root.
func (w *walk) dropBad() {
	kept := w.space.spans[:0]
	for _, sp := range w.space.spans {
		if sp.cell >= 0 && w.arenas[sp.arena].bad != nil {
			clear(w.space.cells.s[sp.cell:][:sp.cells()])
			continue
		}
		kept = append(kept, sp)
	}
	w.space.spans = kept
	w.space.locate()
}

// leftOut reports whether a lies in a heap of an arena that is left out, or
// whose heaps are not known at all.
func (w *walk) leftOut(a uint64) bool {
	unknown := false
	for _, ar := range w.arenas {
		if ar.bad == nil {
			continue
		}
		unknown = unknown || len(ar.heaps) == 0
		for _, h := range ar.heaps {
			if h.Contains(leak.Addr(a)) {
				return true
			}
		}
	}
	return unknown && w.space.spanOf(a) == nil
}

// judge says what the checks left out. A version that no core file proves must
// pass every one of them.
func (w *walk) judge() *refusal {
	whole := 0
	for _, a := range w.arenas {
		if a.bad == nil {
			whole++
			continue
		}
		if !w.proved && !a.busy {
			return &refusal{w.name, fmt.Sprintf("the layout of this version is known from its sources only, and %v does not follow it (%v)", a, a.bad)}
		}
		w.doubts = append(w.doubts, fmt.Sprintf("%v is left out: %v; none of its blocks is called lost", a, a.bad))
	}
	if whole == 0 && len(w.arenas) > 0 {
		return &refusal{w.name, strings.Join(w.doubts, "; ")}
	}
	if !w.proved && len(w.doubts) > 0 {
		return &refusal{w.name, "the layout of this version is known from its sources only, and not all of it was found: " + strings.Join(w.doubts, "; ")}
	}
	return nil
}
