package probe

import (
	"fmt"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/ptrace"
)

// TestSnapshot reads the books from a snapshot: they match the heap at that
// moment, whatever the target did since.
func TestSnapshot(t *testing.T) {
	prog := fixture.Start(t, fixture.Build(t, "direct", "-O2"))
	wants := fixture.Wants(t, "direct")
	o := options()
	for _, w := range wants {
		o.Aim.Sizes = append(o.Aim.Sizes, leak.SizeRange{Min: w.Size, Max: w.Size})
	}
	tr := place(t, prog, o)
	prog.Ask("leak 30", "ok")
	prog.Ask("keep 30", "ok")
	s, err := ptrace.Start(t.Context(), tr.p.t, ptrace.Options{MaxPause: o.MaxPause})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(ptrace.SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	at := prog.Blocks()
	prog.Ask("free 30", "ok")
	prog.Ask("leak 30", "ok")
	tr.p.watch.maps = snap.Maps()
	tr.p.o.Atlas.Update(snap.Maps())
	if err := tr.p.Books(snap, tr.seen); err != nil {
		t.Fatal(err)
	}
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
	have := map[uint64]bool{}
	for _, a := range tr.seen.acquired {
		have[a.Ref.ID] = true
		if at.Lost[a.Ref.ID] != a.Size && at.Kept[a.Ref.ID] != a.Size {
			t.Errorf("a record of %d bytes at %#x was no block then", a.Size, a.Ref.ID)
		}
	}
	missing := 0
	for addr, size := range at.Lost {
		if !have[addr] && tr.p.o.Aim.Aimed(size) {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d lost blocks are missing", missing, len(at.Lost))
	}
}

// FuzzLeftovers: whatever stands in a target where our header may be.
func FuzzLeftovers(f *testing.F) {
	h := header{version: wProbeVersion, textSize: 1, nearSize: pageSize, data: []region{{pageSize, pageSize}},
		patches: []patch{{at: 0x1000, target: 0x2000, old: []byte{1, 2, 3, 4, 5}}}}
	f.Add(h.encode())
	f.Add([]byte("stanch"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := decodeHeader(b)
		if !ok {
			return
		}
		for i := range h.patches {
			if n := len(h.patches[i].old); n < jumpSize || n > patchBytes {
				t.Fatalf("a patch of %d bytes", n)
			}
		}
		again, ok := decodeHeader(h.encode())
		if !ok || fmt.Sprint(*again) != fmt.Sprint(*h) {
			t.Fatalf("%+v becomes %+v", h, again)
		}
	})
}

// FuzzBooks: whatever stands in the books.
func FuzzBooks(f *testing.F) {
	f.Add(make([]byte, wBucketSize))
	f.Add(make([]byte, wStackSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &Probe{}
		p.books.means = make([]uint64, wMeans)
		if len(b) >= wRecSize {
			if r, ok := p.record(b); ok && r.addr&1 != 0 {
				t.Fatalf("an odd address %#x", r.addr)
			}
		}
		if len(b) >= wStackSize {
			decodeStack(b, 0)
			decodeStack(b, 2)
		}
		decodeBooks(b)
		sumSlots(b)
	})
}
