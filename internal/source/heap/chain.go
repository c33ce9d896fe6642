package heap

import (
	"errors"
	"fmt"

	"stanch/internal/leak"
)

// chain walks the chunks of one heap in the order of their addresses and
// checks each against its neighbours.
type chain struct {
	ar     *arena
	sp     *span
	cells  []cell
	win    *window
	caches []cacheLayout // that a thread cache may have
	most   int           // blocks in one list of a thread cache

	prev header // the chunk before, of which is not decided yet whether it is allocated
	sums sums
	tally
	candidates []uint64 // chunks that may hold a thread cache
	gaps       []leak.Range
	leadsLeft  int
}

// header is what is known of a chunk. fd and bk mean something when it is free.
type header struct {
	at, size uint64
	flags    uint64
	fd, bk   uint64
	cache    bool // looks like a thread cache
}

// sums compare sets of addresses without an order: what the free chunks and
// the bins are, against what their links point to. When every list is as it
// should be, each chunk and each bin is pointed to once by a fd and once by a
// bk, and all three sums are equal.
type sums struct{ nodes, fd, bk uint64 }

func (s *sums) add(at, fd, bk uint64) {
	s.nodes += scatter(at)
	s.fd += scatter(fd)
	s.bk += scatter(bk)
}

func (s *sums) join(o sums) {
	s.nodes += o.nodes
	s.fd += o.fd
	s.bk += o.bk
}

