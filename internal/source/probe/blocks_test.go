package probe

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// variant is a way to build and run a program: another libc, another allocator.
type variant struct {
	name  string
	flags []string
	env   []string
	cc    string
}

const lib = "/usr/lib/x86_64-linux-gnu/"

var (
	glibc    = variant{name: "glibc", flags: []string{"-O2"}}
	static   = variant{name: "static", flags: []string{"-O2", "-static"}}
	pieless  = variant{name: "nopie", flags: []string{"-O2", "-no-pie", "-fno-pie"}}
	jemalloc = variant{name: "jemalloc", flags: []string{"-O2"}, env: []string{"LD_PRELOAD=" + lib + "libjemalloc.so.2"}}
	tcmalloc = variant{name: "tcmalloc", flags: []string{"-O2"}, env: []string{"LD_PRELOAD=" + lib + "libtcmalloc_minimal.so.4"}}
	musl     = variant{name: "musl", cc: "musl-gcc", flags: []string{"-O2"}}
	linked   = variant{name: "jemalloc-linked", flags: []string{"-O2", "-Wl,--whole-archive", lib + "libjemalloc.a", "-Wl,--no-whole-archive", "-lstdc++"}}
	hidden   = variant{name: "jemalloc-hidden", flags: append(linked.flags[:len(linked.flags):len(linked.flags)], "-Wl,--exclude-libs,ALL")}
	muslOne  = variant{name: "musl-static", cc: "musl-gcc", flags: []string{"-O2", "-static"}}
)

// start builds and runs a program of testdata/leaky.
func (v variant) start(t testing.TB, name string, args ...string) *fixture.Proc {
	t.Helper()
	for _, need := range append(v.flags, v.env...) {
		if file := strings.TrimPrefix(need, "LD_PRELOAD="); strings.HasPrefix(file, lib) {
			if _, err := filepath.EvalSymlinks(file); err != nil {
				t.Skipf("%v: apt-get install libjemalloc-dev libjemalloc2 libtcmalloc-minimal4", err)
			}
		}
	}
	if v.cc == "" {
		return fixture.StartEnv(t, v.env, fixture.Build(t, name, v.flags...), args...)
	}
	exe := filepath.Join(t.TempDir(), name)
	cmd := exec.Command(v.cc, append([]string{"-g", "-pthread", "-o", exe, fixture.Source(t, name)}, v.flags...)...)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, b)
	}
	return fixture.StartEnv(t, v.env, exe, args...)
}

// TestBlockByBlock compares the books with what each program says it did: with
// its sizes aimed at, every block that it lost or holds since the placement is
// recorded, with its size, the line it comes from and a stack up to main; and
// no other block of those sizes is.
func TestBlockByBlock(t *testing.T) {
	for _, c := range []struct {
		name     string
		variants []variant
	}{
		{"direct", []variant{glibc, static, pieless, jemalloc, linked, hidden, tcmalloc, musl, muslOne}},
		{"lists", []variant{glibc, musl}},
		{"threads", []variant{glibc, jemalloc, tcmalloc}},
		{"objects", []variant{glibc, static, jemalloc, tcmalloc}},
		{"exceptions", []variant{glibc, jemalloc, tcmalloc}},
		{"memalign", []variant{glibc, static, jemalloc, tcmalloc}},
		{"realloc", []variant{glibc, jemalloc, tcmalloc}},
		{"sighandler", []variant{glibc, jemalloc}},
		{"forker", []variant{glibc}},
		{"coroutine", []variant{glibc}},
		{"mmapped", []variant{glibc}},
	} {
		for _, v := range c.variants {
			t.Run(c.name+"/"+v.name, func(t *testing.T) { blockByBlock(t, c.name, v, options()) })
		}
	}
}

// TestExactBlockByBlock: the same with every block recorded, and the tallies say just what
// the records do.
func TestExactBlockByBlock(t *testing.T) {
	o := options()
	o.Exact = true
	for _, c := range []struct {
		name     string
		variants []variant
	}{
		{"direct", []variant{glibc, static, jemalloc, tcmalloc, musl}},
		{"threads", []variant{glibc, jemalloc}},
		{"objects", []variant{glibc, tcmalloc}},
		{"exceptions", []variant{glibc, jemalloc}},
		{"memalign", []variant{glibc, static, jemalloc, tcmalloc}},
		{"realloc", []variant{glibc, jemalloc, tcmalloc}},
		{"sighandler", []variant{glibc, jemalloc}},
		{"forker", []variant{glibc}},
		{"coroutine", []variant{glibc}},
		{"mmapped", []variant{glibc}},
	} {
		for _, v := range c.variants {
			t.Run(c.name+"/"+v.name, func(t *testing.T) { blockByBlock(t, c.name, v, o) })
		}
	}
}

