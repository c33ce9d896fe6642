package fdtrace

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/symbol"
)

const patience = 30 * time.Second

// build compiles a C program without frame pointers.
func build(t testing.TB, source string, flags ...string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(source), filepath.Ext(source)))
	compiler := "gcc"
	if filepath.Ext(source) == ".cc" {
		compiler = "g++"
	}
	args := append([]string{"-O2", "-g", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-o", exe, source, "-pthread"}, flags...)
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", source, err, out)
	}
	return exe
}

// program is a running test program that begins and ends by lines.
type program struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.Writer
	lines  chan string
	target *proc.Target
}

// run starts a program and waits for its line "ready".
func run(t testing.TB, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(name, args...), lines: make(chan string, 1<<16)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in = in
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	p.until("ready")
	if p.target, err = proc.Default.Open(p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return p
}

// until reads lines up to one.
func (p *program) until(last string) (said []string) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the program ended; it said %q", said)
			}
			if line == last {
				return said
			}
			said = append(said, line)
		case <-deadline:
			p.t.Fatalf("the program does not say %q but %q", last, said)
		}
	}
}

func (p *program) write(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatal(err)
	}
}

// said is a sink that keeps the books of descriptors.
type said struct {
	leak.Ignore
	maps     map[leak.MapID]leak.Mapping
	stacks   map[leak.StackID][]leak.Frame
	open     map[leak.Ref]leak.Acquire
	acquires []leak.Acquire
	releases []leak.Release
	failures map[string]leak.Failure
	uses     map[uint64]leak.Use
	gaps     []leak.Gap
	doubles  []leak.Acquire
}

func newSaid() *said {
	return &said{maps: map[leak.MapID]leak.Mapping{}, stacks: map[leak.StackID][]leak.Frame{}, open: map[leak.Ref]leak.Acquire{},
		failures: map[string]leak.Failure{}, uses: map[uint64]leak.Use{}}
}

func (s *said) Map(m leak.Mapping)                    { s.maps[m.ID] = m }
func (s *said) Stack(id leak.StackID, f []leak.Frame) { s.stacks[id] = f }
func (s *said) Acquire(a leak.Acquire) {
	if _, twice := s.open[a.Ref]; twice {
		s.doubles = append(s.doubles, a)
	}
	s.open[a.Ref] = a
	s.acquires = append(s.acquires, a)
}
func (s *said) Release(r leak.Release) {
	delete(s.open, r.Ref)
	s.releases = append(s.releases, r)
}
func (s *said) Failure(f leak.Failure) { s.failures[f.Call+" "+f.Errno] = f }
func (s *said) Use(u leak.Use)         { s.uses[u.Ref.ID] = u }
func (s *said) Gap(g leak.Gap)         { s.gaps = append(s.gaps, g) }

// tracing is a trace of one program.
type tracing struct {
	*said
	t      testing.TB
	tracer *Tracer
	target *proc.Target
	stop   func()
	done   chan error
}

// trace begins to trace a program.
func trace(t testing.TB, target *proc.Target, o Options) *tracing {
	t.Helper()
	s := newSaid()
	o.Clock, o.Atlas = proc.NewClock(), leak.NewAtlas(s, target.BuildID)
	tracer, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := tracer.Start(target); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := &tracing{said: s, t: t, tracer: tracer, target: target, stop: stop, done: make(chan error, 1)}
	go func() { w.done <- tracer.Watch(ctx, target, s) }()
	t.Cleanup(func() {
		stop()
		if err := tracer.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// end ends the trace, after which what was said may be looked at.
func (w *tracing) end() {
	w.t.Helper()
	w.stop()
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Fatal(err)
		}
	case <-time.After(patience):
		w.t.Fatal("Watch does not return")
	}
	if len(w.doubles) > 0 {
		w.t.Errorf("%d were opened while they were open, the first %+v", len(w.doubles), w.doubles[0])
	}
}

// names gives the functions of a stack, innermost first, with "function:line".
func (w *tracing) names(s *symbol.Symbolizer, id leak.StackID) (functions []string, lines []string) {
	for _, f := range w.stacks[id] {
		for _, n := range s.Frames(w.maps[f.Map], f) {
			functions = append(functions, n.Function)
			lines = append(lines, fmt.Sprintf("%s:%d", filepath.Base(n.File), n.Line))
		}
	}
	return functions, lines
}

func (w *tracing) symbolizer() *symbol.Symbolizer {
	s := symbol.New(symbol.Options{Target: w.target})
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}
