package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

func fd(num int) leak.Ref { return leak.Ref{Proc: proc, Kind: leak.KindDescriptor, ID: uint64(num)} }

func opened(at time.Duration, num int, stack leak.StackID, call string) leak.Acquire {
	return leak.Acquire{At: at, Ref: fd(num), Stack: stack, Weight: 1, Exact: true, Call: call}
}

func file(num int, inode uint64) leak.Descriptor {
	return leak.Descriptor{Num: num, Kind: "file", Name: fmt.Sprintf("/tmp/%d", inode), Inode: inode}
}

func socket(num int, inode uint64, s leak.Socket) leak.Descriptor {
	return leak.Descriptor{Num: num, Kind: "socket", Inode: inode, Socket: &s}
}

func listing(at time.Duration, open ...leak.Descriptor) leak.Listing {
	return leak.Listing{At: at, Proc: proc, Open: open}
}

// TestDescriptorsAgainstAModel plays random lives of descriptors. What is open
// and who opened it must be what was played, also between listings.
func TestDescriptorsAgainstAModel(t *testing.T) {
	type one struct {
		stack leak.StackID
		call  string
		at    time.Duration
		inode uint64
	}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		l := New()
		open := map[int]one{}
		type count struct{ opened, closed uint64 }
		counts := map[openKey]count{}
		older, inode, now := uint64(0), uint64(100), time.Duration(0)
		for num := range 5 {
			open[num] = one{at: -1, inode: uint64(num + 1)}
		}
		list := func() {
			x := leak.Listing{At: now, Proc: proc}
			for num, o := range open {
				x.Open = append(x.Open, file(num, o.inode))
			}
			l.Listing(x)
			for i := range x.Open {
				x.Open[i] = leak.Descriptor{Num: -9}
			}
		}
		list()
		for range r.IntN(2000) {
			now += time.Duration(r.IntN(200)+1) * time.Millisecond
			num := r.IntN(40)
			switch o, is := open[num]; {
			case r.IntN(50) == 0:
				list()
			case is:
				l.Release(leak.Release{At: now, Ref: fd(num), Stack: leak.StackID(r.IntN(2)), Call: "close"})
				delete(open, num)
				if o.at < 0 {
					older++
					break
				}
				c := counts[openKey{o.stack, o.call}]
				counts[openKey{o.stack, o.call}] = count{c.opened, c.closed + 1}
			default:
				inode++
				o := one{leak.StackID(r.IntN(5)), []string{"openat", "dup"}[r.IntN(2)], now, inode}
				a := opened(now, num, o.stack, o.call)
				l.Acquire(a)
				if r.IntN(10) == 0 {
					l.Acquire(a) // said again
				}
				open[num] = o
				c := counts[openKey{o.stack, o.call}]
				counts[openKey{o.stack, o.call}] = count{c.opened + 1, c.closed}
			}
		}
		p := only(t, l)
		if len(p.Open) != len(open) || p.ClosedOlder != older {
			t.Fatalf("seed %d: %d open, %d older closed; want %d and %d", seed, len(p.Open), p.ClosedOlder, len(open), older)
		}
		for i := range p.Open {
			o := &p.Open[i]
			if w := open[o.Num]; o.Opener != w.stack || o.Call != w.call || o.OpenedAt != w.at || o.Kind != "" && o.Inode != w.inode {
				t.Fatalf("seed %d: %+v, want %+v", seed, o, w)
			}
		}
		got, held := map[openKey]count{}, uint64(0)
		for _, o := range p.Openers {
			got[openKey{o.Stack, o.Call}] = count{o.Opened, o.Closed}
			held += o.Held
			closed := uint64(0)
			for _, c := range o.Closers {
				closed += c.N
			}
			if o.Held != o.Opened-o.Closed || o.Held != o.Thirds[0]+o.Thirds[1]+o.Thirds[2] || closed > o.Closed || (o.Held > 0) != (o.OldestAt >= 0) {
				t.Fatalf("seed %d: %+v", seed, o)
			}
		}
		if diff := cmp.Diff(counts, got, cmp.AllowUnexported(openKey{}, count{})); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if p.ProbeAt >= 0 {
			t.Fatal("a tracer of descriptors is taken for a probe")
		}
	}
}

