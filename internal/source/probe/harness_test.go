package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/symbol"
)

// compile builds a program of this package's testdata with gcc, or what CC is
// among args as "cc=NAME".
func compile(t testing.TB, name string, args ...string) string {
	t.Helper()
	cc := "gcc"
	if strings.HasSuffix(name, ".cc") {
		cc = "g++"
	}
	var rest []string
	for _, a := range args {
		if c, ok := strings.CutPrefix(a, "cc="); ok {
			cc = c
			continue
		}
		rest = append(rest, a)
	}
	exe := filepath.Join(t.TempDir(), strings.TrimSuffix(name, filepath.Ext(name)))
	all := append([]string{"-g", "-O2", "-pthread", "-Wall", "-Wextra", "-Werror", "-o", exe, filepath.Join("testdata", name)}, rest...)
	if b, err := exec.Command(cc, all...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", cc, all, err, b)
	}
	return exe
}

// tallyKey is what a Tally counts.
type tallyKey struct {
	stack leak.StackID
	exact bool
	kind  leak.Kind
}

// seen is a sink that keeps everything.
type seen struct {
	leak.Ignore
	t        testing.TB
	mu       sync.Mutex
	maps     map[leak.MapID]leak.Mapping
	stacks   map[leak.StackID][]leak.Frame
	acquired []leak.Acquire
	tallies  map[tallyKey]leak.Tally
	gauges   map[leak.GaugeName]float64
	gaps     []leak.Gap
	invalid  []leak.Invalid
	held     map[leak.Ref]leak.Acquire // mappings, threads, descriptors
	released map[int]leak.Release      // of descriptors, the last of each number
	inputs   []leak.Input
	symbols  *symbol.Symbolizer
}

func (s *seen) Map(m leak.Mapping) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maps[m.ID] = m
}

func (s *seen) Stack(id leak.StackID, frames []leak.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stacks[id] = frames
}

func (s *seen) Acquire(a leak.Acquire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acquired = append(s.acquired, a)
	if a.Ref.Kind != leak.KindMemory && a.Ref.Kind != leak.KindPool {
		if _, dup := s.held[a.Ref]; dup {
			s.t.Errorf("%v %#x is acquired twice", a.Ref.Kind, a.Ref.ID)
		}
		s.held[a.Ref] = a
	}
}

func (s *seen) Invalid(i leak.Invalid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.invalid = append(s.invalid, i)
}

func (s *seen) Release(r leak.Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.held[r.Ref]; !ok {
		s.t.Errorf("%v %#x is released and was not held", r.Ref.Kind, r.Ref.ID)
	}
	delete(s.held, r.Ref)
	if r.Ref.Kind == leak.KindDescriptor {
		s.released[int(r.Ref.ID)] = r
	}
}

func (s *seen) Input(i leak.Input) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inputs = append(s.inputs, i)
}

func (s *seen) Tally(y leak.Tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tallies[tallyKey{y.Stack, y.Exact, y.Kind}] = y
}

func (s *seen) Gauge(g leak.Gauge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gauges[g.Name] = g.Value
}

func (s *seen) Gap(g leak.Gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps = append(s.gaps, g)
}

func (s *seen) gapAbout(part string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.gaps {
		if strings.Contains(g.What, part) {
			return true
		}
	}
	return false
}

// names gives the functions of a stack, innermost first.
func (s *seen) names(id leak.StackID) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, f := range s.stacks[id] {
		m, ok := s.maps[f.Map]
		if !ok {
			out = append(out, "?")
			continue
		}
		for _, n := range s.symbols.Frames(m, f) {
			out = append(out, n.Function)
		}
	}
	return out
}

// trial is one probe in one target under test.
type trial struct {
	t     testing.TB
	p     *Probe
	seen  *seen
	clock *proc.Clock
}

func open(t testing.TB, pid int) *proc.Target {
	t.Helper()
	target, err := proc.Default.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// options are those of a test: no limit on cost, which an allocation loop
// always exceeds, and longer pauses, since tests share the machine.
func options() Options {
	return Options{MaxOverhead: -1, Every: 50 * time.Millisecond, MaxPause: 2 * time.Second}
}

func place(t testing.TB, prog *fixture.Proc, o Options) *trial {
	t.Helper()
	return placeIn(t, prog.PID(), o)
}

func placeIn(t testing.TB, pid int, o Options) *trial {
	t.Helper()
	target := open(t, pid)
	tr := &trial{t: t, clock: proc.NewClock()}
	tr.seen = &seen{t: t, maps: map[leak.MapID]leak.Mapping{}, stacks: map[leak.StackID][]leak.Frame{}, tallies: map[tallyKey]leak.Tally{},
		gauges: map[leak.GaugeName]float64{}, held: map[leak.Ref]leak.Acquire{}, released: map[int]leak.Release{}, symbols: symbol.New(symbol.Options{Target: target})}
	o.Clock = tr.clock
	o.Atlas = leak.NewAtlas(tr.seen, target.BuildID)
	p, err := Place(context.Background(), target, o)
	for try := 1; errors.Is(err, ErrBusy) && try < 10; try++ { // the machine was so busy that a thread did not stop in time
		t.Logf("try %d: %v", try, err)
		p, err = Place(context.Background(), target, o)
	}
	if err != nil {
		t.Fatalf("place: %v", err)
	}
	tr.p = p
	t.Cleanup(func() {
		if err := p.Remove(context.Background()); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return tr
}

// watching runs Watch until the returned function is called.
func (tr *trial) watching() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.p.Watch(ctx, tr.p.t, tr.seen) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				tr.t.Errorf("watch: %v", err)
			}
		})
	}
	tr.t.Cleanup(stop)
	return stop
}

// look makes one look as Watch does.
func (tr *trial) look() {
	tr.t.Helper()
	if err := tr.p.look(context.Background(), tr.seen); err != nil {
		tr.t.Fatalf("look: %v", err)
	}
}

// books reads the live table.
func (tr *trial) books() []leak.Acquire {
	tr.t.Helper()
	tr.seen.mu.Lock()
	tr.seen.acquired = nil
	tr.seen.mu.Unlock()
	if err := tr.p.Books(nil, tr.seen); err != nil {
		tr.t.Fatalf("books: %v", err)
	}
	return tr.seen.acquired
}

// sites counts records by their stack's functions, joined with " < ".
func (tr *trial) sites(records []leak.Acquire) map[string]int {
	out := map[string]int{}
	for _, a := range records {
		out[strings.Join(tr.seen.names(a.Stack), " < ")]++
	}
	return out
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func aim(sizes ...uint64) leak.Aim {
	var a leak.Aim
	for _, s := range sizes {
		a.Sizes = append(a.Sizes, leak.SizeRange{Min: s, Max: s})
	}
	return a
}

func repeat(s string, n int) string {
	return strings.TrimSuffix(strings.Repeat(s+" < ", n), " < ")
}

func sscan(line, format string, args ...any) (int, error) { return fmt.Sscanf(line, format, args...) }
