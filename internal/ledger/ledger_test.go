package ledger

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

var proc = leak.ProcID{PID: 4711, Start: 99}

func ref(addr uint64) leak.Ref { return leak.Ref{Proc: proc, Kind: leak.KindMemory, ID: addr} }

func lost(addr, size uint64) leak.Verdict {
	return leak.Verdict{Ref: ref(addr), Size: size, State: leak.LostDirect}
}

func below(addr, size, owner uint64) leak.Verdict {
	return leak.Verdict{Ref: ref(addr), Size: size, State: leak.LostIndirect, Owner: owner}
}

func look(l *Ledger, at time.Duration, vs ...leak.Verdict) {
	l.Look(leak.Look{At: at, Proc: proc, Walked: true})
	l.Verdicts(vs)
}

func only(t *testing.T, l *Ledger) *Process {
	t.Helper()
	v := l.View()
	if len(v.Procs) != 1 {
		t.Fatalf("%d processes", len(v.Procs))
	}
	return v.Procs[0]
}

func TestIndirectBlocksAreChargedToTheirOwner(t *testing.T) {
	l := New()
	// Any order, and one whose owner nobody said.
	look(l, time.Second, below(0x300, 24, 0x100), below(0x900, 24, 0x5000), lost(0x200, 56), below(0x400, 40, 0x100), lost(0x100, 408))
	l.Acquire(leak.Acquire{At: 0, Ref: ref(0x100), Size: 400, Stack: 7, Weight: 1, Exact: true})
	p := only(t, l)
	want := []Cell{
		{Group: 0, Since: time.Second, Direct: 1, DirectBytes: 24},
		{Group: 1, Since: time.Second, Direct: 1, DirectBytes: 56},
		{Group: 3, Since: time.Second, Stack: 7, Direct: 1, DirectBytes: 408, Indirect: 2, IndirectBytes: 64, Requested: 400, MinRequest: 400, MaxRequest: 400, Exact: 1, Weight: 1},
	}
	if diff := cmp.Diff(want, p.Lost); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]uint64{408, 56, 24}, l.View().LostSizes()); diff != "" {
		t.Errorf("sizes: %s", diff)
	}
}

func TestABlockSaidTwiceCountsOnce(t *testing.T) {
	l := New()
	look(l, 0, lost(0x200, 56), below(0x100, 24, 0x200), lost(0x100, 24), lost(0x200, 56))
	var n uint64
	for _, c := range only(t, l).Lost {
		n += c.Direct + c.Indirect
	}
	if n != 2 {
		t.Errorf("%d blocks of 2", n)
	}
}

func TestLateVerdictsAreAGap(t *testing.T) {
	l := New()
	l.Verdicts([]leak.Verdict{lost(0x100, 24)})
	look(l, 0, lost(0x200, 24))
	if v := l.View(); len(v.Gaps) != 1 || v.Gaps[0].Lost != 1 {
		t.Errorf("gaps: %v", v.Gaps)
	}
	l.Verdicts([]leak.Verdict{lost(0x300, 24)})
	v := l.View()
	if len(v.Gaps) != 1 || v.Gaps[0].Lost != 2 || v.Procs[0].Lost[0].Direct != 1 {
		t.Errorf("gaps: %v, lost: %v", v.Gaps, v.Procs[0].Lost)
	}
}

func TestAGapSaidAgainIsOne(t *testing.T) {
	l := New()
	for i := range 3 {
		l.Gap(leak.Gap{At: time.Duration(i), Source: "heap", What: "it was not looked into", Lost: 2})
	}
	if v := l.View(); len(v.Gaps) != 1 || v.Gaps[0].Lost != 6 {
		t.Errorf("%+v", v.Gaps)
	}
}

func TestABlindLookForgetsNothing(t *testing.T) {
	l := New()
	look(l, 0, lost(0x100, 24))
	l.Look(leak.Look{N: 2, At: 10 * time.Second, Proc: proc})
	look(l, 20*time.Second, lost(0x100, 24))
	p := only(t, l)
	if len(p.Blind) != 1 || len(p.Looks) != 2 || !p.Lost[0].Proved {
		t.Errorf("%+v", p.Lost)
	}
}

// Where a source repeats its whole table and never says what was released, a
// record that is not repeated is gone, and its address may be another's.
func TestWhatIsNotRepeatedIsGone(t *testing.T) {
	say := func(l *Ledger, addrs ...uint64) {
		for _, a := range addrs {
			l.Acquire(leak.Acquire{At: time.Duration(a), Ref: ref(a), Size: 400, Stack: 7, Weight: 1})
		}
	}
	l := New()
	look(l, 0)
	say(l, 0x100, 0x300)
	look(l, 10*time.Second)
	say(l, 0x100)
	look(l, 20*time.Second, lost(0x100, 408), lost(0x300, 408))
	p := only(t, l)
	if len(p.Lost) != 2 || p.Lost[0].Stack != 0 || p.Lost[1].Stack != 7 {
		t.Errorf("%+v", p.Lost)
	}
	if len(p.Live) != 1 || p.Live[0].Records != 1 || p.Live[0].Lost.N != 1 {
		t.Errorf("%+v", p.Live)
	}
}