// scatter spreads an address over 64 bits (the finalizer of MurmurHash3), so
// that sums of different sets differ.
func scatter(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

var errNotAllocator = errors.New("not what the allocator writes")

// broken is the error of a chunk that cannot be one.
func broken(h header, format string, args ...any) error {
	return fmt.Errorf("chunk at %#x: %s: %w", h.at, fmt.Sprintf(format, args...), errNotAllocator)
}

// walk goes from the first chunk to the end of the heap. It ends well at the
// arena's top chunk, and where the heap was left for another one: at its last
// fencepost.
func (c *chain) walk() error {
	for at := c.sp.start; ; {
		h, prevSize, err := c.read(at)
		if err != nil {
			return err
		}
		switch {
		case at == c.ar.top:
			return c.end(h, prevSize)
		case h.size == 0 && !c.ar.main:
			// An old heap's last fencepost: sysmalloc sets the head of the very
			// end to 0|PREV_INUSE. What lies before it is a fencepost too, or a
			// remainder too small to free.
			if at+headerSize != c.sp.end || h.flags != prevInUse {
				return broken(h, "a fencepost in the middle")
			}
			return nil
		case h.size == headerSize:
			next, err := c.fence(h, prevSize)
			if err != nil || next == 0 {
				return err
			}
			at = next
			continue
		case h.size < minChunk || h.size&15 != 0 || h.size >= c.sp.end-at:
			return broken(h, "size %#x", h.size)
		case h.flags&isMmapped != 0:
			return broken(h, "marked as a mapping of its own")
		}
		if err := c.decide(h.flags&prevInUse != 0, prevSize); err != nil {
			return err
		}
		c.sp.mark(c.cells, at)
		h.cache = c.cacheLike(h)
		c.prev = h
		at += h.size
	}
}

// cacheLike reports whether the chunk may hold a thread cache in use.
func (c *chain) cacheLike(h header) bool {
	for _, l := range c.caches {
		if l.fits(h.size) {
			if b, err := c.win.at(h.at, int(h.size)); err == nil {
				if may, _ := l.plausible(b[headerSize:], c.most); may {
					return true
				}
			}
		}
	}
	return false
}

// read reads the header at a chunk address.
func (c *chain) read(at uint64) (h header, prevSize uint64, err error) {
	n := minChunk
	if at+minChunk > c.sp.end {
		n = headerSize
	}
	b, err := c.win.at(at, n)
	if err != nil {
		return h, 0, err
	}
	size := load(b[8:])
	h = header{at: at, size: size &^ sizeFlags, flags: size & sizeFlags}
	if n == minChunk {
		h.fd, h.bk = load(b[16:]), load(b[24:])
	}
	return h, load(b), nil
}

// end checks the top chunk.
func (c *chain) end(h header, prevSize uint64) error {
	if h.size != c.sp.end-h.at || h.size < headerSize {
		return broken(h, "the top chunk has %#x bytes, %#x are left", h.size, c.sp.end-h.at)
	}
	if h.flags&prevInUse == 0 {
		return broken(h, "a free chunk lies before the top chunk")
	}
	c.sp.mark(c.cells, h.at)
	c.free += h.size
	return c.decide(true, prevSize)
}

// fence handles a chunk of 16 bytes, which only fenceposts are. In a thread
// arena it ends the heap. In the main arena two of them end what sbrk gave
// before someone else moved the break; the chunks go on behind that, at next.
func (c *chain) fence(h header, prevSize uint64) (next uint64, err error) {
	if err := c.decide(h.flags&prevInUse != 0, prevSize); err != nil {
		return 0, err
	}
	c.sp.mark(c.cells, h.at)
	c.prev = header{}
	if !c.ar.main {
		last, _, err := c.read(h.at + headerSize)
		if err == nil && (last.size != 0 || last.flags != prevInUse || last.at+headerSize != c.sp.end) {
			err = broken(h, "a fencepost without its second half")
		}
		return 0, err
	}
	// Two of them; before them may be one that was too small a rest to free.
	for n := 1; ; n++ {
		at := h.at + uint64(n)*headerSize
		if at == c.sp.end && n > 1 {
			return 0, nil // a region of a main arena that is not contiguous
		}
		next, _, err := c.read(at)
		if err != nil {
			return 0, err
		}
		if next.size == headerSize && n < 4 {
			c.sp.mark(c.cells, at)
			continue
		}
		if n == 1 {
			return 0, broken(h, "a fencepost without its second half")
		}
		return c.resume(at)
	}
}

// decide settles what the chunk before is, by the bit that its successor
// keeps.
func (c *chain) decide(allocated bool, prevSize uint64) error {
	h := c.prev
	if h.at == 0 {
		if !allocated {
			return broken(h, "the first chunk says that a free one lies before it")
		}
		return nil
	}
	if !allocated {
		if prevSize != h.size || h.flags&prevInUse == 0 {
			return broken(h, "free, but its neighbours do not agree")
		}
		c.sums.add(h.at, h.fd, h.bk)
		c.free += h.size
		return nil
	}
	if (h.flags&nonMainArena != 0) == c.ar.main {
		return broken(h, "belongs to another arena")
	}
	c.sp.setBlock(c.cells, h.at, true)
	c.blocks++
	c.bytes += h.size - 8
	if h.cache {
		c.candidates = append(c.candidates, h.at)
	}
	return nil
}

const (
	// maxGap is how far the search for the next chunk goes behind a foreign
	// sbrk.
	maxGap = 256 << 20
	// maxLeads is how many places that look like a chunk are followed.
	maxLeads = 4096
)

// resume finds where the main arena goes on after someone else has used sbrk.
// The memory between is not the allocator's. Nothing says how long it is: the
// first place from which a chain of chunks leads to the top chunk is taken, and
// places at the start of a page before others, since most programs take whole
// pages.
func (c *chain) resume(from uint64) (uint64, error) {
	c.leadsLeft = maxLeads
	for _, step := range []uint64{pageSize, 16} {
		for at := (from + step - 1) &^ (step - 1); at < min(from+maxGap, c.ar.top+1) && c.leadsLeft > 0; at += step {
			if c.leads(at) {
				if at > from {
					c.gaps = append(c.gaps, leak.Range{Start: leak.Addr(from), End: leak.Addr(at)})
				}
				return at, nil
			}
		}
	}
	return 0, fmt.Errorf("no chunk follows the fencepost at %#x: %w", from, errNotAllocator)
}

// leads reports whether a chain of plausible chunks goes from at to the top
// chunk or to another fencepost. Its links must hold for a while at least.
func (c *chain) leads(at uint64) bool {
	const enough = 64
	for n := 0; n < enough; n++ {
		h, _, err := c.read(at)
		if err != nil {
			return false
		}
		if at == c.ar.top {
			return h.size == c.sp.end-at
		}
		if n == 0 && h.flags != prevInUse || h.flags&^prevInUse != 0 {
			return false
		}
		if h.size == headerSize {
			return n > 0
		}
		if h.size < minChunk || h.size&15 != 0 || h.size >= c.sp.end-at {
			return false
		}
		if n == 0 {
			c.leadsLeft--
		}
		at += h.size
	}
	return true
}