func blockByBlock(t *testing.T, name string, v variant, o Options) {
	prog := v.start(t, name)
	wants := fixture.Wants(t, name)
	for _, w := range wants {
		o.Aim.Sizes = append(o.Aim.Sizes, leak.SizeRange{Min: w.Size, Max: w.Size})
	}
	before := prog.Blocks()
	tr := place(t, prog, o)
	stop := tr.watching()
	for range 5 {
		prog.Ask("leak 20", "ok")
		prog.Ask("keep 20", "ok")
		prog.Ask("free 10", "ok")
	}
	if strings.Contains("sighandler forker exceptions coroutine", name) {
		prog.Ask("check", "ok")
	}
	stop()
	tr.look()
	after := prog.Blocks()
	records := map[uint64]leak.Acquire{}
	for _, a := range tr.books() {
		if a.Exact {
			if a.Weight != 1 {
				t.Errorf("an exact record has weight %g", a.Weight)
			}
			records[a.Ref.ID] = a
		}
	}
	wanted := func(size uint64) bool {
		return slices.ContainsFunc(wants, func(w fixture.Want) bool { return w.Size == size })
	}
	complain := complaints{t: t}
	found := 0
	for _, held := range []map[uint64]uint64{after.Lost, after.Kept} {
		for addr, size := range held {
			if before.Lost[addr] != 0 || before.Kept[addr] != 0 || !tr.p.o.Aim.Aimed(size) {
				continue // from before, or of a size that is only sampled
			}
			r, ok := records[addr]
			if name == "sighandler" && size == 64<<10 {
				continue // its thread's stack for signals, from before perhaps
			}
			if !ok && v.name == hidden.name && size == 31 {
				continue // strdup is libc's, and so is its malloc
			}
			if !ok {
				complain.about("a block of %d bytes at %#x is not recorded", size, addr)
				continue
			}
			found++
			if r.Size != size {
				complain.about("a block of %d bytes is recorded with %d", size, r.Size)
			}
			if after.Lost[addr] != 0 && name != "coroutine" && wanted(size) {
				checkStack(t, tr, &complain, r, wants)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d blocks to compare", found)
	}
	for addr, size := range after.Freed {
		if r, ok := records[addr]; ok && r.Size == size {
			complain.about("a block of %d bytes at %#x was freed and is still recorded", size, addr)
		}
	}
	complain.end()
	if o.Exact && !strings.Contains("threads forker exceptions sighandler coroutine", name) { // which never rest
		balance(t, tr)
	}
	for _, g := range tr.seen.gaps {
		t.Errorf("gap: %s (%d)", g.What, g.Lost)
	}
	if err := tr.p.Remove(t.Context()); err != nil {
		t.Errorf("remove: %v", err)
	}
	prog.Ask("leak 3", "ok")
	prog.Quit()
}

// balance holds the tallies against the records: for each stack, what was
// acquired and not released is what is held.
func balance(t *testing.T, tr *trial) {
	t.Helper()
	tr.seen.mu.Lock()
	clear(tr.seen.tallies)
	tr.seen.mu.Unlock()
	held := map[leak.StackID]leak.Count{}
	for _, a := range tr.books() {
		if !a.Exact {
			t.Errorf("a block of %d bytes is a sample", a.Size)
		}
		held[a.Stack] = plus(held[a.Stack], leak.Count{N: 1, Bytes: float64(a.Size)})
	}
	for key, y := range tr.seen.tallies {
		if !y.Exact {
			t.Errorf("a tally of samples: %+v", y)
		}
		if n, b := y.Acquired.N-y.Released.N, y.Acquired.Bytes-y.Released.Bytes; n != held[key.stack].N || b != held[key.stack].Bytes {
			t.Errorf("%v: tallies leave %g blocks, %g bytes; %g and %g are recorded", tr.seen.names(key.stack), n, b, held[key.stack].N, held[key.stack].Bytes)
		}
		delete(held, key.stack)
	}
	if len(held) > 0 {
		t.Errorf("%d stacks with records have no tally", len(held))
	}
}

// checkStack looks for the line that a want comment marks, and for the end of
// the stack.
func checkStack(t *testing.T, tr *trial, complain *complaints, r leak.Acquire, wants []fixture.Want) {
	t.Helper()
	at, root := false, false
	var text []string
	frames := tr.seen.stacks[r.Stack]
	for _, f := range frames {
		for _, n := range tr.seen.symbols.Frames(tr.seen.maps[f.Map], f) {
			text = append(text, fmt.Sprintf("%s:%s:%d", n.Function, filepath.Base(n.File), n.Line))
			at = at || slices.ContainsFunc(wants, func(w fixture.Want) bool {
				return w.Size == r.Size && w.Line == n.Line && w.File == filepath.Base(n.File)
			})
			root = root || n.Function == "main" || n.Function == "start_thread" || n.Function == "start"
		}
	}
	if !at {
		complain.about("a block of %d bytes has no line with a want comment in its stack:\n\t%s", r.Size, strings.Join(text, "\n\t"))
	}
	if !root {
		complain.about("the stack of a block of %d bytes ends early:\n\t%s", r.Size, strings.Join(text, "\n\t"))
	}
}

// complaints reports the first few of many like errors.
type complaints struct {
	t testing.TB
	n int
}

func (c *complaints) about(format string, args ...any) {
	c.t.Helper()
	if c.n++; c.n <= 3 {
		c.t.Errorf(format, args...)
	}
}

func (c *complaints) end() {
	if c.n > 3 {
		c.t.Errorf("and %d more", c.n-3)
	}
}