// A probe's clock may be as coarse as its polls: a block that it says before a
// look is not newer than the look.
func TestACoarseClockMakesNoNewBlock(t *testing.T) {
	l := New()
	look(l, 0)
	books := func() {
		l.Acquire(leak.Acquire{At: 30 * time.Second, Ref: ref(0x100), Size: 400, Stack: 7, Weight: 1})
	}
	books()
	look(l, 29*time.Second, lost(0x100, 408))
	books()
	look(l, 31*time.Second, lost(0x100, 408))
	if p := only(t, l); !p.Lost[0].Proved || p.Lost[0].Stack != 7 {
		t.Errorf("%+v", p.Lost)
	}
}

// A probe measures its counter anew each time, so the times that it says of one
// record differ a little.
func TestTheSameRecordSaidWithAnotherTime(t *testing.T) {
	l := New()
	look(l, 0)
	for i, at := range []time.Duration{29 * time.Second, 31 * time.Second} {
		l.Acquire(leak.Acquire{At: 5*time.Second + time.Duration(i)*3*time.Millisecond, Ref: ref(0x100), Size: 400, Stack: 7, Weight: 1})
		look(l, at, lost(0x100, 408))
	}
	p := only(t, l)
	if !p.Lost[0].Proved || p.Lost[0].Stack != 7 || p.Lost[0].OldestAt != 5*time.Second {
		t.Errorf("%+v", p.Lost)
	}
}

// A probe that was switched off repeats nothing: what it said of blocks that
// were lost by then stays true, of others nothing is known.
func TestAProbeThatWentQuiet(t *testing.T) {
	l := New()
	books := func() {
		for _, a := range []uint64{0x100, 0x300} {
			l.Acquire(leak.Acquire{At: 5 * time.Second, Ref: ref(a), Size: 400, Stack: 7, Weight: 1})
		}
	}
	look(l, 0)
	books()
	look(l, 10*time.Second, lost(0x100, 408))
	books()
	look(l, 11*time.Second, lost(0x100, 408))
	look(l, 30*time.Second, lost(0x100, 408), lost(0x300, 408))
	look(l, 31*time.Second, lost(0x100, 408), lost(0x300, 408))
	p := only(t, l)
	if len(p.Lost) != 2 || p.Lost[0].Stack != 0 || p.Lost[0].Since != 30*time.Second || p.Lost[1].Stack != 7 {
		t.Errorf("%+v", p.Lost)
	}
}

func TestCountedAndSampledBlocksOfOneStack(t *testing.T) {
	l := New()
	for _, exact := range []bool{true, false} {
		l.Tally(leak.Tally{At: time.Second, Proc: proc, Kind: leak.KindMemory, Stack: 1, Acquired: leak.Count{N: 5}, Exact: exact})
	}
	if p := only(t, l); len(p.Tallies) != 2 || p.Tallies[0].Exact || !p.Tallies[1].Exact {
		t.Errorf("%+v", p.Tallies)
	}
}

// A look that leaves an arena out of judgement does not list its blocks; they
// are not forgotten, and not proved by it either.
func TestBlocksLeftOutOfJudgement(t *testing.T) {
	const out = "arena 2 is left out: it was locked; none of its blocks is called lost"
	without := func(l *Ledger, at time.Duration, vs ...leak.Verdict) {
		l.Look(leak.Look{At: at, Proc: proc, Walked: true, Uncertainty: []string{out}})
		l.Verdicts(vs)
	}
	proved := func(l *Ledger) (proved, once uint64) {
		for _, c := range only(t, l).Lost {
			if c.Proved {
				proved += c.Direct + c.Indirect
			} else {
				once += c.Direct + c.Indirect
			}
		}
		return proved, once
	}
	arena1, arena2 := lost(0x100, 24), lost(0x200, 24)
	child := below(0x300, 24, 0x200)

	l := New()
	look(l, 0, arena1, arena2, child)
	without(l, 10*time.Second, arena1)
	if p, o := proved(l); p != 1 || o != 2 {
		t.Errorf("after the second look %d are proved, %d not", p, o)
	}
	without(l, 20*time.Second, lost(0x080, 24), arena1)
	look(l, 20500*time.Millisecond, arena1, arena2, child)
	if p, o := proved(l); p != 3 || o != 0 {
		t.Errorf("after the last look %d are proved, %d not", p, o)
	}
	without(l, 30*time.Second)
	if p, _ := proved(l); p != 3 {
		t.Errorf("what two looks proved is forgotten: %d", p)
	}
	look(l, 40*time.Second, arena1)
	if p, o := proved(l); p != 1 || o != 0 {
		t.Errorf("what a whole look does not list is not lost: %d, %d", p, o)
	}
	if g := only(t, l).Groups[0]; g.Disproof == 0 {
		t.Error("and it was proved once, which is a disproof")
	}
}

