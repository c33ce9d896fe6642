package heap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// Scanner looks at the heap of a live process. One Scanner may look several
// times at one process, not at the same time.
type Scanner struct {
	Options
	// N is the number of the next look; 0 means 1. Scan counts it up.
	N int
	// OnSnapshot, when not nil, is called as soon as there is a snapshot, and
	// may read it until it returns. An error ends the look.
	OnSnapshot func(mem leak.Memory, maps []leak.Mapping) error

	stopWait time.Duration // how long threads may take to stop; tests on a busy machine give more
}

// maxStops bounds how often the process is stopped for one look.
const maxStops = 20

// strictStops is how many stops are spent on finding a process with several
// threads with none of them inside the allocator, before free locks are enough.
const strictStops = 4

// retryAfter is how long the process runs between two stops.
const retryAfter = 500 * time.Microsecond

// Scan takes one look: it stops the process at a moment when no thread is at
// work in the allocator, takes a snapshot, lets the process go on, analyzes the
// snapshot and says the result to sink: a Gauge for each stop, then what
// Result.Emit says. The process stands still for Options.MaxPause at most, all
// stops together; what is predicted to take longer is refused with
// ptrace.ErrPause. The process exiting gives proc.ErrGone.
func (s *Scanner) Scan(ctx context.Context, t *proc.Target, sink leak.Sink) error {
	if s.N == 0 {
		s.N = 1
	}
	l := &liveLook{Scanner: s, ctx: ctx, target: t, sink: sink}
	defer l.close()
	if err := l.prepare(); err != nil {
		return err
	}
	if err := l.freeze(); err != nil {
		return err
	}
	if err := l.report(); err != nil {
		return err
	}
	s.N++
	return nil
}

// liveLook is one look of a Scanner.
type liveLook struct {
	*Scanner
	ctx    context.Context
	target *proc.Target
	sink   leak.Sink

	mem    *proc.Mem // of the process as it runs
	pager  *pager
	guard  *guard
	mains  []*arena // as they were before the stop: only where they are matters
	kernel *kernelState
	plan   time.Duration // predicted pause of the snapshot

	at     time.Duration
	paused time.Duration // all stops so far
	snap   *ptrace.Snapshot
	img    *Image
	only   answer
}

func (l *liveLook) close() {
	if l.snap != nil {
		_ = l.snap.Close() // report has returned its error already
	}
	if l.mem != nil {
		_ = l.mem.Close() // it was only read
	}
}

func (l *liveLook) maxPause() time.Duration {
	if l.MaxPause > 0 {
		return l.MaxPause
	}
	return 250 * time.Millisecond
}

func (l *liveLook) left() time.Duration { return l.maxPause() - l.paused }

// now is the time of the observation.
func (l *liveLook) now() time.Duration {
	if l.Clock == nil {
		return 0
	}
	return l.Clock.Now()
}

// prepare does all that need not be done while the process stands still.
func (l *liveLook) prepare() error {
	plan, err := ptrace.Preflight(l.target, ptrace.Options{MaxPause: l.maxPause()})
	if err != nil {
		return err
	}
	if l.plan = plan.Pause; l.plan > l.maxPause() {
		return fmt.Errorf("%w: a snapshot stops it for about %v, %v are allowed", ptrace.ErrPause, l.plan.Round(time.Millisecond), l.maxPause())
	}
	if l.mem, err = l.target.Mem(); err != nil {
		return err
	}
	maps, err := l.target.Maps()
	if err != nil {
		return err
	}
	// What the process writes meanwhile does not matter: addresses stay.
	img := &Image{Mem: l.mem, Maps: maps, OpenFile: l.open}
	l.pager = newPager(l.mem)
	l.mains = mainArenas(img, l.pager, runningWrong)
	l.guard = newGuard(img, l.mains)
	l.kernel, err = newKernelState(l.target)
	return err
}

func (l *liveLook) open(m *leak.Mapping) (File, error) { return l.target.OpenFile(m) }

// freeze stops the process until it is quiet, and takes the snapshot.
func (l *liveLook) freeze() error {
	for try := 1; ; try++ {
		stop, err := l.stop()
		if err != nil {
			return err
		}
		state := l.look(stop, try)
		last := try == maxStops || l.left()-stop.Pause() < 2*(l.plan+stop.Pause())
		if state == quiet || last {
			if state == entered || state == undecided {
				l.only = inside
			}
			return l.snapshot(stop)
		}
		err = stop.Release()
		l.charge(stop.Pause())
		if err != nil {
			return err
		}
		if state == undecided {
			l.guard.prepare()
		}
		if err := l.rest(); err != nil {
			return err
		}
	}
}

// stop stops the process. On a busy machine a thread may not get the CPU in time
// to stop; all are released then, and it is worth another try.
func (l *liveLook) stop() (*ptrace.Stop, error) {
	const patience = 3
	wait := 50 * time.Millisecond
	if l.stopWait > 0 {
		wait = l.stopWait
	}
	for try := 1; ; try++ {
		stop, err := ptrace.Start(l.ctx, l.target, ptrace.Options{MaxPause: l.left(), StopWait: wait})
		if !errors.Is(err, ptrace.ErrStuck) {
			return stop, err
		}
		l.charge(wait)
		if try == patience || l.left() < wait+2*l.plan {
			return nil, err
		}
		if err := l.rest(); err != nil {
			return nil, err
		}
	}
}

