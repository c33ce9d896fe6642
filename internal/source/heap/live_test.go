package heap

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// asleep waits until all threads of a process sleep: a program may answer
// before its other threads have done what they were told.
func asleep(tb testing.TB, pid int) {
	tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(stats) == 0 {
			tb.Fatal("no threads", err)
		}
		busy := 0
		for _, path := range stats {
			text, err := os.ReadFile(path)
			if _, state, ok := strings.Cut(string(text), ") "); err != nil || !ok || state[0] != 'S' {
				busy++
			}
		}
		if busy == 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%d threads of %d do not rest", busy, pid)
		}
	}
}

// stopped analyzes a process while it stands still and hands the result to use.
func stopped(tb testing.TB, pid int, o Options, use func(*Image, *Result)) {
	tb.Helper()
	target, err := proc.Default.Open(pid)
	if err != nil {
		tb.Fatal(err)
	}
	stop, err := ptrace.Start(context.Background(), target, ptrace.Options{MaxPause: patience, StopWait: patience})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = stop.Release() }()
	img := &Image{Mem: stop.Mem(), Maps: stop.Maps(), OpenFile: func(m *leak.Mapping) (File, error) { return target.OpenFile(m) }}
	for _, t := range stop.Threads() {
		img.Threads = append(img.Threads, threadOf(t.TID, &t.Regs))
	}
	r, err := Analyze(context.Background(), img, o)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	use(img, r)
}

// book keeps what a scan says.
type book struct {
	leak.Ignore
	looks    []leak.Look
	verdicts map[uint64]leak.Verdict
	held     []leak.Held
	gaps     []leak.Gap
	gauges   []leak.Gauge
}

func newBook() *book { return &book{verdicts: map[uint64]leak.Verdict{}} }

func (b *book) Map(leak.Mapping)                 {}
func (b *book) Stack(leak.StackID, []leak.Frame) {}
func (b *book) Acquire(leak.Acquire)             {}
func (b *book) Release(leak.Release)             {}
func (b *book) Invalid(leak.Invalid)             {}
func (b *book) Tally(leak.Tally)                 {}
func (b *book) Gauge(g leak.Gauge)               { b.gauges = append(b.gauges, g) }
func (b *book) Look(l leak.Look)                 { b.looks = append(b.looks, l) }
func (b *book) Held(h []leak.Held)               { b.held = append(b.held, h...) }
func (b *book) Gap(g leak.Gap)                   { b.gaps = append(b.gaps, g) }
func (b *book) Verdicts(v []leak.Verdict) {
	for _, x := range v {
		b.verdicts[x.Ref.ID] = x
	}
}

func (b *book) count(state leak.State) (n uint64) {
	for _, v := range b.verdicts {
		if v.State == state {
			n++
		}
	}
	return n
}

func (b *book) bytes() (n uint64) {
	for _, v := range b.verdicts {
		n += v.Size
	}
	return n
}

// agree compares verdicts with what the program says of itself.
func agree(tb testing.TB, b *book, truth fixture.Blocks, share float64) {
	tb.Helper()
	for id, v := range b.verdicts {
		if _, ok := truth.Lost[id]; !ok {
			fate := "unknown to the program"
			if _, ok := truth.Kept[id]; ok {
				fate = "kept"
			} else if _, ok := truth.Freed[id]; ok {
				fate = "freed"
			}
			tb.Errorf("false leak: %#x of %d bytes, %v, %s", id, v.Size, v.State, fate)
		}
	}
	found := 0
	for id, size := range truth.Lost {
		v, ok := b.verdicts[id]
		if !ok {
			continue
		}
		found++
		if v.Size < size || v.Size > size+64 && size < 128<<10 {
			tb.Errorf("block %#x: %d bytes said, %d requested", id, v.Size, size)
		}
		if _, in := truth.Indirect[id]; in && v.State != leak.LostIndirect {
			tb.Errorf("block %#x: %v, a lost block leads to it", id, v.State)
		}
		if v.State == leak.LostIndirect {
			if o, ok := b.verdicts[v.Owner]; !ok || o.State != leak.LostDirect {
				tb.Errorf("block %#x: its owner %#x is not lost directly", id, v.Owner)
			}
		}
	}
	if n := len(truth.Lost); float64(found) < share*float64(n) {
		tb.Errorf("found %d of %d lost blocks", found, n)
	} else {
		tb.Logf("found %d of %d lost blocks, %d kept, %d freed", found, n, len(truth.Kept), len(truth.Freed))
	}
}

func TestPrograms(t *testing.T) {
	for _, c := range []struct {
		name string
		say  []string
	}{
		{"direct", []string{"keep 10", "leak 400", "free 4", "leak 13"}},
		{"lists", []string{"keep 3", "leak 10"}},
		{"cycles", []string{"keep 3", "leak 10"}},
		{"mmapped", []string{"keep 3", "leak 10", "free 1"}},
		{"memalign", []string{"keep 3", "leak 10"}},
		{"threads", []string{"keep 40", "leak 100", "free 3", "ended 5", "register 3"}},
		{"interior", []string{"keep 10", "leak 10"}},
		{"tagged", []string{"keep 10", "leak 10"}},
		{"freed", []string{"leak 2", "keep 10", "leak 3"}},
		{"pool", []string{"keep 10", "leak 10"}},
		{"realloc", []string{"keep 10", "leak 10"}},
		{"objects", []string{"keep 10", "leak 10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fixture.Start(t, fixture.Build(t, c.name))
			for _, line := range c.say {
				p.Ask(line, "ok")
			}
			truth := p.Blocks()
			asleep(t, p.PID())
			b := newBook()
			stopped(t, p.PID(), Options{}, func(_ *Image, r *Result) {
				if err := r.Emit(b, Look{N: 1}); err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: walked %v %s, %d blocks %d bytes, free %d, lost %d, direct %d, %v", r.Allocator, r.Walked, r.Why, r.Blocks, r.Bytes, r.Free, r.LostBlocks, r.Direct, r.Doubts)
				if !r.Walked || len(r.Doubts) > 0 {
					t.Errorf("not walked or doubtful")
				}
			})
			agree(t, b, truth, 0.995)
		})
	}
}
