package probe

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// TestMappings: what a program maps and starts and does not give back is held,
// with its stack, and nothing else is.
func TestMappings(t *testing.T) {
	for _, exact := range []bool{false, true} {
		t.Run(fmt.Sprintf("exact=%v", exact), func(t *testing.T) {
			prog := fixture.Start(t, compile(t, "maps.c"))
			o := options()
			o.Mappings, o.Exact = true, exact
			tr := place(t, prog, o)
			for _, note := range tr.p.Placement().Notes {
				t.Errorf("note: %s", note)
			}
			want := map[leak.Ref]uint64{}
			for _, command := range []string{"plain", "hole", "fixed", "move", "shrink", "fail", "break", "blocks", "threads", "churn"} {
				words := strings.Fields(prog.Ask(command, "ok"))[1:]
				for ; len(words) >= 3; words = words[3:] {
					ref := leak.Ref{Proc: tr.p.t.ID, Kind: leak.KindMapping}
					if words[0] == "thread" {
						ref.Kind = leak.KindThread
					}
					var size uint64
					if _, err := sscan(words[1]+" "+words[2], "%d %d", &ref.ID, &size); err != nil {
						t.Fatal(err)
					}
					want[ref] = size
				}
				tr.look()
				for ref, a := range tr.seen.held {
					if size, ok := want[ref]; !ok || size != a.Size {
						t.Errorf("%s: %v %#x of %d bytes is held, want %d; by %v", command, ref.Kind, ref.ID, a.Size, size, tr.seen.names(a.Stack))
					}
					if names := tr.seen.names(a.Stack); len(names) < 2 || names[0] != "map" && names[0] != "thread" && names[0] != "main" {
						t.Errorf("%s: stack %v", command, names)
					}
				}
				for ref, size := range want {
					if _, ok := tr.seen.held[ref]; !ok {
						t.Errorf("%s: %v %#x of %d bytes is not held", command, ref.Kind, ref.ID, size)
					}
				}
				if t.Failed() {
					t.FailNow()
				}
			}
			for _, g := range tr.seen.gaps {
				t.Errorf("gap: %v", g)
			}
			prog.Quit()
		})
	}
}

// TestMappingsStatic: a program whose allocator cannot be told from itself.
func TestMappingsStatic(t *testing.T) {
	prog := static.start(t, "direct")
	o := options()
	o.Mappings = true
	tr := place(t, prog, o)
	if notes := tr.p.Placement().Notes; len(notes) != 1 || !strings.Contains(notes[0], "mappings and threads are not recorded") {
		t.Errorf("notes: %q", notes)
	}
	prog.Quit()
}

// TestIntervals compares with a map of pages.
func TestIntervals(t *testing.T) {
	const pages = 64
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var v intervals
		var have [pages]uint64
		for n := uint64(1); n < 60; n++ {
			from := r.Uint64N(pages)
			to := from + 1 + r.Uint64N(pages-from)
			v.cut(from, to)
			for i := from; i < to; i++ {
				have[i] = 0
			}
			if r.IntN(3) > 0 {
				v.add(piece{start: from, end: to, from: n})
				for i := from; i < to; i++ {
					have[i] = n
				}
			}
			last := uint64(0)
			for _, s := range v {
				if s.start < last || s.end <= s.start {
					t.Fatalf("not in order: %v", v)
				}
				last = s.end
			}
			for i := range uint64(pages) {
				var from uint64
				if at := v.at(i); at >= 0 {
					from = v[at].from
				}
				if from != have[i] {
					t.Fatalf("page %d is of %d, want %d: %v", i, from, have[i], v)
				}
			}
		}
	}
}
