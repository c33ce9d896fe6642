package heap

import (
	"errors"
	"fmt"
	"math/bits"
)

// Chunks in the fast bins and in the caches of threads look allocated: the bit
// that says so stays set. Both are singly linked lists.

// count gives how often bin i of a thread cache was counted; b is the struct.
func (l *cacheLayout) count(b []byte, i int) int {
	if l.counts == 1 {
		return int(b[i])
	}
	return int(order.Uint16(b[2*i:]))
}

// head gives the first block of bin i.
func (l *cacheLayout) head(b []byte, i int) uint64 { return load(b[l.counts*l.bins+8*i:]) }

// fits reports whether a chunk of this size may hold the struct: 16 bytes that
// are left over stay with a chunk.
func (l *cacheLayout) fits(size uint64) bool { return size == l.chunk || size == l.chunk+16 }

// size is the length of the struct.
func (l *cacheLayout) size() int { return (l.counts + 8) * l.bins }

// plausible reports whether b may be a thread cache that holds a block: no
// count is above most, and where an address is, something is counted, but for
// one bin that may be in change. A thread that ends empties its cache and leaves
// the counts as they are. exact says that counts and addresses agree everywhere,
// as they hardly do in anything else.
func (l *cacheLayout) plausible(b []byte, most int) (may, exact bool) {
	heads, odd, stale := 0, 0, 0
	for i := range l.bins {
		h, n := l.head(b, i), l.count(b, i)
		if h&15 != 0 || h >= userEnd || n > most {
			return false, false
		}
		if l.down {
			n = most - n
		}
		switch {
		case h != 0 && n == 0:
			odd++
		case h == 0 && n != 0:
			stale++
		}
		if h != 0 {
			heads++
		}
	}
	// Since 2.42 large bins may have no places at all.
	return heads > 0 && (odd <= 1 || l.down), odd == 0 && stale == 0
}

// holds reports whether bin i keeps chunks of this size.
func (l *cacheLayout) holds(i int, size uint64) bool {
	if i < smallBins {
		return size == minChunk+16*uint64(i)
	}
	// Since 2.42: one bin for each power of two above the small sizes.
	const smallMax = minChunk + 16*(smallBins-1)
	return size > smallMax && i == smallBins+bits.LeadingZeros32(smallMax)-bits.LeadingZeros32(uint32(size))
}

// reveal gives the successor that a block at user address a names.
func (l *layout) reveal(a, word uint64) uint64 {
	if l.safe {
		return a>>12 ^ word
	}
	return word
}

// drainFast takes the chunks of an arena's fast bins off the allocated ones.
func (w *walk) drainFast(a *arena) error {
	for i, chunk := range a.fast {
		size := minChunk + 16*uint64(i)
		for chunk != 0 {
			sp, ok := w.space.isBlock(chunk)
			if !ok || w.arenas[sp.arena] != a {
				return fmt.Errorf("fast bin %d holds %#x, which is no chunk of it: %w", i, chunk, errNotAllocator)
			}
			h, err := w.pages.word(chunk + 8)
			if err != nil {
				return err
			}
			if h&^sizeFlags != size {
				return fmt.Errorf("fast bin %d holds a chunk of %#x bytes at %#x: %w", i, h&^sizeFlags, chunk, errNotAllocator)
			}
			w.release(sp, chunk, size)
			user := chunk + headerSize
			word, err := w.pages.word(user)
			if err != nil {
				return err
			}
			chunk = w.lay.reveal(user, word)
		}
	}
	return nil
}

// release takes one chunk off the allocated ones.
func (w *walk) release(sp *span, chunk, size uint64) {
	sp.setBlock(w.space.cells.s, chunk, false)
	t := &w.arenas[sp.arena].count
	t.blocks--
	t.bytes -= size - 8
	t.free += size
}

// cached is what one thread cache was found to hold.
type cached struct {
	at     uint64        // user address of the struct
	blocks []cachedBlock // those of arenas that are left out, too
	broken bool          // a list leads to what is no block
	odd    int           // lists that are not as long as is counted
}

type cachedBlock struct {
	user uint64
	size uint64 // of the chunk
	key  uint64 // its second word
}

const maxCached = 1 << 16 // tcache_count has 16 bits at most

// readCache reads the lists of the thread cache in the chunk at at.
func (w *walk) readCache(at uint64) (*cached, error) {
	l := &w.lay.cache
	b := make([]byte, l.size())
	c := &cached{at: at + headerSize}
	if err := w.pages.read(b, c.at); err != nil {
		return nil, err
	}
	for i := range l.bins {
		n, err := w.readBin(c, i, l.head(b, i))
		if err != nil {
			return nil, err
		}
		if !l.down && n != l.count(b, i) {
			c.odd++
		}
	}
	return c, nil
}

