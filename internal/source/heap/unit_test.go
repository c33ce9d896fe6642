package heap

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"stanch/internal/leak"
)

// TestSpace holds the map from addresses to blocks against a plain list.
func TestSpace(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	s := &space{}
	defer s.free()
	type chunk struct {
		at, size uint64
		block    bool
	}
	var chunks []chunk
	starts := []uint64{0x555500000010, 0x7f0000000030, 0x7f00040008d0}
	const length = 3 << 20
	for i, start := range starts {
		s.spans = append(s.spans, span{start: start, end: start + length, cell: i * (length / cellSpan), arena: i})
	}
	var err error
	if s.cells, err = newArray[cell](len(starts) * length / cellSpan); err != nil {
		t.Fatal(err)
	}
	for i := range starts {
		sp := &s.spans[i]
		for at := sp.start; at < sp.end; {
			size := uint64(32 + 16*rnd.IntN(8))
			if rnd.IntN(200) == 0 {
				size = uint64(16 * rnd.IntN(20000))
			}
			size = min(max(size, 32), sp.end-at)
			c := chunk{at, size, rnd.IntN(4) > 0}
			sp.mark(s.cells.s, at)
			sp.setBlock(s.cells.s, at, c.block)
			chunks = append(chunks, c)
			at += size
		}
	}
	s.spans = append(s.spans, span{start: 0x7f1000000000, end: 0x7f1000030000 - headerSize, cell: -1, arena: -1},
		span{start: 0x7f10000300f0, end: 0x7f1000080000 - headerSize, cell: -1, arena: -1})
	s.locate()
	if err := s.number(); err != nil {
		t.Fatal(err)
	}
	want := uint32(0)
	for _, c := range chunks {
		for _, p := range []uint64{c.at + 16, c.at + 17, c.at + c.size/2 + 16, c.at + c.size + 8, c.at + c.size + 15} {
			id, ok := s.lookup(p)
			if ok != c.block || ok && id != want {
				t.Fatalf("%#x in chunk %+v: block %d %v, not %d %v", p, c, id, ok, want, c.block)
			}
		}
		if s.startsAt(c.at+16) != c.block || s.startsAt(c.at+32) && c.size > 32 {
			t.Fatalf("chunk %+v: where it starts", c)
		}
		if c.block {
			if p := s.where(want); p != (place{c.at + 16, c.size - 8}) {
				t.Fatalf("block %d is at %+v, not %+v", want, p, c)
			}
			want++
		}
	}
	if want != s.heaps || s.total != want+2 {
		t.Errorf("%d blocks in heaps, %d in all, not %d and 2 more", s.heaps, s.total, want)
	}
	for p, id := range map[uint64]uint32{0x7f1000000010: want, 0x7f100002ffff: want, 0x7f1000030100: want + 1} {
		if got, ok := s.lookup(p); !ok || got != id {
			t.Errorf("%#x: block %d %v, not %d", p, got, ok, id)
		}
	}
	for _, p := range []uint64{0, 8, 15, 0x7f1000000008, 0x7f1000030000, 0x5554ffffffff, 1 << 47, ^uint64(0)} {
		if id, ok := s.lookup(p); ok {
			t.Errorf("%#x: block %d", p, id)
		}
	}
	var seen []uint32
	for i := range s.spans {
		if sp := &s.spans[i]; sp.cell >= 0 {
			for from := sp.start; from < sp.end; from += 70000 &^ 15 {
				s.each(sp, from, min(from+70000&^15, sp.end), func(id uint32, p place) bool {
					seen = append(seen, id)
					return true
				})
			}
		}
	}
	if len(seen) != int(want) || !slices.IsSorted(seen) {
		t.Errorf("%d blocks seen one by one, not %d", len(seen), want)
	}
}

func TestRanges(t *testing.T) {
	r := func(v ...leak.Addr) (out []leak.Range) {
		for i := 0; i < len(v); i += 2 {
			out = append(out, leak.Range{Start: v[i], End: v[i+1]})
		}
		return out
	}
	for _, c := range []struct{ all, taken, left []leak.Range }{
		{r(10, 20), nil, r(10, 20)},
		{r(10, 20), r(0, 10, 20, 30), r(10, 20)},
		{r(10, 20), r(12, 14, 13, 15), r(10, 12, 15, 20)},
		{r(10, 20, 30, 40), r(15, 35), r(10, 15, 35, 40)},
		{r(10, 20), r(5, 25), nil},
		{r(10, 20), r(10, 11, 19, 20, 2, 3), r(11, 19)},
	} {
		if got := subtract(c.all, slices.Clone(c.taken)); !slices.Equal(got, c.left) {
			t.Errorf("%v without %v: %v, not %v", c.all, c.taken, got, c.left)
		}
	}
	if got := union(r(5, 6, 1, 3, 2, 4, 4, 5, 9, 9)); !slices.Equal(got, r(1, 6)) {
		t.Errorf("union: %v", got)
	}
}