// TestAMissedCloseIsFound holds that a listing corrects what a tracer missed,
// and that no descriptor gets the opener of another.
func TestAMissedCloseIsFound(t *testing.T) {
	l := New()
	l.Listing(listing(0))
	for num := 3; num <= 6; num++ {
		l.Acquire(opened(time.Second, num, 7, "openat"))
	}
	l.Listing(listing(5*time.Second, file(3, 30), file(4, 40), socket(5, 50, leak.Socket{})))
	l.Listing(listing(9*time.Second, file(3, 30), file(4, 41), socket(5, 50, leak.Socket{})))
	p := only(t, l)
	var known []int
	for _, o := range p.Open {
		if o.Opener != 0 {
			known = append(known, o.Num)
		}
	}
	// 4 is another file by now, 5 was never opened as a file, and 6 is closed.
	if !slices.Equal(known, []int{3}) || len(p.Open) != 3 || p.Openers[0].Closed != 2 {
		t.Errorf("known: %v of %+v; %+v", known, p.Open, p.Openers)
	}
	l.Release(leak.Release{At: 4 * time.Second, Ref: fd(6), Stack: 9, Call: "close"})
	if o := only(t, l).Openers[0]; o.Closed != 2 || len(o.Closers) != 1 {
		t.Errorf("a close that is said late counts twice: %+v", o)
	}
}

