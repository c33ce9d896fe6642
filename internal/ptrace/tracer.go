package ptrace

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// tracer is a goroutine locked to an operating system thread. The kernel
// accepts ptrace requests for a tracee from the one thread that attached it.
//
// The thread ends with the goroutine, and the kernel then detaches all that
// it still traced: the way out when a tracee does not stop and therefore
// cannot be detached by request.
type tracer struct {
	tid   int
	calls chan func()
	quit  chan struct{} // closed by end
	gone  chan struct{} // closed when no further call is served

	turn    func()       // what the thread does between calls, nil to wait for them; touched by the thread only
	sleeps  atomic.Bool  // it has a turn, and may have to be woken
	waiting atomic.Int32 // those that wait in do
}

// newTracer starts a tracer. end must be called.
func newTracer() *tracer {
	t := &tracer{calls: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{})}
	ready := make(chan struct{})
	go t.lock(ready)
	<-ready
	return t
}

func (t *tracer) lock(ready chan struct{}) {
	runtime.LockOSThread()
	t.tid = unix.Gettid()
	if t.tid == unix.Getpid() {
		// The Go runtime parks the main thread instead of ending it, and then
		// nothing would be detached. While it is locked here, another
		// goroutine gets another thread.
		done := make(chan struct{})
		go func() { t.lock(ready); close(done) }()
		<-ready
		runtime.UnlockOSThread()
		return
	}
	t.hurry()
	close(ready)
	t.serve()
	// No UnlockOSThread: the thread must end.
}

// hurry raises the priority of the thread: the target stands still while it
// works, so it must not wait for a turn behind others, nor sleep longer than
// asked. Without the right to raise the priority, it runs as it is.
func (t *tracer) hurry() {
	_ = unix.Setpriority(unix.PRIO_PROCESS, t.tid, -20)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
}

// calm takes that back for f: a process that f makes would inherit it.
func (t *tracer) calm(f func()) {
	t.ease()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // back to the default
	f()
	t.hurry()
}

// ease takes the higher priority back.
func (t *tracer) ease() {
	// The call itself gives 20 less the niceness (getpriority(2)).
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Getpid()); err == nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, t.tid, 20-n)
	}
}

func (t *tracer) serve() {
	defer close(t.gone)
	for {
		if t.turn != nil && t.waiting.Load() == 0 {
			t.turn()
			continue
		}
		select {
		case f := <-t.calls:
			t.waiting.Add(-1)
			f()
		case <-t.quit:
			return
		}
	}
}

// do runs f on the tracing thread and waits for it. It returns false when the
// tracer has ended.
func (t *tracer) do(f func()) bool {
	done := make(chan struct{})
	if !t.reach(func() { defer close(done); f() }) {
		return false
	}
	<-done
	return true
}

// end ends the thread. It is called once.
func (t *tracer) end() {
	t.do(func() { t.turn = nil })
	close(t.quit)
	<-t.gone
}

// alive reports whether the operating system thread still exists.
func (t *tracer) alive() bool {
	return unix.Tgkill(unix.Getpid(), t.tid, 0) == nil
}

// breathe waits on the tracing thread between two looks at a tracee. The first
// looks follow each other quickly: most stops arrive within microseconds.
func breathe(try int) {
	if try < 8 {
		runtime.Gosched()
		return
	}
	nap := 20 * time.Microsecond
	if try > 100 {
		nap = 200 * time.Microsecond
	}
	ts := unix.NsecToTimespec(int64(nap))
	// A signal to this thread only ends the nap early.
	_ = unix.Nanosleep(&ts, nil)
}