func TestBanner(t *testing.T) {
	for text, want := range map[string]int{
		"GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\n": 36,
		"GNU C Library (GNU libc) development release version 2.42.9000.\n":           42,
		"GNU C Library (Ubuntu GLIBC 2.31-0ubuntu9) stable release version 2.31.\n":   31,
		"musl libc (x86_64)\nVersion 1.2.3\n":                                         0,
		"stable release version 3.1.":                                                 0,
		"":                                                                            0,
	} {
		if got := banner([]byte(text)); got != want {
			t.Errorf("%q: %d, not %d", text, got, want)
		}
	}
}

// flat is a memory of a few ranges.
type flat struct {
	maps []leak.Mapping
	data [][]byte
}

func (f *flat) add(start leak.Addr, path string, write bool, data []byte) {
	data = append(data, make([]byte, -len(data)&(pageSize-1))...)
	m := leak.Mapping{Start: start, End: start + leak.Addr(len(data)), Read: true, Write: write, Path: path}
	if path != "" && path[0] == '/' {
		m.Inode = 1
	}
	f.maps = append(f.maps, m)
	f.data = append(f.data, data)
}

func (f *flat) ReadAt(p []byte, a leak.Addr) (int, error) {
	done := 0
	for done < len(p) {
		i := findMap(f.maps, uint64(a)+uint64(done))
		if i < 0 {
			return done, io.ErrUnexpectedEOF
		}
		done += copy(p[done:], f.data[i][a+leak.Addr(done)-f.maps[i].Start:])
	}
	return done, nil
}

// garbage makes a process of two files and some memory from any bytes.
func garbage(b []byte) *Image {
	cut := func(n int) []byte {
		n = min(n, len(b))
		part := b[:n]
		b = b[n:]
		return slices.Clone(part)
	}
	f := &flat{}
	f.add(0x400000, "/bin/program", false, cut(500))
	f.add(0x401000, "/bin/program", true, cut(3000))
	f.add(0x555500000000, "", true, cut(8000))
	f.add(0x7f0000000000, "", true, cut(8000))
	f.add(0x7f0004000000, "/lib/libc.so.6", true, cut(8000))
	f.add(0x7ffc00000000, "[stack]", true, cut(4000))
	return &Image{Mem: f, Maps: f.maps, Threads: []Thread{{TID: 1, PC: 0x400010, SP: 0x7ffc00000100, FSBase: 0x7f0000001000}}}
}

// FuzzGarbage analyzes memory that no process has. It must not panic, and must
// not fail either: what is no heap is not walked.
func FuzzGarbage(f *testing.F) {
	le := binary.LittleEndian
	b := make([]byte, 32000)
	const arena = 0x7f0004000100
	at := func(a uint64) []byte { return b[500+3000+8000+8000+a-0x7f0004000000:] }
	for i := uint64(0); i < binCount; i++ {
		le.PutUint64(at(arena+112+16*i), arena+112+16*i-16)
		le.PutUint64(at(arena+120+16*i), arena+112+16*i-16)
	}
	le.PutUint64(at(arena+2160), arena)
	le.PutUint64(at(arena+96), 0x555500000000)
	le.PutUint64(at(arena+2184), 0x1000)
	f.Add(b)
	copy(b[100:], "stable release version 2.36.")
	f.Add(bytes.Clone(b))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		slow := time.AfterFunc(patience, func() { panic("it does not end") })
		defer slow.Stop()
		r, err := Analyze(context.Background(), garbage(b), Options{Workers: 1})
		if err != nil {
			return
		}
		defer r.Close()
		if err := r.Emit(newBook(), Look{}); err != nil {
			t.Error(err)
		}
	})
}

// FuzzFunctions reads what a file may say of its functions.
func FuzzFunctions(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		m := &flat{}
		m.add(0x400000, "/bin/program", false, b)
		m.add(0x7ffc00000000, "[stack]", true, nil)
		if len(m.maps) > 0 && m.maps[0].End > m.maps[0].Start {
			img := &Image{Mem: m, Maps: m.maps}
			img.functions(&m.maps[0])
			img.staticTLS()
		}
	})
}
