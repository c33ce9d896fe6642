package ledger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

var child = leak.ProcID{PID: 4712, Start: 100}

// TestOneLookAtTheExitProves holds what a final look may claim: what it lists
// is proved when it is certain, and nothing changes after it.
func TestOneLookAtTheExitProves(t *testing.T) {
	for name, c := range map[string]struct {
		look leak.Look
		want bool
	}{
		"certain":      {leak.Look{Walked: true, Final: true}, true},
		"not final":    {leak.Look{Walked: true}, false},
		"not complete": {leak.Look{Final: true}, false},
		"pending":      {leak.Look{Walked: true, Final: true, PendingIO: true}, false},
		"uncertain":    {leak.Look{Walked: true, Final: true, Uncertainty: []string{"an arena was locked"}}, false},
		"left out":     {leak.Look{Walked: true, Final: true, Uncertainty: []string{"an arena was locked: none of its blocks is called lost"}}, true},
	} {
		l := New()
		c.look.Proc, c.look.At = proc, time.Second
		l.Look(c.look)
		l.Verdicts([]leak.Verdict{lost(0x10, 24)})
		// The probe's books are read with the look; its clock is coarse.
		l.Acquire(leak.Acquire{At: time.Second + time.Millisecond, Ref: ref(0x10), Size: 20, Stack: 7, Weight: 1, Exact: true})
		l.Release(leak.Release{At: time.Second + 2*time.Millisecond, Ref: ref(0x20)})
		p := l.View().Procs[0]
		if len(p.Lost) != 1 || p.Lost[0].Proved != c.want || c.look.Final && p.Lost[0].Old {
			t.Errorf("%s: %+v", name, p.Lost)
			continue
		}
		if got := p.Lost[0]; c.look.Final && (got.Stack != 7 || got.Requested != 20) {
			t.Errorf("%s: its record is not found: %+v", name, got)
		}
		if p.Ended() != c.look.Final || (p.FinalLook() != nil) != c.look.Final {
			t.Errorf("%s: ended %v, final look %v", name, p.Ended(), p.FinalLook())
		}
	}
}

// TestEndedUnseen is a process that was killed before anybody could look.
func TestEndedUnseen(t *testing.T) {
	l := New()
	l.Acquire(leak.Acquire{At: time.Second, Ref: ref(0x10), Size: 20, Stack: 7, Weight: 1, Exact: true})
	l.Look(leak.Look{Proc: proc, At: 2 * time.Second, Final: true})
	p := l.View().Procs[0]
	if !p.Ended() || p.FinalLook() != nil || len(p.Live) != 1 {
		t.Errorf("ended %v, final look %v, live %v", p.Ended(), p.FinalLook(), p.Live)
	}
}

// TestWhoAcquiredTheIndirectOnes holds that lost children keep their stacks.
func TestWhoAcquiredTheIndirectOnes(t *testing.T) {
	l := New()
	for i, stack := range []leak.StackID{1, 2, 2, 3} {
		l.Acquire(leak.Acquire{At: time.Second, Ref: ref(0x100 * uint64(i+1)), Size: 20, Stack: stack, Weight: 1, Exact: true})
	}
	l.Look(leak.Look{Proc: proc, At: 2 * time.Second, Walked: true, Final: true})
	l.Verdicts([]leak.Verdict{lost(0x100, 24), below(0x200, 24, 0x100), below(0x300, 24, 0x100), below(0x400, 24, 0x100), below(0x500, 24, 0x100)})
	cells := l.View().Procs[0].Lost
	if len(cells) != 1 {
		t.Fatalf("%+v", cells)
	}
	want := []Below{{Stack: 2, N: 2, Requested: 40}, {Stack: 3, N: 1, Requested: 20}}
	if diff := cmp.Diff(want, cells[0].Below); diff != "" || cells[0].Indirect != 4 {
		t.Errorf("%d indirect: %s", cells[0].Indirect, diff)
	}
}

