package probe

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
)

// TestLease: hooks that do not hear from stanch go quiet; when it is back, it
// says so, and recording begins anew with empty books.
func TestLease(t *testing.T) {
	prog := fixture.Start(t, compile(t, "basic.c"))
	o := options()
	o.Aim = aim(400)
	tr := place(t, prog, o)
	tr.look()
	prog.Ask("lose 10", "ok")
	if n := len(tr.books()); n < 10 {
		t.Fatalf("%d records", n)
	}
	// As if five seconds had passed.
	if err := put64(tr.p.mem, tr.p.state(wStateLease), rdtsc(), rdtsc()); err != nil {
		t.Fatal(err)
	}
	prog.Ask("lose 100", "ok") // one call in so many looks
	if on, err := get32(tr.p.mem, tr.p.state(wStateOn)); err != nil || on != 0 {
		t.Errorf("the hooks are on after the lease: %d %v", on, err)
	}
	tr.look()
	if !tr.seen.gapAbout("stanch was not running") {
		t.Errorf("no gap: %v", tr.seen.gaps)
	}
	prog.Ask("lose 7", "ok")
	exact := 0
	for _, a := range tr.books() {
		if a.Exact {
			exact++
		}
	}
	if exact != 7 {
		t.Errorf("%d records after the new beginning, want 7", exact)
	}
	// A half-written lease does not count: the other word holds.
	if err := put64(tr.p.mem, tr.p.state(wStateLease), 1); err != nil {
		t.Fatal(err)
	}
	prog.Ask("lose 1", "ok")
	if on, _ := get32(tr.p.mem, tr.p.state(wStateOn)); on != 1 {
		t.Error("one word of the lease switches off")
	}
}

// TestLibraries: a library loaded during the watch has complete stacks, and
// frames of one that was unloaded keep their names.
func TestLibraries(t *testing.T) {
	plugin := fixture.Build(t, "plugin", "-O2", "-shared", "-fPIC")
	prog := fixture.Start(t, fixture.Build(t, "dlopener", "-O2"), plugin)
	o := options()
	o.Aim = aim(240)
	tr := place(t, prog, o)
	tr.look()
	for range 3 {
		prog.Ask("load", "ok")
		tr.look() // takes the new tables to the target
		prog.Ask("leak 5", "ok")
		tr.look() // reads the stacks while the library is there
		prog.Ask("unload", "ok")
		tr.look()
	}
	sites := tr.sites(tr.books())
	n := 0
	for stack, count := range sites {
		if strings.HasPrefix(stack, "plugin_lose < leak < ") && strings.Contains(stack, " < main < ") {
			n += count
		}
	}
	if n != 15 {
		t.Errorf("%d blocks of the plugin with complete stacks, want 15: %v", n, sites)
	}
	if len(tr.seen.gaps) > 0 {
		t.Errorf("gaps: %v", tr.seen.gaps)
	}
	epoch, err := get32(tr.p.mem, tr.p.data.start+wBooksEpoch)
	if err != nil || epoch != 3 {
		t.Errorf("epoch %d after 3 libraries went: %v", epoch, err)
	}
	prog.Ask("cycle 20", "ok")
	prog.Quit()
}

// TestCoroutines: on a stack that no thread library knows, nothing past the
// stack pointer's page is read, and the direct caller is still named.
func TestCoroutines(t *testing.T) {
	prog := fixture.Start(t, fixture.Build(t, "coroutine", "-O2"))
	o := options()
	o.Aim = aim(160)
	tr := place(t, prog, o)
	tr.look()
	prog.Ask("leak 50", "ok")
	prog.Ask("check", "ok")
	n := 0
	for stack, count := range tr.sites(tr.books()) {
		if strings.HasPrefix(stack, "make < ") || stack == "make" {
			n += count
		} else {
			t.Logf("%d %s", count, stack)
		}
	}
	if n != 50 {
		t.Errorf("%d blocks name their caller, want 50", n)
	}
}