func TestWhatCameAfterTheListing(t *testing.T) {
	l := New()
	l.Listing(listing(5*time.Second, file(3, 30), file(4, 40), file(5, 50), file(6, 60)))
	l.Acquire(opened(2*time.Second, 3, 7, "openat")) // said late
	l.Release(leak.Release{At: 6 * time.Second, Ref: fd(4), Call: "close"})
	l.Release(leak.Release{At: 6 * time.Second, Ref: fd(5), Call: "dup2"})
	l.Acquire(opened(6*time.Second, 5, 8, "dup2"))
	l.Acquire(opened(7*time.Second, 9, 8, "socket"))
	l.Acquire(opened(5*time.Second+1, 6, 8, "openat")) // while the listing was read
	var got []string
	for _, o := range only(t, l).Open {
		got = append(got, fmt.Sprintf("%d %s inode %d by %d %s", o.Num, o.Kind, o.Inode, o.Opener, o.Call))
	}
	want := []string{"3 file inode 30 by 7 openat", "5  inode 0 by 8 dup2", "6 file inode 60 by 8 openat", "9  inode 0 by 8 socket"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHistoryOfASocket(t *testing.T) {
	at := func(s time.Duration) time.Duration { return s * time.Second }
	established := func(received time.Duration) leak.Socket {
		return leak.Socket{Protocol: "tcp", State: "ESTABLISHED", LastReceived: received, LastSent: at(1000)}
	}
	l := New()
	closing := leak.Socket{Protocol: "tcp", State: "CLOSE_WAIT", ReceiveQueue: 1, LastReceived: -1, LastSent: -1}
	l.Listing(listing(0, socket(3, 30, established(at(500))), socket(4, 40, established(at(500))), socket(5, 50, established(at(500)))))
	l.Listing(listing(at(10), socket(3, 30, established(at(510))), socket(4, 40, established(at(2))), socket(5, 51, established(at(510)))))
	l.Listing(listing(at(20), socket(3, 30, established(at(520))), socket(4, 40, closing), socket(5, 51, established(at(520)))))
	type history struct{ seen, state, quiet time.Duration }
	var got []history
	for _, o := range only(t, l).Open {
		got = append(got, history{o.SeenAt, o.StateAt, o.QuietAt})
	}
	want := []history{{0, 0, 0}, {0, at(20), -1}, {at(10), at(10), at(10)}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(history{})); diff != "" {
		t.Error(diff)
	}
}

func TestUses(t *testing.T) {
	l := New()
	l.Use(leak.Use{At: time.Second, Ref: fd(3), Call: "read"})
	l.Use(leak.Use{At: 3 * time.Second, Ref: fd(3), Call: "write", Error: "EPIPE"})
	l.Use(leak.Use{At: 2 * time.Second, Ref: fd(3), Call: "poll"})
	l.Use(leak.Use{At: time.Second, Ref: fd(4), Call: "read"})
	l.Acquire(opened(2*time.Second, 4, 1, "openat"))
	l.Use(leak.Use{At: time.Second, Ref: fd(4), Call: "read"})
	l.Listing(listing(5*time.Second, file(3, 30), file(4, 40)))
	open := only(t, l).Open
	if u := open[0].Use; u == nil || u.Call != "write" || u.Error != "EPIPE" || open[0].OpenedAt >= 0 {
		t.Errorf("%+v", open[0])
	}
	if open[1].Use != nil {
		t.Errorf("a call on the file that had the number before: %+v", open[1].Use)
	}
}

// TestExit holds that what the kernel closes at the exit was not closed by the
// program.
func TestExit(t *testing.T) {
	l := New()
	l.Acquire(opened(time.Second, 3, 7, "openat"))
	l.Acquire(opened(time.Second, 4, 7, "openat"))
	l.Release(leak.Release{At: 2 * time.Second, Ref: fd(4), Call: "close"})
	l.Release(leak.Release{At: 3 * time.Second, Ref: fd(3), Call: "exit"})
	p := only(t, l)
	if !p.Exited || len(p.Open) != 1 || p.Open[0].Num != 3 || p.Openers[0].Held != 1 || p.ClosedOlder != 0 {
		t.Errorf("%+v, %+v", p.Open, p.Openers)
	}
}

// TestExec holds that a process goes on over an exec: what its new program
// finds open keeps its opener, under another call.
func TestExec(t *testing.T) {
	l := New()
	l.Acquire(opened(time.Second, 3, 7, "openat"))
	l.Acquire(opened(time.Second, 4, 7, "openat"))
	l.Use(leak.Use{At: 2 * time.Second, Ref: fd(3), Call: "read"})
	l.Release(leak.Release{At: 3 * time.Second, Ref: fd(4), Call: "exec"})
	l.Acquire(opened(3*time.Second, 3, 0, "exec"))
	p := only(t, l)
	if len(p.Open) != 1 || p.Open[0].Opener != 7 || p.Open[0].Call != "exec" || p.Open[0].OpenedAt != 3*time.Second || p.Open[0].Use != nil {
		t.Errorf("%+v", p.Open)
	}
	want := []Opener{
		{Stack: 7, Call: "exec", Opened: 1, Held: 1, Thirds: [3]uint64{0, 0, 1}, OldestAt: 3 * time.Second},
		{Stack: 7, Call: "openat", Opened: 2, Closed: 2, OldestAt: -1},
	}
	if diff := cmp.Diff(want, p.Openers); diff != "" {
		t.Error(diff)
	}
}

func TestLimits(t *testing.T) {
	l := New()
	for i := range 1000 {
		limit := uint64(1024)
		if i > 500 {
			limit = 4096
		}
		l.Usage(leak.Usage{At: time.Duration(i) * time.Second, Proc: proc, Name: leak.UsageDescriptors, Used: uint64(i), Max: limit, Limit: "RLIMIT_NOFILE"})
	}
	for i := range maxUsages {
		l.Usage(leak.Usage{Proc: proc, Name: leak.UsagePorts, Scope: fmt.Sprint(i), Used: 1, Max: 2})
	}
	l.Failure(leak.Failure{At: 2, Proc: proc, Call: "socket", Errno: "EMFILE", N: 5})
	l.Failure(leak.Failure{At: 1, Proc: proc, Call: "socket", Errno: "EMFILE", N: 3})
	for at := range time.Duration(3) {
		l.Ownerless(leak.Ownerless{At: at, Proc: proc, State: "TIME_WAIT", Local: ":8080", N: uint64(at)})
		l.Ownerless(leak.Ownerless{At: at, Proc: proc, State: "FIN_WAIT1", N: 7})
		l.Input(leak.Input{At: at, Proc: proc, Size: 1 << 30, Num: 37})
	}
	v := l.View()
	p := v.Procs[0]
	if u := p.Usages[0]; u.Used != 999 || u.Max != 4096 || u.FirstMax != 1024 || u.RaisedAt != 501*time.Second || len(u.Points) > maxUsagePoints || u.Points[len(u.Points)-1].Value != 999 {
		t.Errorf("%d points of %+v", len(u.Points), u.Usage)
	}
	if len(p.Usages) != maxUsages || len(v.Gaps) != 1 || v.Gaps[0].Lost != 1 {
		t.Errorf("%d limits, %+v", len(p.Usages), v.Gaps)
	}
	if len(p.Failures) != 1 || p.Failures[0].N != 5 || len(p.Inputs) != 1 || len(p.Ownerless) != 2 || p.Ownerless[0].N != 2 {
		t.Errorf("%+v, %+v, %+v", p.Failures, p.Inputs, p.Ownerless)
	}
}
