package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// live is the memory of the running target.
type live struct{ *proc.Mem }

func (l live) put(at uint64, p []byte) error {
	for len(p) > 0 {
		step("write")
		n, err := l.WriteAt(p, leak.Addr(at))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("write at %#x: %w", at, io.ErrUnexpectedEOF) // the address space is gone
		}
		p, at = p[n:], at+uint64(n)
	}
	return nil
}

// openLive opens the target's memory for reading and writing.
func openLive(t *proc.Target) (live, error) {
	m, err := t.Root.OpenMem(t.ID.PID, unix.O_RDWR)
	if err != nil {
		return live{}, err
	}
	if err := t.Check(); err != nil { // the PID may have a new owner
		_ = m.Close()
		return live{}, err
	}
	return live{m}, nil
}

// held is the memory of the stopped target.
type held struct{ *ptrace.Stop }

func (h held) ReadAt(p []byte, a leak.Addr) (int, error) { return h.Mem().ReadAt(p, a) }

func (h held) put(at uint64, p []byte) error { return h.Write(p, leak.Addr(at)) }

// pauses bounds the stops of one operation, retries included.
type pauses struct {
	t    *proc.Target
	max  time.Duration
	took []time.Duration
}

func (p *pauses) left() time.Duration {
	left := p.max
	for _, d := range p.took {
		left -= d
	}
	return left
}

// during runs f while the target stands still.
func (p *pauses) during(ctx context.Context, f func(held) error) error {
	left := p.left()
	if left < leastPause {
		return fmt.Errorf("%w: %v are used up", ptrace.ErrPause, p.max)
	}
	began := time.Now()
	s, err := ptrace.Start(ctx, p.t, ptrace.Options{MaxPause: left})
	if errors.Is(err, ptrace.ErrStuck) {
		p.took = append(p.took, time.Since(began)) // at most; some threads waited for one
		return errMoment(err.Error())
	}
	if err != nil {
		return err
	}
	err = f(held{s})
	if e := s.Release(); err == nil {
		err = e
	}
	p.took = append(p.took, s.Pause())
	return err
}

// leastPause is what a stop needs to be of any use.
const leastPause = 10 * time.Millisecond

// tries is how often an unlucky moment is answered with another one.
const tries = 12

// patiently repeats during until f does not return errMoment.
func (p *pauses) patiently(ctx context.Context, f func(held) error) error {
	wait := time.Millisecond
	for n := 1; ; n++ {
		err := p.during(ctx, f)
		var m errMoment
		if !errors.As(err, &m) && !errors.Is(err, ptrace.ErrStuck) {
			return err
		}
		if n == tries || p.left() < leastPause {
			return fmt.Errorf("%w (looked %d times): %w", ErrBusy, n, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 100*time.Millisecond)
	}
}

// errMoment says what is in the way at this moment.
type errMoment string

func (e errMoment) Error() string { return string(e) }

// stackWords calls f for the words on a stopped thread's stack, from 128 bytes
// below its stack pointer (the red zone) up to most bytes above.
func stackWords(h held, maps []leak.Mapping, sp, most uint64, f func(at, word uint64) bool) error {
	from := (sp - 128) &^ 7
	m := proc.Find(maps, leak.Addr(sp))
	if m == nil {
		return nil // a thread without a stack is not in our code
	}
	from = max(from, uint64(m.Start))
	to := min(uint64(m.End), from+most)
	b := make([]byte, to-from)
	n, err := h.ReadAt(b, leak.Addr(from))
	if err != nil && n == 0 {
		return err
	}
	for i := 0; i+8 <= n; i += 8 {
		if !f(from+uint64(i), order.Uint64(b[i:])) {
			return nil
		}
	}
	return nil
}
