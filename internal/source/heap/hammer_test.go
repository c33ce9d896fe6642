package heap

import (
	"context"
	"fmt"
	"os"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/proc"
)

// TestHammer looks again and again at programs that are inside the allocator
// nearly all of the time, and lose nothing. STANCH_LONG=1 looks more often.
func TestHammer(t *testing.T) {
	looks := 20
	if os.Getenv("STANCH_LONG") == "1" {
		looks = 200
	}
	exe := compile(t, "hammer.c")
	for _, threads := range []int{1, 2, 4, 8} {
		t.Run(fmt.Sprintf("%d threads", threads), func(t *testing.T) {
			p := fixture.Start(t, exe, fmt.Sprint(threads))
			target, err := proc.Default.Open(p.PID())
			if err != nil {
				t.Fatal(err)
			}
			s := &Scanner{Options: Options{Clock: proc.NewClock(), MaxPause: patience}, stopWait: patience}
			whole, stops := 0, 0
			for range looks {
				b := newBook()
				if err := s.Scan(context.Background(), target, b); err != nil {
					t.Fatal(err)
				}
				look := b.looks[0]
				stops += len(b.gauges)
				if look.Walked && len(look.Uncertainty) == 0 {
					whole++
				}
				for id, v := range b.verdicts {
					t.Errorf("look %d: false leak: %#x of %d bytes, %v, %v", look.N, id, v.Size, v.Shape, look)
				}
				for _, g := range b.gaps {
					t.Logf("look %d: %s", look.N, g.What)
				}
				for _, u := range look.Uncertainty {
					t.Logf("look %d: %s", look.N, u)
				}
			}
			t.Logf("%d looks, %d stops, %d looks without a doubt", looks, stops, whole)
			if whole < looks*3/4 {
				t.Errorf("%d of %d looks were without a doubt", whole, looks)
			}
			p.Kill()
		})
	}
}
