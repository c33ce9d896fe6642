package heap

import (
	"context"
	"math/rand/v2"
	"os"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// damaged is a memory with some words changed.
type damaged struct {
	leak.Memory
	words map[uint64]uint64
}

func (d damaged) ReadAt(p []byte, a leak.Addr) (int, error) {
	n, err := d.Memory.ReadAt(p, a)
	for at, w := range d.words {
		for i := range uint64(8) {
			if k := at + i - uint64(a); k < uint64(n) {
				p[k] = byte(w >> (8 * i))
			}
		}
	}
	return n, err
}

// structures lists the words of an image that are the allocator's own: the
// arenas, the headers of their heaps and of chunks, the links of free ones, and
// the caches of threads.
func structures(tb testing.TB, img *Image) []uint64 {
	tb.Helper()
	w := &walk{ctx: context.Background(), img: img, workers: 1}
	if refused, err := w.run(); refused != nil || err != nil {
		tb.Fatal(refused, err)
	}
	defer w.space.free()
	var words []uint64
	add := func(from, to uint64) {
		for a := from &^ 7; a < to; a += 8 {
			words = append(words, a)
		}
	}
	for _, a := range w.arenas {
		add(a.addr, a.addr+a.state.size)
	}
	add(w.par.addr, w.par.addr+w.lay.par.size)
	for _, r := range w.own {
		if !img.Maps[findMap(img.Maps, uint64(r.Start))].File() && r.End-r.Start < pageSize {
			add(uint64(r.Start), uint64(r.End))
		}
	}
	cells := w.space.cells.s
	for i := range w.space.spans {
		sp := &w.space.spans[i]
		if sp.cell < 0 {
			add(sp.start, sp.start+headerSize)
			continue
		}
		for a := sp.start; a < sp.end; a += 16 {
			off := (a - sp.start) >> 4
			c := &cells[sp.cell+int(off>>6)]
			if c.edge>>(off&63)&1 == 0 {
				continue
			}
			add(a, a+headerSize)
			if c.block>>(off&63)&1 == 0 {
				add(a+headerSize, a+minChunk)
			}
		}
	}
	return words
}

// damage analyzes an image with some of the allocator's words changed. It must
// not panic, and what it then calls lost must be lost: a walk that does not
// notice may only miss something.
func damage(tb testing.TB, c fixture.Core, img *Image, words []uint64, seed uint64) (walked bool) {
	tb.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	d := damaged{img.Mem, map[uint64]uint64{}}
	for range 1 + rnd.IntN(3) {
		at := words[rnd.IntN(len(words))]
		old := make([]byte, 8)
		if err := readFull(img.Mem, old, at); err != nil {
			continue
		}
		w := load(old)
		switch rnd.IntN(6) {
		case 0:
			w ^= 1 << rnd.IntN(64)
		case 1:
			w = rnd.Uint64()
		case 2:
			w = 0
		case 3:
			w += 16 * uint64(rnd.IntN(64))
		case 4:
			w = words[rnd.IntN(len(words))]
		case 5:
			w ^= uint64(rnd.IntN(8))
		}
		d.words[at] = w
	}
	hurt := *img
	hurt.Mem = d
	r, err := Analyze(context.Background(), &hurt, Options{Workers: 1})
	if err != nil {
		return false
	}
	defer r.Close()
	b := newBook()
	if err := r.Emit(b, Look{}); err != nil {
		return false
	}
	for id, v := range b.verdicts {
		if _, lost := c.Blocks.Lost[id]; !lost {
			tb.Errorf("%s, seed %d, %#x: false leak: %#x of %d bytes; %s %q", c.Name, seed, d.words, id, v.Size, r.Why, r.Doubts)
		}
	}
	return r.Walked && len(r.Doubts) == 0
}

// TestDamage changes words in the structures of real heaps.
func TestDamage(t *testing.T) {
	for _, c := range fixture.Cores(t) {
		img := coreImage(t, c)
		words := structures(t, img)
		noticed := 0
		tries := 6
		if os.Getenv("STANCH_LONG") == "1" {
			tries = 400
		}
		for seed := range tries {
			if !damage(t, c, img, words, uint64(seed)) {
				noticed++
			}
		}
		t.Logf("%s: %d of %d noticed, %d words", c.Name, noticed, tries, len(words))
	}
}

// FuzzDamage is TestDamage for as long as one likes.
func FuzzDamage(f *testing.F) {
	cores := fixture.Cores(f)
	images := make([]*Image, len(cores))
	words := make([][]uint64, len(cores))
	for i, c := range cores {
		images[i] = coreImage(f, c)
		words[i] = structures(f, images[i])
	}
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		i := int(seed % uint64(len(cores)))
		damage(t, cores[i], images[i], words[i], seed)
	})
}
