package ptrace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

var order = binary.LittleEndian // linux/amd64

func addr(a uint64) leak.Addr { return leak.Addr(a) }

// Stop is a target whose threads all stand still. Its methods may be called
// from any goroutine. Release must be called, also after an error; after a
// Snapshot or Copy it does nothing.
type Stop struct {
	target  *proc.Target
	opts    Options
	tracer  *tracer
	family  *Family // that the target belongs to; nil for a process that others started
	outlook *outlook
	only    int       // when not 0, the one thread to stop
	prefer  int       // when not 0, the one thread that may make calls; tests try each
	began   time.Time // when the first thread was told to stop

	// Set by Start before others see the Stop.
	public []Thread
	maps   []leak.Mapping
	reader *proc.Mem

	// Touched by the tracer's thread only.
	threads  []*thread
	mem      *proc.Mem // for writing too
	stub     *site     // where injected calls run, nil before the first is prepared
	placed   bool      // the stub's bytes are in the target
	filters  map[int]filterSet
	released error // why it is not held any more; nil while it is
	child    int   // made by the last injected clone
	stranded bool  // a thread was let go inside the stub
	keep     bool  // the tracer lives on: it holds a snapshot's child

	timer  *time.Timer
	pause  atomic.Int64 // nanoseconds, once released
	ending sync.Once
}

// Threads lists the stopped threads, the main thread first. Worker threads of
// the kernel (io_uring, vhost) are not among them: they go on.
func (s *Stop) Threads() []Thread { return s.public }

// Maps is the target's memory map, read while it stands still.
func (s *Stop) Maps() []leak.Mapping { return s.maps }

// Mem reads the target's memory. It is open for reading only: Write is the
// way to change something, since it knows whether the target is still held.
// It is closed by Release, Snapshot and Copy.
func (s *Stop) Mem() *proc.Mem { return s.reader }

// Pause is how long the target has stood still, or stood when it is released.
func (s *Stop) Pause() time.Duration {
	if p := s.pause.Load(); p != 0 {
		return time.Duration(p)
	}
	return time.Since(s.began)
}

// left is how much of the allowed pause remains.
func (s *Stop) left() time.Duration { return s.opts.maxPause() - time.Since(s.began) }

// held runs f on the tracing thread if the target is still held. When the
// target has ended, that is the error, whatever else failed.
func (s *Stop) held(f func() error) error {
	err := ErrReleased
	if !s.tracer.do(func() {
		if err = s.released; err != nil {
			return
		}
		if err = f(); err == nil {
			return
		}
		if gone := s.target.Check(); gone != nil {
			err = gone
		}
	}) {
		err = s.released // it does not change any more
	}
	return err
}

// Write puts p at a, through page protection, while the target is held. A
// text page of a file becomes a private copy. The kernel must allow forced
// writes through /proc/PID/mem, else PTRACE_POKETEXT is used.
func (s *Stop) Write(p []byte, a leak.Addr) error {
	return s.held(func() error { return s.write(p, a) })
}

func (s *Stop) write(p []byte, a leak.Addr) error {
	step("write memory")
	n, err := s.mem.WriteAt(p, a)
	if err == nil && n == len(p) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("write %d bytes at %v: only %d were written", len(p), a, n)
	}
	for _, t := range s.threads {
		if t.state == stopped {
			if poke(t.TID, uint64(a), p) == nil {
				return nil
			}
			break
		}
	}
	return err
}

// Release puts everything back and lets the target go on. It may be called
// again.
func (s *Stop) Release() error {
	var err error
	s.tracer.do(func() { err = s.release(ErrReleased) })
	s.timer.Stop()
	s.end()
	err = errors.Join(err, s.reader.Close())
	if s.stranded {
		s.stranded = false
		err = errors.Join(err, s.cleanUp())
	}
	return err
}

// cleanUp removes what was left because a call did not return in time. The
// thread comes back once the others run, and a child that nobody holds ends.
func (s *Stop) cleanUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := Clean(ctx, s.target)
	if errors.Is(err, proc.ErrGone) {
		return nil
	}
	return err
}

// end lets the tracer's thread end, unless it still holds a snapshot's child.
func (s *Stop) end() {
	s.ending.Do(func() {
		if !s.keep {
			s.endTracer()
			s.awaitDetached()
		}
	})
}

// endTracer ends the tracer's thread, unless it is a family's.
func (s *Stop) endTracer() {
	if s.family == nil {
		s.tracer.end()
	}
}

// release detaches all threads; why is what later calls are told. It runs on
// the tracing thread.
func (s *Stop) release(why error) error {
	if s.released != nil {
		return nil
	}
	s.released = why
	for _, t := range s.threads {
		s.stranded = s.stranded || t.busy && t.state != ended
	}
	err := s.removeStub()
	for _, t := range s.threads {
		if t.state != stopped {
			continue
		}
		if e := s.letGoOn(t); e != nil && !errors.Is(e, unix.ESRCH) && err == nil {
			err = fmt.Errorf("detach from thread %d: %w", t.TID, e)
		}
	}
	s.easeTracer()
	step("released")
	s.pause.Store(int64(time.Since(s.began)))
	return errors.Join(err, s.mem.Close())
}

// letGoOn detaches a stopped thread. One of a family goes on traced, and one
// that its family holds stays where it is.
func (s *Stop) letGoOn(t *thread) error {
	switch {
	case s.family == nil:
		return detach(t.TID)
	case t.parked:
		return nil
	}
	s.family.goOn(t.TID, t.group)
	return nil
}

// expire releases the target when its time is over.
func (s *Stop) expire() {
	s.tracer.do(func() {
		if s.released == nil {
			_ = s.release(fmt.Errorf("%w: the target was held for %v and then released", ErrPause, s.opts.maxPause()))
		}
	})
	s.end()
}

// open opens the target's memory, twice: the one that others see cannot write.
func (s *Stop) open() (err error) {
	if s.reader, err = s.target.Mem(); err != nil {
		return err
	}
	if s.mem, err = s.target.Root.OpenMem(s.target.ID.PID, os.O_RDWR); err != nil {
		_ = s.reader.Close()
		return err
	}
	if s.maps, err = s.target.Maps(); err != nil {
		_ = s.reader.Close()
		_ = s.mem.Close()
	}
	return err
}