// TestExit: the end of the target ends the watch without an error.
func TestExit(t *testing.T) {
	prog := fixture.Start(t, compile(t, "basic.c"))
	tr := place(t, prog, options())
	done := make(chan error)
	go func() { done <- tr.p.Watch(context.Background(), tr.p.t, tr.seen) }()
	prog.Ask("churn 10", "ok")
	prog.Quit()
	if err := <-done; err != nil {
		t.Errorf("watch: %v", err)
	}
	if err := tr.p.Remove(context.Background()); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// TestExec: so does another program in its place, which is a gap.
func TestExec(t *testing.T) {
	prog := fixture.Start(t, compile(t, "execs.c"), fixture.Build(t, "direct"))
	tr := place(t, prog, options())
	done := make(chan error)
	go func() { done <- tr.p.Watch(context.Background(), tr.p.t, tr.seen) }()
	prog.Ask("exec", "ready")
	if err := <-done; err != nil {
		t.Errorf("watch: %v", err)
	}
	if !tr.seen.gapAbout("another program") {
		t.Errorf("no gap: %v", tr.seen.gaps)
	}
	if err := tr.p.Remove(context.Background()); err != nil {
		t.Errorf("remove: %v", err)
	}
	prog.Ask("leak 3", "ok")
	clean(t, tr.p.t)
	tr = place(t, prog, options())
	tr.look()
	prog.Ask("leak 3", "ok")
}

// TestGovernor: hooks that cost too much do less, step by step, and say so. What
// is recorded stays true: releases are seen to the end.
func TestGovernor(t *testing.T) {
	prog := fixture.Start(t, compile(t, "pairs.c"))
	o := options()
	o.MaxOverhead = 0.03
	o.Aim = aim(100, 200)
	tr := place(t, prog, o)
	tr.watching()
	prog.Ask("hold 50 200", "ok")
	const last = "records no new blocks"
	for range 20 {
		prog.Ask("run 1 10 100 300", "ns")
		if tr.seen.gapAbout(last) {
			break
		}
	}
	for _, want := range []string{"blocks of 100 to 100 bytes are only sampled", last} {
		if !tr.seen.gapAbout(want) {
			t.Errorf("no step %q: %v", want, tr.seen.gaps)
		}
	}
	held := func() (n int) {
		for _, a := range tr.books() {
			if a.Size == 200 && a.Exact {
				n++
			}
		}
		return n
	}
	before := held()
	prog.Ask("hold 7 200", "ok")
	if n := held(); n != before || n < 50 {
		t.Errorf("%d blocks recorded, %d before new ones came", n, before)
	}
	prog.Ask("drop", "ok")
	if n := held(); n != 0 {
		t.Errorf("%d blocks recorded after all were freed", n)
	}
	prog.Ask("run 1 10 100 50", "ns")
}

// TestGovernorExact: from exact to sampled to nothing new, and what is recorded
// stays true.
func TestGovernorExact(t *testing.T) {
	prog := fixture.Start(t, compile(t, "pairs.c"))
	o := options()
	o.MaxOverhead = 0.03
	o.Exact, o.FromStart = true, true
	tr := place(t, prog, o)
	prog.Ask("fill 20000 200", "ok")
	for range 20 {
		prog.Ask("run 1 10 0 300", "ns")
		tr.look()
		if tr.seen.gapAbout("one block in about 512 KiB") {
			break
		}
	}
	tr.p.o.MaxOverhead = -1 // no further
	tr.watching()
	if !tr.seen.gapAbout("one block in about 512 KiB") {
		t.Fatalf("not sampled: %v", tr.seen.gaps)
	}
	count := func() (exact, sampled int) {
		for _, a := range tr.books() {
			if a.Exact && a.Size == 200 {
				exact++
			} else if !a.Exact {
				sampled++
			}
		}
		return exact, sampled
	}
	if exact, _ := count(); exact != 20000 {
		t.Errorf("%d exact records, want the 20000 from before", exact)
	}
	prog.Ask("random 20000", "ns")
	prog.Ask("hold 900 100000", "ok")
	exact, sampled := count()
	if exact > 15000 || sampled < 90 {
		t.Errorf("%d exact and %d sampled records after most blocks were replaced", exact, sampled)
	}
	prog.Ask("empty", "ok")
	prog.Ask("drop", "ok")
	if exact, sampled := count(); exact+sampled != 0 {
		t.Errorf("%d and %d records after all were freed", exact, sampled)
	}
	prog.Quit()
}

// TestRefusals: targets that cannot be watched are told apart, and nothing is
// changed in them.
func TestRefusals(t *testing.T) {
	try := func(prog *fixture.Proc, o Options) error {
		target := open(t, prog.PID())
		o.Clock, o.Atlas = proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil)
		before, err := target.Maps()
		if err != nil {
			t.Fatal(err)
		}
		p, err := Place(t.Context(), target, o)
		if err == nil {
			_ = p.Remove(t.Context())
			return nil
		}
		after, e := target.Maps()
		if e != nil || !slices.Equal(before, after) {
			t.Errorf("after %v the mappings differ", err)
		}
		return err
	}
	static := fixture.Start(t, fixture.Strip(t, fixture.Build(t, "direct", "-static")))
	if err := try(static, options()); !errors.Is(err, ErrNoAllocator) || !strings.Contains(err.Error(), "stripped") {
		t.Errorf("a stripped static program: %v", err)
	}
	prog := fixture.Start(t, fixture.Build(t, "direct"))
	small := options()
	small.MaxMemory = 1 << 20
	if err := try(prog, small); !errors.Is(err, ErrNoRoom) {
		t.Errorf("1 MiB: %v", err)
	}
	short := options()
	short.MaxPause = time.Millisecond
	if err := try(prog, short); err == nil {
		t.Error("a pause of 1 ms is no limit")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := options()
	o.Clock, o.Atlas = proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil)
	if _, err := Place(ctx, open(t, prog.PID()), o); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	gone := &proc.Target{ID: leak.ProcID{PID: prog.PID(), Start: 1}, Root: proc.Default}
	if _, err := Place(t.Context(), gone, o); !errors.Is(err, proc.ErrGone) {
		t.Errorf("another owner of the PID: %v", err)
	}
	if goExe, err := exec.LookPath("go"); err == nil {
		// A Go program without C has no malloc.
		exe := filepath.Join(t.TempDir(), "sleeper")
		src := exe + ".go"
		if err := writeFile(src, "package main\nimport (\"fmt\"; \"os\")\nfunc main() { fmt.Println(\"ready\"); os.Stdin.Read(make([]byte, 100)) }\n"); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(goExe, "build", "-o", exe, src).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := try(fixture.Start(t, exe), options()); !errors.Is(err, ErrNoAllocator) {
			t.Errorf("a Go program: %v", err)
		}
	}
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }
