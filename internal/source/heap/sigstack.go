package heap

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/ptrace"
)

// A thread's alternate signal stack may lie in the heap with nobody but the
// kernel pointing to it, and the kernel shows it to that thread alone. So when
// a block seems lost that might be one, each thread is made to ask, in another
// short stop.

const (
	// minSignalStack is MINSIGSTKSZ: sigaltstack takes nothing smaller.
	minSignalStack = 2048
	// scratch is where the answers go, below a stack pointer and its red zone,
	// where nothing is kept.
	scratch = 512
	// askPause is what one question may take.
	askPause = 5 * time.Millisecond
	// askRounds is how often the target is stopped until every thread has
	// answered: one that stands at the start of a signal handler cannot, just
	// then, and one that gets signals all the time often stands there.
	askRounds = 8

	disabled = 2 // SS_DISABLE
)

// signalStacks takes alternate signal stacks back from the lost blocks.
func (l *liveLook) signalStacks(r *Result) error {
	if !r.Walked || !r.mayBeStack() {
		return nil
	}
	stacks := map[int]uint64{}
	whole := false
	for round := 0; round < askRounds && !whole; round++ {
		var err error
		if whole, err = l.askThreads(stacks); err != nil {
			return err
		}
	}
	if err := r.revive(stacks); err != nil {
		return err
	}
	if !whole && r.mayBeStack() {
		r.Doubts = append(r.Doubts, fmt.Sprintf("not every thread could be asked for its alternate signal stack; a lost block of %d bytes or more may be one", minSignalStack))
	}
	return nil
}

// mayBeStack reports whether a directly lost block may be a signal stack.
func (r *Result) mayBeStack() bool {
	found := errors.New("found")
	err := r.lost.places(func(id uint32, p place) error {
		if state, _ := r.lost.state(id); p.size >= minSignalStack && state == leak.LostDirect {
			return found
		}
		return nil
	})
	return errors.Is(err, found)
}

// askThreads asks every thread of which stacks, by thread id, does not tell the
// answer yet, 0 for none; whole is true when none is left to ask.
func (l *liveLook) askThreads(stacks map[int]uint64) (whole bool, err error) {
	if l.left() < 2*askPause {
		return false, nil
	}
	stop, err := l.stop()
	if err != nil {
		return false, err
	}
	defer func() {
		err = errors.Join(err, stop.Release())
		l.charge(stop.Pause())
	}()
	threads := stop.Threads()
	at, ok := answerRoom(stop, threads)
	if !ok {
		return false, nil
	}
	whole = true
	for i := range threads {
		tid := threads[i].TID
		if _, asked := stacks[tid]; asked {
			continue
		}
		if l.left()-stop.Pause() < askPause {
			return false, nil
		}
		stack, err := ask(stop, tid, at)
		switch {
		case errors.Is(err, ptrace.ErrReleased), errors.Is(err, ptrace.ErrPause):
			return false, nil
		case err != nil:
			whole = false
		default:
			stacks[tid] = stack
		}
	}
	return whole, nil
}

// answerRoom finds room for an answer in what a thread does not use of its
// stack. One place serves all: they stand still, and a thread that is on a
// signal stack itself has none of its own that is known to be free.
func answerRoom(stop *ptrace.Stop, threads []ptrace.Thread) (at uint64, ok bool) {
	// The bounds of stacks are found as for roots.
	w := &walk{img: &Image{Mem: stop.Mem(), Maps: stop.Maps()}, pages: newPager(stop.Mem())}
	for i := range threads {
		t := threadOf(threads[i].TID, &threads[i].Regs)
		if free := w.stackOf(&t, 0).unused; free.End >= free.Start+2*scratch {
			return (uint64(free.End) - scratch) &^ 15, true
		}
	}
	return 0, false
}

// ask makes one thread ask for its alternate signal stack, 0 when it has none.
// The answer, a stack_t, goes to at.
func ask(stop *ptrace.Stop, tid int, at uint64) (uint64, error) {
	if _, err := stop.CallIn(tid, unix.SYS_SIGALTSTACK, 0, at); err != nil {
		return 0, err
	}
	var answer [24]byte // ss_sp, ss_flags, ss_size
	if err := readFull(stop.Mem(), answer[:], at); err != nil {
		return 0, err
	}
	if order.Uint32(answer[8:])&disabled != 0 {
		return 0, nil
	}
	return load(answer[:]), nil
}

// revive makes roots of signal stacks, by thread, and decides anew over what is
// lost.
func (r *Result) revive(stacks map[int]uint64) error {
	m, err := newMarker(r.graph)
	if err != nil {
		return err
	}
	defer m.stack.free()
	hits := 0
	for tid, stack := range stacks {
		if stack == 0 {
			continue
		}
		if err := m.begin(leak.Root{What: whatStack, TID: tid}); err != nil {
			return err
		}
		id, ok := m.target(stack)
		if !ok || bitset(m.marked.s).has(id) {
			continue
		}
		hits++
		if err := m.hit(id); err != nil {
			return err
		}
	}
	if err := m.flush(); err != nil || hits == 0 {
		return err
	}
	r.Held = append(r.Held, m.holders(&r.opts)...)
	r.lost.free()
	if r.lost, err = findLost(r.graph); err != nil {
		return err
	}
	r.Direct = r.lost.direct
	return r.countLost()
}