// TestProcessesLookedAtInTurns holds that what is said of one process never
// gets into the books of another.
func TestProcessesLookedAtInTurns(t *testing.T) {
	other := leak.Ref{Proc: child, Kind: leak.KindMemory, ID: 0x10}
	l := New()
	l.Look(leak.Look{Proc: proc, At: time.Second, Walked: true, Final: true})
	l.Look(leak.Look{Proc: child, At: time.Second, Walked: true, Final: true})
	l.Verdicts([]leak.Verdict{lost(0x10, 24), lost(0x20, 24), {Ref: other, Size: 40, State: leak.LostDirect}})
	l.Held([]leak.Held{{Proc: proc, Size: 8, N: 1, Bytes: 8}, {Proc: child, Size: 8, N: 2, Bytes: 16}, {Size: 8, N: 4, Bytes: 32}})
	l.Verdicts([]leak.Verdict{{Ref: leak.Ref{Proc: leak.ProcID{PID: 1}, Kind: leak.KindMemory, ID: 0x10}, State: leak.LostDirect}})
	v := l.View()
	for i, want := range []struct{ lost, held uint64 }{{2, 1}, {1, 6}} {
		p := v.Procs[i]
		if len(p.Lost) != 1 || p.Lost[0].Direct != want.lost || len(p.Holders) != 1 || p.Holders[0].Last.N != want.held {
			t.Errorf("%v: lost %+v, held %+v, want %+v", p.ID, p.Lost, p.Holders, want)
		}
	}
	if len(v.Gaps) != 1 || v.Gaps[0].Lost != 1 {
		t.Errorf("gaps %+v", v.Gaps)
	}
}

func TestInvalidReleases(t *testing.T) {
	l := New()
	twice := leak.Invalid{At: 2 * time.Second, Ref: ref(0x10), Double: true, Stack: 3, Acquired: 1, Released: 2, Size: 40}
	l.Invalid(twice)
	twice.At, twice.Size = time.Second, 20
	l.Invalid(twice)
	l.Invalid(leak.Invalid{At: 3 * time.Second, Ref: ref(0x11), Stack: 3, Acquired: 9})
	want := []Invalid{
		{Kind: leak.KindMemory, Double: true, Stack: 3, Acquired: 1, Released: 2, N: 2, Bytes: 60, MinSize: 20, MaxSize: 40, First: time.Second, Last: 2 * time.Second},
		{Kind: leak.KindMemory, Stack: 3, N: 1, First: 3 * time.Second, Last: 3 * time.Second},
	}
	if diff := cmp.Diff(want, l.View().Procs[0].Invalid); diff != "" {
		t.Error(diff)
	}
	for i := range 2 * maxInvalid {
		l.Invalid(leak.Invalid{Ref: ref(uint64(i)), Stack: leak.StackID(i + 100)})
	}
	var n uint64
	got := l.View().Procs[0].Invalid
	for i := range got {
		n += got[i].N
	}
	if len(got) > maxInvalid+2 || n != 2*maxInvalid+3 {
		t.Errorf("%d kinds of %d releases are kept", len(got), n)
	}
}

// TestThirds holds in which part of a watch the things came that are held.
func TestThirds(t *testing.T) {
	l := New()
	for i := range 10 {
		l.Acquire(leak.Acquire{At: time.Duration(i) * time.Second, Ref: leak.Ref{Proc: proc, Kind: leak.KindMapping, ID: uint64(i)}, Size: 4096, Stack: 1, Weight: 1})
	}
	l.Release(leak.Release{At: 9 * time.Second, Ref: leak.Ref{Proc: proc, Kind: leak.KindMapping, ID: 1}})
	p := l.View().Procs[0]
	if len(p.Live) != 1 || p.Live[0].Thirds != [3]uint64{2, 3, 4} || p.Live[0].Count.Bytes != 9*4096 {
		t.Errorf("%+v", p.Live)
	}
}
