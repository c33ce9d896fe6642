package heap

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/symbol"
)

// TestAgainstValgrind compares how a program's knots of lost blocks are counted
// with what valgrind counts.
func TestAgainstValgrind(t *testing.T) {
	exe := compile(t, "holders.c", "-O1")
	say := []string{"keep 20", "leak 34"}

	log := filepath.Join(t.TempDir(), "log")
	line := fixture.Valgrind(t, "--log-file="+log, exe)
	v := fixture.Start(t, line[0], line[1:]...)
	p := fixture.Start(t, exe)
	for _, line := range say {
		v.Ask(line, "ok")
		p.Ask(line, "ok")
	}
	v.Quit()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	truth := p.Blocks()
	stopped(t, p.PID(), Options{}, func(_ *Image, r *Result) {
		b := newBook()
		if err := r.Emit(b, Look{}); err != nil {
			t.Fatal(err)
		}
		agree(t, b, truth, 1)
		for _, c := range []struct {
			what string
			have uint64
		}{{"definitely lost", r.Direct}, {"indirectly lost", r.LostBlocks - r.Direct}} {
			if want := valgrindBlocks(t, string(text), c.what); c.have != want {
				t.Errorf("%s: %d blocks, valgrind says %d", c.what, c.have, want)
			}
		}
	})
}

// TestPacked looks at blocks that only packed structures point to, which
// valgrind and LeakSanitizer call lost.
func TestPacked(t *testing.T) {
	p := fixture.Start(t, compile(t, "holders.c"))
	p.Ask("packed 60", "ok")
	p.Ask("leak 3", "ok")
	truth := p.Blocks()
	agree(t, scanned(t, p.PID(), Options{}), truth, 1)
}

// TestUnforked looks at blocks that are held by memory which a forked child
// does not have.
func TestUnforked(t *testing.T) {
	p := fixture.Start(t, compile(t, "holders.c"))
	p.Ask("unforked", "ok")
	p.Ask("leak 3", "ok")
	truth := p.Blocks()
	agree(t, scanned(t, p.PID(), Options{}), truth, 1)
}

func valgrindBlocks(t *testing.T, log, what string) uint64 {
	t.Helper()
	m := regexp.MustCompile(what + `: [\d,]+ bytes in ([\d,]+) blocks\n`).FindStringSubmatch(log)
	if m == nil {
		t.Fatalf("valgrind says nothing of what is %s:\n%s", what, log)
	}
	n, err := strconv.ParseUint(strings.ReplaceAll(m[1], ",", ""), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// graphBook also takes blocks and edges.
type graphBook struct {
	*book
	maps   map[leak.MapID]leak.Mapping
	blocks map[uint64]leak.Verdict
	edges  map[leak.Edge]bool
}

func (b *graphBook) Map(m leak.Mapping) { b.maps[m.ID] = m }
func (b *graphBook) Blocks(v []leak.Verdict) {
	for _, x := range v {
		b.blocks[x.Ref.ID] = x
	}
}
func (b *graphBook) Edges(e []leak.Edge) {
	for _, x := range e {
		b.edges[x] = true
	}
}

// look takes one look with an atlas.
func look(tb testing.TB, pid int) (*graphBook, *proc.Target) {
	tb.Helper()
	target, err := proc.Default.Open(pid)
	if err != nil {
		tb.Fatal(err)
	}
	g := &graphBook{newBook(), map[leak.MapID]leak.Mapping{}, map[uint64]leak.Verdict{}, map[leak.Edge]bool{}}
	s := &Scanner{Options: Options{Atlas: leak.NewAtlas(g, nil), MaxPause: patience}, stopWait: patience}
	if err := s.Scan(context.Background(), target, g); err != nil {
		tb.Fatal(err)
	}
	return g, target
}

// TestHolders looks at who holds what.
func TestHolders(t *testing.T) {
	p := fixture.Start(t, compile(t, "holders.c"))
	p.Ask("keep 300", "ok")
	g, target := look(t, p.PID())
	names := symbol.New(symbol.Options{Target: target})
	defer func() { _ = names.Close() }()
	found := map[string]leak.Held{}
	for _, h := range g.held {
		name := h.Root.What
		if h.Root.Frame.Map != 0 {
			if object, _, ok := names.Object(g.maps[h.Root.Frame.Map], h.Root.Frame.Off); ok {
				name = object
			}
		}
		if h.N > found[name].N {
			found[name] = h
		}
	}
	for name, want := range map[string]leak.Held{
		"list_of_nodes":   {Size: 72, N: 300, Shape: leak.ShapePointer},
		"table_of_blocks": {Size: 3000, N: 300, Shape: leak.ShapeOther},
		"tls":             {Size: 5000, N: 1, Shape: leak.ShapeOther},
	} {
		h := found[name]
		// The first node points to none.
		if h.Size != want.Size || h.N+1 < want.N || h.N > want.N || h.Shape != want.Shape || h.Bytes != h.N*h.Size {
			t.Errorf("%s holds %+v, not %+v", name, h, want)
		}
	}
}

// TestEdges checks that the graph is told whole.
func TestEdges(t *testing.T) {
	p := fixture.Start(t, compile(t, "holders.c"))
	p.Ask("keep 50", "ok")
	p.Ask("leak 5", "ok")
	truth := p.Blocks()
	g, _ := look(t, p.PID())
	if uint64(len(g.blocks)) != g.looks[0].Blocks {
		t.Errorf("%d blocks were said, the look counts %d", len(g.blocks), g.looks[0].Blocks)
	}
	for id, v := range g.verdicts {
		b := g.blocks[id]
		if b.State != v.State || b.Size != v.Size || b.Owner != v.Owner || b.Shape != v.Shape {
			t.Errorf("verdict %+v, block %+v", v, b)
		}
	}
	out, in := map[uint64]int{}, map[uint64]int{}
	for e := range g.edges {
		if g.blocks[e.From].Size == 0 || g.blocks[e.To].Size == 0 {
			t.Errorf("edge %#x to %#x: no such block", e.From, e.To)
		}
		out[e.From]++
		in[e.To]++
	}
	for id, size := range truth.Lost {
		if size == 64 && out[id]+in[id] == 0 {
			t.Errorf("lost block %#x has no pointers", id)
		}
	}
	for id := range truth.Kept {
		if g.blocks[id].State != leak.Reachable {
			t.Errorf("kept block %#x: %+v", id, g.blocks[id])
		}
	}
}

// TestTypes looks at C++ objects: their first word tells their type.
func TestTypes(t *testing.T) {
	exe := fixture.Build(t, "objects")
	p := fixture.Start(t, exe)
	p.Ask("leak 30", "ok")
	g, target := look(t, p.PID())
	names := symbol.New(symbol.Options{Target: target})
	defer func() { _ = names.Close() }()
	seen := map[string]int{}
	for _, v := range g.verdicts {
		if v.Shape != leak.ShapeType {
			continue
		}
		name, _, ok := names.Object(g.maps[v.Type.Map], v.Type.Off)
		if !ok || g.maps[v.Type.Map].Path != exe {
			t.Errorf("block %#x: type at %+v in %+v", v.Ref.ID, v.Type, g.maps[v.Type.Map])
		}
		seen[name]++
	}
	t.Log(seen)
	if len(seen) == 0 {
		t.Error("no type was told")
	}
	for name := range seen {
		if !strings.HasPrefix(name, "vtable for ") {
			t.Errorf("type %q", name)
		}
	}
}
