package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/source/probe"
)

// tries is how often something is tried when the machine is so busy that the
// target's threads do not stop in time. After each such try all of them go on.
const tries = 6

// patiently repeats f until the target could be stopped, or tries are used up.
func patiently(ctx context.Context, f func() error) error {
	wait := 50 * time.Millisecond
	for try := 1; ; try++ {
		err := f()
		if busy := errors.Is(err, ptrace.ErrStuck) || errors.Is(err, probe.ErrBusy); !busy || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// present returns proc.ErrGone unless the target lives and still runs the
// program that it ran when the observation began.
func (o *observation) present() error {
	if err := o.target.Check(); err != nil {
		return err
	}
	now, err := o.target.ExecID()
	if err != nil {
		return err
	}
	if now != o.program {
		return fmt.Errorf("%s started another program: %w", o.name(), proc.ErrGone)
	}
	return nil
}

// ended turns the end of the target into a note: it is an ending, no error.
// Whatever failed after it failed because of it.
func (o *observation) ended(err error) error {
	if err == nil {
		return nil
	}
	what := "ended"
	switch gone := o.present(); {
	case gone == nil && !errors.Is(err, proc.ErrGone):
		return err
	case gone != nil && !errors.Is(gone, proc.ErrGone):
		return err
	case o.target.Check() == nil:
		what = "started another program"
	}
	o.note("%s %s while it was watched; the report holds what was seen until then", o.name(), what)
	return nil
}
