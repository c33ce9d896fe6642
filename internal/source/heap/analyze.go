package heap

import (
	"context"
	"runtime"
	"sync"

	"stanch/internal/leak"
)

// Result is what one image says. Close gives its memory back.
type Result struct {
	Allocator  string // "glibc 2.36", "jemalloc", "unknown"
	Walked     bool   // its structures were understood and walked completely
	Why        string // when not Walked, a sentence that says why not
	Blocks     uint64 // allocated blocks
	Bytes      uint64 // their usable bytes
	Free       uint64 // bytes in free chunks and caches
	LostBlocks uint64
	LostBytes  uint64
	Direct     uint64 // of the lost blocks, those that no lost block leads to
	ReadBytes  uint64
	Doubts     []string // what weakens it
	Held       []leak.Held

	img   *Image
	opts  Options
	space *space
	graph *graph
	lost  *lost
}

// Analyze walks the heaps of an image and decides over every block. What it
// cannot walk is no error: the result says so and holds no verdicts. An error
// means that the image could not be read to its end.
func Analyze(ctx context.Context, img *Image, o Options) (*Result, error) {
	return analyze(ctx, img, o, nil)
}

// analyze is Analyze; only, when not nil, is where the only thread is.
func analyze(ctx context.Context, img *Image, o Options, only *answer) (*Result, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if progress := o.Progress; progress != nil {
		var mu sync.Mutex
		o.Progress = func(stage string, done, total uint64) {
			mu.Lock()
			defer mu.Unlock()
			progress(stage, done, total)
		}
	}
	if o.Atlas != nil {
		o.Atlas.Update(img.Maps)
	}
	r := &Result{img: img, opts: o}
	err := r.analyze(ctx, only)
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Result) analyze(ctx context.Context, only *answer) error {
	w := &walk{ctx: ctx, img: r.img, workers: r.opts.Workers, say: r.opts.Progress, only: only}
	refused, err := w.run()
	r.space = w.space
	if err != nil {
		return err
	}
	if refused != nil {
		r.Allocator, r.Why = refused.allocator, refused.why
		return nil
	}
	r.Allocator = w.name
	if r.graph, err = newGraph(w); err != nil {
		return err
	}
	if err := r.graph.build(); err != nil {
		return err
	}
	m, err := newMarker(r.graph)
	if err != nil {
		return err
	}
	defer m.stack.free()
	w.tell("following pointers")
	doubts, err := m.reach(w.roots(), &r.opts)
	if err != nil {
		return err
	}
	if r.lost, err = findLost(r.graph); err != nil {
		return err
	}
	r.Walked, r.Why = true, ""
	r.Doubts = append(w.doubts, doubts...)
	r.Held = m.holders(&r.opts)
	r.Direct = r.lost.direct
	r.ReadBytes = w.read + r.graph.read.Load()
	return r.sum(w)
}

// sum adds up blocks and bytes.
func (r *Result) sum(w *walk) error {
	for _, a := range w.arenas {
		if a.bad == nil {
			r.Blocks += a.count.blocks
			r.Bytes += a.count.bytes
			r.Free += a.count.free
		}
	}
	r.Free += w.unusedBytes
	for i := range r.space.single {
		r.Blocks++
		r.Bytes += r.space.where(r.space.heaps + uint32(i)).size
	}
	return r.countLost()
}

// countLost adds up what is lost.
func (r *Result) countLost() error {
	r.LostBlocks, r.LostBytes = uint64(r.lost.n), 0
	return r.lost.places(func(_ uint32, p place) error {
		r.LostBytes += p.size
		return nil
	})
}

// Close gives the memory of the result back. It may be called twice.
func (r *Result) Close() {
	if r.space != nil {
		r.space.free()
	}
	if r.graph != nil {
		r.graph.free()
	}
	if r.lost != nil {
		r.lost.free()
	}
}
