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
	// scratch is where the answer goes, below the stack pointer and its red
	// zone, where nothing is kept.
	scratch = 512
	// askPause is what one question may take.
	askPause = 5 * time.Millisecond

	disabled = 2 // SS_DISABLE
)

// signalStacks takes alternate signal stacks back from the lost blocks.
func (l *liveLook) signalStacks(r *Result) error {
	if !r.Walked || !r.mayBeStack() {
		return nil
	}
	words, whole, err := l.askThreads()
	if err != nil {
		return err
	}
	if err := r.revive(words); err != nil {
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

// threadWord is a pointer that the kernel holds for a thread.
type threadWord struct {
	tid  int
	word uint64
}

// askThreads asks every thread; whole is false when one could not be asked.
func (l *liveLook) askThreads() (words []threadWord, whole bool, err error) {
	if l.left() < 2*askPause {
		return nil, false, nil
	}
	stop, err := l.stop()
	if err != nil {
		return nil, false, err
	}
	defer func() {
		err = errors.Join(err, stop.Release())
		l.charge(stop.Pause())
	}()
	// The bounds of stacks are found as for roots.
	w := &walk{img: &Image{Mem: stop.Mem(), Maps: stop.Maps()}, pages: newPager(stop.Mem())}
	threads := stop.Threads()
	whole = true
	for i := range threads {
		t := threadOf(threads[i].TID, &threads[i].Regs)
		free := w.stackOf(&t, 0).unused
		if free.End < free.Start+2*scratch || l.left()-stop.Pause() < askPause {
			whole = false
			continue
		}
		word, err := ask(stop, t.TID, (uint64(free.End)-scratch)&^15)
		switch {
		case errors.Is(err, ptrace.ErrReleased), errors.Is(err, ptrace.ErrPause):
			return words, false, nil
		case err != nil:
			whole = false
		case word != 0:
			words = append(words, threadWord{t.TID, word})
		}
	}
	return words, whole, nil
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

// revive makes roots of more words and decides anew over what is lost.
func (r *Result) revive(words []threadWord) error {
	m, err := newMarker(r.graph)
	if err != nil {
		return err
	}
	defer m.stack.free()
	hits := 0
	for _, w := range words {
		if err := m.begin(leak.Root{What: whatStack, TID: w.tid}); err != nil {
			return err
		}
		id, ok := m.target(w.word)
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
