package probe

import (
	"context"
	"errors"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
)

// TestHardened: a target that may not make writable memory executable is
// watched all the same; one for which a needed call is fatal is refused before
// anything was tried, and lives.
func TestHardened(t *testing.T) {
	exe := compile(t, "hardened.c")
	t.Run("mdwe", func(t *testing.T) {
		prog := fixture.Start(t, exe, "mdwe")
		o := options()
		o.Aim = aim(400)
		tr := place(t, prog, o)
		tr.look()
		prog.Ask("check", "ok")
		if n := len(tr.books()); n != 100 {
			t.Errorf("%d records, want 100", n)
		}
	})
	for _, c := range []struct {
		how, why string
		err      error
	}{{"kill", "seccomp", proc.ErrUnsupported}, {"notsc", "time stamp counter", proc.ErrUnsupported}} {
		t.Run(c.how, func(t *testing.T) {
			prog := fixture.Start(t, exe, c.how)
			target := open(t, prog.PID())
			o := options()
			o.Clock, o.Atlas = proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil)
			_, err := Place(context.Background(), target, o)
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("place: %v", err)
			}
			prog.Ask("check", "ok")
			clean(t, target)
			prog.Quit()
		})
	}
}