func TestARequestMustFitItsBlock(t *testing.T) {
	for _, c := range []struct {
		requested, usable uint64
		want              bool
	}{{400, 408, true}, {393, 424, true}, {392, 424, false}, {409, 408, false}, {1, 24, true}, {0, 24, true}, {1 << 20, 1<<20 + 4080, true}, {1 << 20, 1<<20 + 8192, false}} {
		if got := Fits(c.requested, c.usable); got != c.want {
			t.Errorf("Fits(%d, %d) = %v", c.requested, c.usable, got)
		}
	}
}

func TestAnAlignedRequestMayGetMore(t *testing.T) {
	for _, c := range []struct {
		requested, usable uint64
		want              bool
	}{{192, 232, true}, {192, 264, false}, {400, 399, false}, {512 << 10, 1568768, true}, {100 << 10, 500 << 10, false}} {
		if got := aligned(c.requested, c.usable); got != c.want {
			t.Errorf("aligned(%d, %d) = %v", c.requested, c.usable, got)
		}
	}
}

func TestSeriesAreBounded(t *testing.T) {
	l := New()
	for i := range 100_000 {
		at := time.Duration(i) * time.Second
		l.Gauge(leak.Gauge{At: at, Proc: proc, Name: leak.GaugeRSS, Value: float64(i)})
		l.Tally(leak.Tally{At: at, Proc: proc, Kind: leak.KindMemory, Stack: 1, Acquired: leak.Count{N: float64(i)}})
	}
	p := only(t, l)
	g, y := p.Gauges[leak.GaugeRSS], p.Tallies[0].Points
	if len(g) > maxPoints || len(y) > maxTallies || len(g) < maxPoints/2 || len(y) < maxTallies/2 {
		t.Errorf("%d points, %d tallies", len(g), len(y))
	}
	if g[0].Value != 0 || g[len(g)-1].Value != 99_999 || y[0].Acquired.N != 0 || y[len(y)-1].Acquired.N != 99_999 {
		t.Errorf("the ends are %v, %v and %v, %v", g[0], g[len(g)-1], y[0], y[len(y)-1])
	}
	var widest time.Duration
	for i := 1; i < len(g); i++ {
		widest = max(widest, g[i].At-g[i-1].At)
	}
	if widest > 100_000*time.Second*4/maxPoints {
		t.Errorf("a hole of %v", widest)
	}
}

func TestSeriesTakeAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := New()
	for _, i := range r.Perm(200) {
		l.Gauge(leak.Gauge{At: time.Duration(i), Proc: proc, Name: leak.GaugeRSS, Value: float64(i)})
	}
	g := only(t, l).Gauges[leak.GaugeRSS]
	if len(g) != 200 || !slices.IsSortedFunc(g, func(a, b Point) int { return cmpDuration(a.At, b.At) }) {
		t.Errorf("%d points: %v", len(g), g)
	}
}

func TestAViewIsFrozen(t *testing.T) {
	l := New()
	look(l, 0, lost(0x100, 24))
	l.Gauge(leak.Gauge{Proc: proc, Name: leak.GaugeRSS, Value: 1})
	before, again := l.View(), l.View()
	look(l, 5*time.Second, lost(0x100, 24), lost(0x200, 24))
	l.Gauge(leak.Gauge{Proc: proc, Name: leak.GaugeRSS, Value: 2})
	l.Stack(1, []leak.Frame{{Map: 1}})
	l.View()
	if diff := cmp.Diff(again, before); diff != "" {
		t.Error(diff)
	}
}

// TestMemoryOfManyLostBlocks holds the promise of the package's comment.
func TestMemoryOfManyLostBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("half a million blocks")
	}
	const blocks = 500_000
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := New()
	for at := range 2 {
		l.Look(leak.Look{At: time.Duration(at+1) * time.Second, Proc: proc, Walked: true})
		vs := make([]leak.Verdict, 0, 4096)
		for i := range uint64(blocks) {
			vs = append(vs, lost(0x7f0000000010+i*112, 104))
			if len(vs) == cap(vs) {
				l.Verdicts(vs)
				vs = vs[:0]
			}
		}
		l.Verdicts(vs)
	}
	p := only(t, l)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if p.Lost[0].Direct != blocks || !p.Lost[0].Proved {
		t.Fatalf("%+v", p.Lost)
	}
	if each := float64(after.HeapAlloc-before.HeapAlloc) / blocks; each > 19 {
		t.Errorf("%.1f bytes for each block are kept", each)
	}
	runtime.KeepAlive(l)
}

func BenchmarkTenMillionLost(b *testing.B) {
	vs := make([]leak.Verdict, 4096)
	for b.Loop() {
		l := New()
		for at := range 2 {
			l.Look(leak.Look{At: time.Duration(at+1) * time.Second, Proc: proc, Walked: true})
			for i := 0; i < 10_000_000; i += len(vs) {
				for j := range vs {
					vs[j] = lost(0x7f0000000010+uint64(i+j)*112, 104)
				}
				l.Verdicts(vs)
			}
		}
		l.View()
	}
}
