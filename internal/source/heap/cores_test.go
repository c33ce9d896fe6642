package heap

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
)

// coreImage opens a core of testdata/cores. Its libc, or the static program, is
// the file beside it; no other file is there.
func coreImage(tb testing.TB, c fixture.Core) *Image {
	tb.Helper()
	core, err := proc.OpenCore(c.Path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = core.Close() })
	img := &Image{Mem: core, Maps: core.Maps(), OpenFile: func(m *leak.Mapping) (File, error) {
		base := filepath.Base(m.Path)
		if strings.HasPrefix(base, "libc.so") || strings.HasPrefix(base, "libc-2") || strings.HasSuffix(c.Name, "-static") {
			return os.Open(c.Libc)
		}
		return nil, os.ErrNotExist
	}}
	for _, th := range core.Threads() {
		img.Threads = append(img.Threads, threadOf(th.TID, &th.Regs))
	}
	return img
}

// TestCores holds the walk of every version against what the program in the
// core says of its blocks.
func TestCores(t *testing.T) {
	for _, c := range fixture.Cores(t) {
		t.Run(c.Name, func(t *testing.T) {
			r, err := Analyze(context.Background(), coreImage(t, c), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			t.Logf("%s: %d blocks of %d bytes, free %d, lost %d, direct %d", r.Allocator, r.Blocks, r.Bytes, r.Free, r.LostBlocks, r.Direct)
			if !r.Walked || len(r.Doubts) > 0 {
				t.Errorf("not walked, or with doubts: %q %q", r.Why, r.Doubts)
			}
			if !strings.HasPrefix(r.Allocator, "glibc") {
				t.Errorf("allocator: %s", r.Allocator)
			}
			b := newBook()
			if err := r.Emit(b, Look{N: 1, Single: true}); err != nil {
				t.Fatal(err)
			}
			agree(t, b, c.Blocks, 0.995)
			for _, said := range []struct {
				what       string
				said, seen uint64
			}{
				{"lost blocks", r.LostBlocks, uint64(len(b.verdicts))},
				{"directly lost", r.Direct, b.count(leak.LostDirect)},
				{"bytes of lost blocks", r.LostBytes, b.bytes()},
			} {
				if said.said != said.seen {
					t.Errorf("%s: the look says %d, the verdicts %d", said.what, said.said, said.seen)
				}
			}
		})
	}
}

// TestProved holds the table of proved versions against the cores that are
// there.
func TestProved(t *testing.T) {
	have := map[int]bool{}
	for _, c := range fixture.Cores(t) {
		var minor int
		if _, err := fmt.Sscanf(c.Glibc, "2.%d", &minor); err != nil {
			t.Errorf("%s: no version: %v", c.Name, err)
		}
		have[minor] = true
	}
	for minor := range proved {
		if !have[minor] {
			t.Errorf("no core proves glibc 2.%d", minor)
		}
		if layoutOf(minor) == nil {
			t.Errorf("glibc 2.%d has no layout", minor)
		}
	}
	for minor := range have {
		if !proved[minor] {
			t.Errorf("there is a core of glibc 2.%d, but it does not count as proved", minor)
		}
	}
}

// TestUnproved walks cores as if no core proved their version: all checks pass,
// so the conclusions are the same.
func TestUnproved(t *testing.T) {
	was := proved
	proved = map[int]bool{}
	defer func() { proved = was }()
	for _, c := range fixture.Cores(t) {
		r, err := Analyze(context.Background(), coreImage(t, c), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Walked || r.LostBlocks != uint64(len(c.Blocks.Lost)) {
			t.Errorf("%s: %d lost, not %d: %s", c.Name, r.LostBlocks, len(c.Blocks.Lost), r.Why)
		}
		r.Close()
	}
}

// TestUnknownVersion makes a libc say that it is a version nobody knows.
func TestUnknownVersion(t *testing.T) {
	c := fixture.Cores(t)[0]
	for _, all := range fixture.Cores(t) {
		if all.Name == "glibc-2.36" {
			c = all
		}
	}
	img := coreImage(t, c)
	img.OpenFile = func(*leak.Mapping) (File, error) {
		path := filepath.Join(t.TempDir(), "libc")
		if err := os.WriteFile(path, []byte("GNU C Library (GNU libc) stable release version 2.99.\n"), 0o600); err != nil {
			return nil, err
		}
		return os.Open(path)
	}
	r, err := Analyze(context.Background(), img, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Walked || r.Allocator != "glibc 2.99" || r.Why == "" {
		t.Errorf("walked %v, %s: %s", r.Walked, r.Allocator, r.Why)
	}
	b := newBook()
	if err := r.Emit(b, Look{}); err != nil || len(b.verdicts) > 0 || len(b.gaps) != 1 {
		t.Errorf("%v, %d verdicts, gaps %v", err, len(b.verdicts), b.gaps)
	}
}