// rest lets the process run a little.
func (l *liveLook) rest() error {
	select {
	case <-time.After(retryAfter):
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

// charge books a stop.
func (l *liveLook) charge(pause time.Duration) {
	l.paused += pause
	l.sink.Gauge(leak.Gauge{At: l.now(), Proc: l.target.ID, Name: leak.GaugePause, Value: pause.Seconds()})
}

// stillness is what a stop finds.
type stillness uint8

const (
	quiet     stillness = iota // no thread is at work in the allocator
	locked                     // an arena is locked: it can be left out
	nearby                     // no lock is held, but a thread is inside
	entered                    // the only thread is inside, where it takes no locks
	undecided                  // it may be; unwinding tables would tell
)

// look says whether the stopped process is quiet.
func (l *liveLook) look(stop *ptrace.Stop, try int) stillness {
	p := l.pager
	p.aim(stop.Mem())
	if len(l.mains) == 0 && try == 1 {
		// What changes all the time may not have been recognized.
		img := &Image{Mem: stop.Mem(), Maps: stop.Maps(), OpenFile: l.open}
		l.mains = mainArenas(img, p, stoppedWrong)
		l.guard = newGuard(l.guard.img, l.mains)
	}
	for _, m := range l.mains {
		for at, n := m.addr, 0; n < maxArenas; n++ {
			mutex, err1 := p.word(at)
			next, err2 := p.word(at + m.state.next)
			if err1 != nil || err2 != nil {
				break
			}
			if uint32(mutex) != 0 {
				return locked
			}
			if at = next; at == m.addr || at == 0 {
				break
			}
		}
	}
	if len(l.mains) == 0 {
		return quiet
	}
	threads := stop.Threads()
	if len(threads) > 1 {
		for i := range threads {
			if try <= strictStops && l.guard.in(threads[i].Regs.Rip) {
				return nearby
			}
		}
		return quiet
	}
	for i := range threads {
		t := threadOf(threads[i].TID, &threads[i].Regs)
		t.InSyscall = threads[i].InSyscall
		switch l.guard.only(&t) {
		case inside:
			return entered
		case unsure:
			return undecided
		}
	}
	return quiet
}

// snapshot takes the snapshot, or where no child can be forked a copy of what
// matters, and releases the process.
func (l *liveLook) snapshot(stop *ptrace.Stop) error {
	l.at = l.now()
	img := &Image{Maps: stop.Maps(), OpenFile: l.open}
	for _, t := range stop.Threads() {
		thread := threadOf(t.TID, &t.Regs)
		thread.InSyscall = t.InSyscall
		img.Threads = append(img.Threads, thread)
	}
	var absent []leak.Range
	var err error
	if img.Kernel, img.PendingIO, err = l.kernel.read(stop.Maps()); err == nil {
		l.snap, err = stop.Snapshot(ptrace.SnapshotOptions{})
		if errors.Is(err, ptrace.ErrNoFork) {
			why := err
			parts := wanted(img.Maps)
			if l.snap, err = stop.Copy(parts); err != nil {
				err = fmt.Errorf("%w; reading it while it stands still: %w", why, err)
			}
			absent = subtract([]leak.Range{{End: userEnd}}, parts)
		}
	}
	if err != nil {
		err = errors.Join(err, stop.Release())
		l.charge(stop.Pause())
		return err
	}
	l.charge(l.snap.Pause())
	if absent == nil {
		absent = l.snap.Missing()
	}
	mem := newFrozen(l.snap, l.target, l.mem, absent)
	img.Mem, img.Resident = mem, mem.resident
	if l.Exclude != nil {
		img.Exclude = l.Exclude()
	}
	l.img = img
	if l.OnSnapshot != nil {
		return l.OnSnapshot(mem, img.Maps)
	}
	return nil
}

// wanted lists what a copy must hold: all memory that the process may have
// written to.
func wanted(maps []leak.Mapping) []leak.Range {
	var out []leak.Range
	for i := range maps {
		m := &maps[i]
		relro := i+1 < len(maps) && sameFile(m, &maps[i+1]) && maps[i+1].Write
		if m.Read && !m.Shared && (m.Write || relro && !m.Exec || anonymous(m)) {
			out = append(out, leak.Range{Start: m.Start, End: m.End})
		}
	}
	return out
}

// report analyzes the snapshot and says what it found.
func (l *liveLook) report() error {
	r, err := analyze(l.ctx, l.img, l.Options, &l.only)
	if err != nil {
		return l.gone(err)
	}
	defer r.Close()
	if err := l.signalStacks(r); err != nil {
		return l.gone(err)
	}
	r.Doubts = append(r.Doubts, l.kernel.doubts...)
	err = r.Emit(l.sink, Look{N: l.N, At: l.at, Proc: l.target.ID, Pause: l.paused})
	if err != nil {
		return l.gone(err)
	}
	return l.snap.Close()
}

// gone makes the errors of a process that has exited one.
func (l *liveLook) gone(err error) error {
	if e := l.target.Check(); e != nil && !errors.Is(err, proc.ErrGone) {
		return fmt.Errorf("%w (%w)", e, err)
	}
	return err
}
