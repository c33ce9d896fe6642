package ledger

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"stanch/internal/leak"
)

// naive is what the books must say, computed from all events at the end.
type naive struct {
	looks    []naiveLook
	acquired map[uint64][]time.Duration
	released map[uint64][]time.Duration
}

type naiveLook struct {
	at   time.Duration
	lost map[uint64]uint64 // size by address
}

// since gives the first look since when addr is lost without a break, seen
// from the last look.
func (n *naive) since(addr uint64) int {
	last := len(n.looks) - 1
	i := last
	for ; i > 0; i-- {
		if n.looks[i-1].lost[addr] != n.looks[last].lost[addr] {
			break
		}
		between := func(at time.Duration) bool { return at > n.looks[i-1].at && at <= n.looks[i].at }
		if slices.ContainsFunc(n.acquired[addr], between) || slices.ContainsFunc(n.released[addr], between) {
			break
		}
	}
	return i
}

// TestAgainstANaiveLedger plays random lives of blocks and compares with the
// definition: lost in all looks since, same size, not given back between.
func TestAgainstANaiveLedger(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := New()
		n := naive{acquired: map[uint64][]time.Duration{}, released: map[uint64][]time.Duration{}}
		now := time.Duration(0)
		for range 2 + r.IntN(5) {
			for range r.IntN(20) {
				now += time.Duration(r.IntN(300)+1) * time.Millisecond
				addr := uint64(r.IntN(30)+1) * 16
				if r.IntN(2) == 0 {
					l.Acquire(leak.Acquire{At: now, Ref: ref(addr), Size: 20, Stack: 1, Weight: 1, Exact: true})
					n.acquired[addr] = append(n.acquired[addr], now)
				} else {
					l.Release(leak.Release{At: now, Ref: ref(addr)})
					n.released[addr] = append(n.released[addr], now)
				}
			}
			now += time.Duration(r.IntN(900)+1) * time.Millisecond
			k := naiveLook{now, map[uint64]uint64{}}
			var vs []leak.Verdict
			for addr := uint64(16); addr <= 480; addr += 16 {
				if r.IntN(3) > 0 {
					k.lost[addr] = 24 + 16*uint64(r.IntN(8)/7)
					vs = append(vs, lost(addr, k.lost[addr]))
				}
			}
			r.Shuffle(len(vs), func(i, j int) { vs[i], vs[j] = vs[j], vs[i] })
			n.looks = append(n.looks, k)
			look(l, now, vs...)
			if r.IntN(2) == 0 {
				l.View()
			}
		}
		type sum struct{ proved, once uint64 }
		var got, want sum
		for _, c := range only(t, l).Lost {
			if c.Proved {
				got.proved += c.Direct
			} else {
				got.once += c.Direct
			}
		}
		last := n.looks[len(n.looks)-1]
		for addr := range last.lost {
			proved := false
			for i := n.since(addr); i < len(n.looks); i++ {
				proved = proved || last.at-n.looks[i].at >= ProofApart
			}
			if proved {
				want.proved++
			} else {
				want.once++
			}
		}
		if got != want {
			t.Fatalf("seed %d: got %+v, want %+v", seed, got, want)
		}
	}
}
