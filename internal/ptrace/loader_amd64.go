package ptrace

import (
	"debug/elf"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// trap is a breakpoint. One stands on the way of a freshly loaded program to
// its first own instruction: ld.so calls an empty function, _dl_debug_state, when
// it has mapped and relocated everything and before it runs an initializer
// (glibc elf/rtld.c, musl ldso/dynlink.c). A static program has it at its entry
// point. Another one stands at libc's ptrace.
type trap struct {
	at     uint64
	old    byte
	rdebug uint64 // struct r_debug of link.h; zero where there is none
	empty  bool   // at _dl_debug_state, which does nothing but return
	traces bool   // at libc's ptrace
	passed bool   // the program is loaded: what comes now are dlopen and dlclose
}

const breakpointInsn = 0xcc // int3

// rdebugState is where struct r_debug has r_state: 0, RT_CONSISTENT, when
// everything is mapped and relocated.
const rdebugState = 24

// load prepares a program that execve has just mapped.
func (f *Family) load(m *member) {
	m.traps = nil
	t, err := f.aim(m)
	if err == nil {
		err = m.set(t, m.target.ID.PID)
	}
	if err != nil {
		f.say(Event{Moment: Ready, Target: m.target, Err: err})
	}
}

// aim finds the place for the breakpoint.
func (f *Family) aim(m *member) (*trap, error) {
	if err := m.target.UsableProgram(); err != nil {
		return nil, err
	}
	base, err := m.target.Auxv(proc.AuxBase)
	if err != nil {
		return nil, err
	}
	if base == 0 {
		entry, err := m.target.Auxv(proc.AuxEntry)
		if err == nil && entry == 0 {
			err = fmt.Errorf("pid %d has no entry point: %w", m.target.ID.PID, proc.ErrUnsupported)
		}
		return &trap{at: entry}, err
	}
	maps, err := m.target.Maps()
	if err != nil {
		return nil, err
	}
	ld := proc.Find(maps, leak.Addr(base))
	if ld == nil {
		return nil, fmt.Errorf("pid %d has no dynamic loader at %#x: %w", m.target.ID.PID, base, proc.ErrUnsupported)
	}
	s, err := symbolsOf(m.target, ld)
	if err != nil {
		return nil, err
	}
	if s.debugState == 0 {
		return nil, fmt.Errorf("the dynamic loader %s has no _dl_debug_state, so that the moment before the first initializer cannot be told: %w", ld.Path, proc.ErrUnsupported)
	}
	p := &trap{at: base + s.debugState, empty: true}
	if s.rdebug != 0 {
		p.rdebug = base + s.rdebug
	}
	return p, nil
}

// loader is what is needed of the symbols of a dynamic loader or a libc, as
// offsets from where it begins.
type loader struct{ debugState, rdebug, ptrace uint64 }

type loaderKey struct {
	dev, inode uint64
	path       string
}

var loaders sync.Map // loaderKey -> *loader

func symbolsOf(t *proc.Target, m *leak.Mapping) (*loader, error) {
	key := loaderKey{m.Dev, m.Inode, m.Path}
	if s, ok := loaders.Load(key); ok {
		return s.(*loader), nil
	}
	file, err := t.OpenFile(m)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	e, err := elf.NewFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	symbols, err := e.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	s := &loader{}
	for i := range symbols {
		switch symbols[i].Name {
		case "_dl_debug_state":
			s.debugState = symbols[i].Value
		case "ptrace":
			s.ptrace = symbols[i].Value
		case "_r_debug": // glibc; musl calls _dl_debug_state only when all is ready
			s.rdebug = symbols[i].Value
		}
	}
	loaders.Store(key, s)
	return s, nil
}

// set writes a breakpoint through a stopped thread of the process.
func (m *member) set(t *trap, tid int) error {
	w, err := peek(tid, t.at)
	if err != nil {
		return fmt.Errorf("read the code of thread %d at %#x: %w", tid, t.at, err)
	}
	t.old = byte(w)
	if err := poke(tid, t.at, []byte{breakpointInsn}); err != nil {
		return fmt.Errorf("write a breakpoint into thread %d at %#x: %w", tid, t.at, err)
	}
	m.traps = append(m.traps, t)
	return nil
}

// clear takes all breakpoints out again, through a stopped thread. In memory that
// is its parent's they stay: it will leave it by execve before long.
func (m *member) clear(tid int) {
	for _, t := range m.traps {
		if m.shares {
			break
		}
		_ = poke(tid, t.at, []byte{t.old}) // fails when the memory is gone, and only then
	}
	m.traps = nil
}

// hit finds the breakpoint at which a thread stands.
func (m *member) hit(tid int) *trap {
	if len(m.traps) == 0 {
		return nil
	}
	r, err := getRegs(tid)
	if err != nil {
		return nil
	}
	for _, t := range m.traps {
		if r.Rip == t.at+1 {
			return t
		}
	}
	return nil
}

// trapped takes a SIGTRAP. It returns false when it is none of ours.
func (f *Family) trapped(tr *tracee) bool {
	m := tr.of
	t := m.hit(tr.tid)
	if t == nil {
		return false
	}
	r, err := getRegs(tr.tid)
	if err != nil {
		return true // killed
	}
	r.Rip = t.at
	if !t.traces && !t.loaded(tr.tid) {
		// Not yet: the function does nothing but return.
		t.leave(tr.tid, r)
		_ = cont(tr.tid, 0)
		return true
	}
	if setRegs(tr.tid, &r) != nil {
		return true // killed
	}
	if t.traces {
		f.callsPtrace(tr, t, &r)
		return true
	}
	if f.watch != nil {
		f.watch.Loaded(m.target)
	}
	if t.passed {
		if t.leave(tr.tid, r) {
			f.park(tr, Event{Moment: Loaded, Target: m.target})
		}
		return true
	}
	e := Event{Moment: Ready, Target: m.target}
	if t.empty {
		t.passed = true
		if !t.leave(tr.tid, r) {
			return true
		}
	} else {
		m.clear(tr.tid)
	}
	f.guardTracing(m, tr.tid)
	f.park(tr, e)
	return true
}

// callsPtrace takes a thread over the breakpoint at libc's ptrace, and lets it
// wait there when the call concerns the family.
func (f *Family) callsPtrace(tr *tracee, t *trap, r *unix.PtraceRegs) {
	other := f.tracedBy(tr.of, r)
	signal, alive := t.stepOver(tr.tid)
	switch {
	case !alive: // its end is the next news
	case other == nil || signal != 0:
		_ = cont(tr.tid, signal) // of nobody's concern; or it comes here again
	default:
		f.park(tr, Event{Moment: Tracing, Target: tr.of.target, Other: other})
	}
}

// stepOver runs the one instruction under the breakpoint. A signal that comes
// first is still to be delivered.
func (t *trap) stepOver(tid int) (signal int, alive bool) {
	if poke(tid, t.at, []byte{t.old}) != nil || request("step", unix.PTRACE_SINGLESTEP, tid, 0, 0) != nil {
		return 0, false
	}
	for try := 0; ; try++ {
		n := look(tid)
		switch {
		case n.ended:
			return 0, false
		case n.stopped:
			_ = poke(tid, t.at, []byte{breakpointInsn})
			if n.event == 0 && n.signal != int(unix.SIGTRAP) {
				signal = n.signal
			}
			return signal, true
		}
		breathe(try)
	}
}

// tracedBy says which process of the family a call of ptrace(request, pid) is
// about to trace; nil for none.
func (f *Family) tracedBy(m *member, r *unix.PtraceRegs) *proc.Target {
	switch r.Rdi {
	case unix.PTRACE_TRACEME:
		return m.target
	case unix.PTRACE_ATTACH, unix.PTRACE_SEIZE:
		if tr := f.tracees[int(r.Rsi)]; tr != nil {
			return tr.of.target
		}
	}
	return nil
}

// guardTracing sets the breakpoint at libc's ptrace. A program without one does
// not need it.
func (f *Family) guardTracing(m *member, tid int) {
	if f.watch != nil {
		return // nobody can be let go
	}
	maps, err := m.target.Maps()
	if err != nil {
		return
	}
	for i := range maps {
		l := &maps[i]
		if l.Offset != 0 || !l.File() || rank(l.Path) != 0 {
			continue
		}
		if s, err := symbolsOf(m.target, l); err == nil && s.ptrace != 0 {
			_ = m.set(&trap{at: uint64(l.Start) + s.ptrace, traces: true}, tid)
		}
		return
	}
}

// loaded reports whether ld.so says that all is mapped and relocated.
func (t *trap) loaded(tid int) bool {
	if t.rdebug == 0 {
		return true
	}
	state, err := peek(tid, t.rdebug+rdebugState)
	return err != nil || uint32(state) == 0
}

// leave returns from the function without running it: it is empty. False when
// the thread was killed.
func (t *trap) leave(tid int, r unix.PtraceRegs) bool {
	to, err := peek(tid, r.Rsp)
	if err != nil {
		return false
	}
	r.Rip = to
	r.Rsp += 8
	return setRegs(tid, &r) == nil
}

// peek reads a word of a stopped thread's memory.
func peek(tid int, at uint64) (uint64, error) {
	var w [8]byte
	_, err := ask(unix.PTRACE_PEEKTEXT, tid, uintptr(at), unsafe.Pointer(&w))
	return order.Uint64(w[:]), err
}
