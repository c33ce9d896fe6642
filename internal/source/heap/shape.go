package heap

import (
	"strings"
	"sync"

	"stanch/internal/leak"
)

// shapes tells what the first words of a block look like. It is for one
// goroutine; the types it asks about are shared.
type shapes struct {
	types *types
	known map[uint64]bool // answers of types
}

func newShapes(t *types) *shapes { return &shapes{types: t, known: map[uint64]bool{}} }

const smallNumber = 1 << 24

// of classifies a block by its start, at least 16 bytes of it; heap says that
// the first word is a pointer to a block. kind is the address of its type for
// ShapeType, else 0.
func (s *shapes) of(b []byte, heap bool) (shape leak.Shape, kind uint64) {
	w := load(b)
	switch {
	case heap:
		return leak.ShapePointer, 0
	case w == 0 && load(b[8:]) == 0:
		return leak.ShapeZero, 0
	case printable(b[:8]):
		return leak.ShapeText, 0
	case w < smallNumber:
		return leak.ShapeNumber, 0
	case w < userEnd && s.isType(w):
		return leak.ShapeType, w
	}
	return leak.ShapeOther, 0
}

func (s *shapes) isType(w uint64) bool {
	if w&7 != 0 {
		return false
	}
	yes, ok := s.known[w]
	if !ok {
		if len(s.known) > 1<<16 {
			clear(s.known)
		}
		yes = s.types.is(w)
		s.known[w] = yes
	}
	return yes
}

func printable(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// types knows which addresses in the files of the process stand for a type: a
// C++ vtable (objects point 16 bytes into it), a table of functions, a type
// descriptor. It may be used by several goroutines.
type types struct {
	maps  []leak.Mapping
	mu    sync.Mutex
	pages *pager
}

func (t *types) is(w uint64) bool {
	i := findMap(t.maps, w)
	if i < 0 || !t.maps[i].File() || t.maps[i].Exec || t.maps[i].Shared {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	first, err := t.pages.word(w)
	if err != nil {
		return false
	}
	if t.code(first) {
		return true
	}
	// The word before a vtable's functions points to its type information,
	// which begins with a vtable pointer of its own.
	if info, err := t.pages.word(w - 8); err == nil && info&7 == 0 && t.data(info) {
		if v, err := t.pages.word(info); err == nil && t.data(v) {
			return true
		}
	}
	// Data that nobody writes to is a constant: a descriptor, unless it is text.
	if t.maps[i].Write {
		return false
	}
	var b [8]byte
	return t.pages.read(b[:], w) == nil && !printable(b[:4]) && first != 0
}

func (t *types) code(a uint64) bool {
	i := findMap(t.maps, a)
	return i >= 0 && t.maps[i].Exec && !t.maps[i].Write
}

func (t *types) data(a uint64) bool {
	i := findMap(t.maps, a)
	return i >= 0 && t.maps[i].File() && !t.maps[i].Exec
}

// magicOf gives the index in leak.Magics of what b begins with, 0 for none.
func magicOf(b []byte) uint8 {
	for i := 1; i < len(leak.Magics) && i < 256; i++ {
		if m := leak.Magics[i].Bytes; m != "" && strings.HasPrefix(string(b[:min(len(b), len(m))]), m) {
			return uint8(i)
		}
	}
	return 0
}

// class is what blocks are counted by: usable bytes, shape and type.
type class struct {
	size  uint64
	shape leak.Shape
	kind  uint64
}

// classes numbers them. Number 0 is for what came after there were too many.
type classes struct {
	mu   sync.Mutex
	ids  map[class]uint16
	list []class
}

func newClasses() *classes {
	return &classes{ids: map[class]uint16{}, list: make([]class, 1)}
}

func (c *classes) id(k class) uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.ids[k]
	if !ok && len(c.list) < 1<<16 {
		id = uint16(len(c.list))
		c.ids[k] = id
		c.list = append(c.list, k)
	}
	return id
}

// classCache is one goroutine's memory of class numbers.
type classCache struct {
	of   *classes
	keys [256]class
	ids  [256]uint16
}

func (c *classCache) id(k class) uint16 {
	slot := scatter(k.size^k.kind<<8^uint64(k.shape)<<56) & 255
	if c.keys[slot] == k {
		return c.ids[slot]
	}
	id := c.of.id(k)
	c.keys[slot], c.ids[slot] = k, id
	return id
}