// readBin reads one list, as far as it leads through blocks of the right size.
func (w *walk) readBin(c *cached, bin int, user uint64) (n int, err error) {
	for ; user != 0; n++ {
		chunk := user - headerSize
		if _, ok := w.space.isBlock(chunk); !ok && !w.isMapped(chunk) && !w.leftOut(chunk) {
			c.broken = true
			return n, nil
		}
		size, err1 := w.pages.word(chunk + 8)
		next, err2 := w.pages.word(user)
		key, err3 := w.pages.word(user + 8)
		if err := errors.Join(err1, err2, err3); err != nil {
			return n, err
		}
		size &^= sizeFlags
		if !w.lay.cache.holds(bin, size) || len(c.blocks) == maxCached {
			c.broken = true
			return n, nil
		}
		c.blocks = append(c.blocks, cachedBlock{user, size, key})
		user = w.lay.reveal(user, next)
	}
	return n, nil
}

// sure reports whether this is a thread cache. Since 2.29 its blocks bear a
// key, and most must; a program may have written to some after it freed them.
// Before, the lists must be as long as is counted, but for one.
func (w *walk) sure(c *cached) bool {
	if len(c.blocks) == 0 {
		return false
	}
	switch w.lay.cache.key {
	case keyCache:
		return c.keyed(c.at)
	case keyRandom:
		for key := range w.keys {
			if c.keyed(key) {
				return true
			}
		}
		return false
	}
	return !c.broken && c.odd <= 1
}

// keyed reports whether most blocks bear key.
func (c *cached) keyed(key uint64) bool {
	n := 0
	for _, b := range c.blocks {
		if b.key == key {
			n++
		}
	}
	return 2*n > len(c.blocks)
}

// findKeys finds out by what cached blocks can be told: in all that may be
// caches. For a random key that is the word that most blocks have.
func (w *walk) findKeys(all []*cached) {
	votes := map[uint64]int{}
	for _, c := range all {
		switch w.lay.cache.key {
		case keyCache:
			w.keys[c.at] = true
		case keyRandom:
			for _, b := range c.blocks {
				votes[b.key]++
			}
		}
	}
	var key uint64
	for k, n := range votes {
		if k != 0 && (n > votes[key] || key == 0) {
			key = k
		}
	}
	if key != 0 {
		w.keys[key] = true
	}
}

// drainCaches takes what the caches of threads hold off the allocated blocks,
// and the structs themselves, which are the allocator's own. A candidate that
// is none is an ordinary block. Should it be a cache in truth, the blocks in it
// bear the key, and no such block is ever called lost; but a key must be known
// for that.
func (w *walk) drainCaches(candidates []uint64) error {
	var all []*cached
	for _, at := range candidates {
		if _, ok := w.space.isBlock(at); !ok {
			continue // a free one, as was found meanwhile
		}
		c, err := w.readCache(at)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	w.findKeys(all)
	for _, c := range all {
		if w.sure(c) {
			if err := w.drain(c); err != nil {
				return err
			}
			continue
		}
		if len(w.keys) == 0 && w.surelyCache(c.at-headerSize) {
			return fmt.Errorf("thread cache at %#x: %w", c.at, errNotAllocator)
		}
	}
	return nil
}

// drain takes the blocks of one cache off the allocated ones.
func (w *walk) drain(c *cached) error {
	for _, b := range c.blocks {
		chunk := b.user - headerSize
		switch sp, ok := w.space.isBlock(chunk); {
		case ok:
			w.release(sp, chunk, b.size)
		case w.isMapped(chunk):
			w.unused[chunk] = true
		case !w.leftOut(chunk):
			return fmt.Errorf("thread cache at %#x: block %#x is in two lists: %w", c.at, b.user, errNotAllocator)
		}
	}
	if c.broken {
		w.doubts = append(w.doubts, "the cache of a thread is damaged; some blocks that are free may count as allocated")
	}
	chunk := c.at - headerSize
	size, err := w.pages.word(chunk + 8)
	if err != nil {
		return err
	}
	if sp, ok := w.space.isBlock(chunk); ok {
		w.release(sp, chunk, size&^sizeFlags)
	}
	return nil
}

// surelyCache reports whether the chunk at at can hardly be anything but a
// thread cache.
func (w *walk) surelyCache(at uint64) bool {
	b := make([]byte, w.lay.cache.size())
	if w.pages.read(b, at+headerSize) != nil {
		return false
	}
	may, exact := w.lay.cache.plausible(b, w.mostCached())
	return may && exact
}

// mostCached bounds the counts of a thread cache: the tunable tcache_count.
func (w *walk) mostCached() int {
	if w.par != nil && w.par.cacheSize > 0 {
		return int(w.par.cacheSize)
	}
	return maxCached
}
