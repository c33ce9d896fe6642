package probe

import (
	"os"
	"strconv"

	"stanch/internal/leak"
)

// Openers are who opened the descriptors of a program, for the one that it
// executes.
type Openers struct{ byNumber map[int]descriptor }

// Openers tells who opened what was open at the last look. It serves when the
// probe is gone already with the program that it was in.
func (p *Probe) Openers() *Openers {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &Openers{byNumber: make(map[int]descriptor, len(p.descriptors.said))}
	for n, d := range p.descriptors.said {
		if d.stack != 0 && d.link != "" {
			o.byNumber[n] = d
		}
	}
	return o
}

// inherited says how a descriptor came that was open before the probe.
func (p *Probe) inherited(n int) (call string, stack leak.StackID) {
	if o, ok := p.descriptors.first[n]; ok {
		return o.call, p.openerStack(o)
	}
	switch {
	case p.descriptors.first != nil:
		return "fork", 0
	case p.o.Openers == nil:
		return "", 0
	}
	if d, ok := p.o.Openers.byNumber[n]; ok {
		// Between that look and the exec the number may have become another's.
		if link, err := os.Readlink(p.t.Path("fd/" + strconv.Itoa(n))); err == nil && link == d.link {
			return "exec", d.stack
		}
	}
	return "exec", 0
}

func (p *Probe) openerStack(o opener) leak.StackID {
	if len(o.frames) == 0 {
		return 0
	}
	frames := make([]leak.Frame, len(o.frames))
	for i, at := range o.frames {
		frames[i] = p.watch.frame(p.o.Atlas, at-1)
	}
	return p.o.Atlas.Stack(frames)
}

// inherit reads who opened what a forked process has open, from its copy of its
// parent's probe. A fork wipes the state and leaves the books, which says so.
// Nothing is known when they cannot be read.
func (p *Probe) inherit(old *placed, mem leak.Memory) {
	if magicNow, err := get64(mem, old.state(wStateMagic)); err != nil || magicNow == magic || len(old.head.data) == 0 {
		return
	}
	at := old.head.data[0].start
	b, err := read(mem, at, wBooksSize)
	if err != nil {
		return
	}
	head, ok := decodeBooks(b)
	fds := order.Uint64(b[wBooksFds:])
	n := min(head.fdsCount(), 1<<20)
	if !ok || n == 0 {
		return
	}
	words, err := read(mem, fds, 8*n)
	if err != nil {
		return
	}
	p.descriptors.first = map[int]opener{}
	known := map[uint32][]leak.Addr{}
	for i := range int(n) {
		w := fdWord(order.Uint64(words[8*i:]))
		if !w.open() {
			continue
		}
		frames, done := known[w.stack()]
		if !done {
			frames = head.framesOf(mem, order.Uint64(b[wBooksFrames:]), w.stack())
			known[w.stack()] = frames
		}
		p.descriptors.first[i] = opener{frames: frames, call: "fork"}
	}
}

// fdsCount is how many words of descriptors may not be zero.
func (h *bookHead) fdsCount() uint64 {
	if h == nil {
		return 0
	}
	return h.fdsEnd
}

// framesOf reads the return addresses of a stack.
func (h *bookHead) framesOf(mem leak.Memory, arena uint64, index uint32) []leak.Addr {
	if index < wStacksUnknown || uint64(index) >= h.stacksMax {
		return nil
	}
	b, err := read(mem, h.stacks+uint64(index)*wStackSize, wStackSize)
	if err != nil {
		return nil
	}
	first, n := uint64(order.Uint32(b[wStackFrames:])), uint64(b[wStackN])
	if n > wMaxFrames || first+n > h.framesMax {
		return nil
	}
	words, err := read(mem, arena+8*first, 8*n)
	if err != nil {
		return nil
	}
	frames := make([]leak.Addr, n)
	for i := range frames {
		frames[i] = leak.Addr(order.Uint64(words[8*i:]))
	}
	return frames
}
