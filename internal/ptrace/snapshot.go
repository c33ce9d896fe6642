package ptrace

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// SnapshotOptions shape a snapshot. There is nothing to choose yet.
type SnapshotOptions struct{}

// Snapshot is the memory of a target at one moment. It is a leak.Memory: a
// forked child that never runs, or a copy that was read while the target stood
// still. The target runs on meanwhile. Close must be called.
type Snapshot struct {
	mem     leak.Memory
	threads []Thread
	maps    []leak.Mapping
	missing []leak.Range
	pause   time.Duration
	child   *child // nil for a copy
}

// ReadAt reads memory as it was; see leak.Memory. Once the snapshot had to be
// given up it returns ErrAbandoned.
func (s *Snapshot) ReadAt(p []byte, a leak.Addr) (int, error) {
	return s.mem.ReadAt(p, a)
}

// Threads are the target's threads at the moment of the snapshot.
func (s *Snapshot) Threads() []Thread { return s.threads }

// Maps is the target's memory map at that moment.
func (s *Snapshot) Maps() []leak.Mapping { return s.maps }

// Missing are mappings that the snapshot does not have (MADV_DONTFORK), or not
// frozen: shared mappings show what the target writes now. They can be read
// from the live process.
func (s *Snapshot) Missing() []leak.Range { return s.missing }

// Resident lists the parts of r that have memory, present or swapped out. All
// else reads as zero, or as the file that is mapped there, and reading it would
// only make the kernel fill in page tables.
func (s *Snapshot) Resident(r leak.Range) ([]leak.Range, error) {
	if s.child != nil {
		return s.child.resident(r)
	}
	var out []leak.Range
	for _, p := range s.mem.(pieces) {
		if start, end := max(p.Start, r.Start), min(p.End, r.End); p.data != nil && start < end {
			out = append(out, leak.Range{Start: start, End: end})
		}
	}
	return out, nil
}

// Pause is how long the target stood still for it.
func (s *Snapshot) Pause() time.Duration { return s.pause }

// Close ends the snapshot and removes every trace of it: the child is killed,
// and reaped inside the target, for which one of its threads stops for a
// fraction of a millisecond. An error says what is left; Clean removes it. It
// may be called twice.
func (s *Snapshot) Close() error {
	if s.child == nil {
		return nil // a copy goes with the last reference to it
	}
	return s.child.finish()
}

// Snapshot forks a child from the target that shares its memory copy-on-write
// and its descriptor table, and never runs; then it releases the target. The
// child shares the table so that a close in the target closes: peers see it,
// epoll forgets it, locks are released.
//
// An error that wraps ErrNoFork says what refuses a fork: headroom, a limit on
// processes, a seccomp filter, a userfaultfd. The target is still held then,
// and Copy may serve. After any other error Release is what is left to do.
func (s *Stop) Snapshot(SnapshotOptions) (*Snapshot, error) {
	var c *child
	err := s.held(func() error {
		var err error
		if c, err = s.fork(); c == nil {
			return err
		}
		// The child has its memory, and stops by itself before it runs. What
		// is still to be done with it need not keep the target waiting.
		s.keep = true
		if err = errors.Join(err, s.release(ErrReleased)); err == nil {
			err = c.adopt()
		}
		return err
	})
	if c == nil {
		if errors.Is(err, ErrStuck) {
			err = errors.Join(err, s.Release())
		}
		return nil, err
	}
	s.timer.Stop()
	s.end()
	_ = s.reader.Close()
	c.watch()
	snap := &Snapshot{mem: c, threads: s.public, maps: s.maps, pause: s.Pause(), child: c}
	if err != nil {
		return nil, errors.Join(err, snap.Close())
	}
	snap.missing = c.missing(s.maps)
	return snap, nil
}

// fork makes the child. With an error, there is a child all the same when it
// is not nil, and it must be ended.
func (s *Stop) fork() (*child, error) {
	budget, err := s.affords()
	if err != nil {
		return nil, err
	}
	in := injection{nr: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_FILES | unix.CLONE_FS}, forks: true}
	// What cannot be reaped afterwards must not be made.
	th, prog, err := s.host(&in, Syscall{unix.SYS_WAIT4, [6]uint64{1 << 22, 0, unix.WALL | unix.WNOHANG}})
	if err == nil {
		err = s.bearsHere(th)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoFork, err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoFork, err)
	}
	s.child = 0
	_, err = s.injectIn(th, prog, true)
	if s.child != 0 {
		return &child{stop: s, pid: s.child, host: th.TID, budget: budget, wake: wake, quit: make(chan struct{}), done: make(chan struct{})}, err
	}
	_ = unix.Close(wake)
	var e unix.Errno
	switch {
	case errors.As(err, &e):
		return nil, fmt.Errorf("%w: clone in the target: %w", ErrNoFork, e)
	case err == nil:
		err = errors.New("clone in the target succeeded, and no child came")
	}
	return nil, err
}
