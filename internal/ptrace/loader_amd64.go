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

// trap is a breakpoint on the way of a freshly loaded program to its first own
// instruction: ld.so calls an empty function, _dl_debug_state, when it has
// mapped and relocated everything and before it runs an initializer (glibc
// elf/rtld.c, musl ldso/dynlink.c). A static program has it at its entry point.
type trap struct {
	at     uint64
	old    byte
	rdebug uint64 // struct r_debug of link.h; zero where there is none
}

const breakpointInsn = 0xcc // int3

// rdebugState is where struct r_debug has r_state: 0, RT_CONSISTENT, when
// everything is mapped and relocated.
const rdebugState = 24

// load prepares a program that execve has just mapped.
func (f *Family) load(m *member) {
	m.trap = nil
	t, err := f.aim(m)
	if err == nil {
		err = t.set(m.target.ID.PID)
	}
	if err != nil {
		f.say(Event{Moment: Ready, Target: m.target, Err: err})
		return
	}
	m.trap = t
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
	s, err := loaderOf(m.target, ld)
	if err != nil {
		return nil, err
	}
	p := &trap{at: base + s.debugState}
	if s.rdebug != 0 {
		p.rdebug = base + s.rdebug
	}
	return p, nil
}

// loader is what is needed of a dynamic loader's symbols.
type loader struct{ debugState, rdebug uint64 }

type loaderKey struct {
	dev, inode uint64
	path       string
}

var loaders sync.Map // loaderKey -> *loader

func loaderOf(t *proc.Target, m *leak.Mapping) (*loader, error) {
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
		return nil, fmt.Errorf("the dynamic loader %s: %w", m.Path, err)
	}
	symbols, err := e.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, fmt.Errorf("the dynamic loader %s: %w", m.Path, err)
	}
	s := &loader{}
	for i := range symbols {
		switch symbols[i].Name {
		case "_dl_debug_state":
			s.debugState = symbols[i].Value
		case "_r_debug": // glibc; musl calls _dl_debug_state only when all is ready
			s.rdebug = symbols[i].Value
		}
	}
	if s.debugState == 0 {
		return nil, fmt.Errorf("the dynamic loader %s has no _dl_debug_state, so that the moment before the first initializer cannot be told: %w", m.Path, proc.ErrUnsupported)
	}
	loaders.Store(key, s)
	return s, nil
}

// set writes the breakpoint through a stopped thread of the process.
func (t *trap) set(tid int) error {
	w, err := peek(tid, t.at)
	if err != nil {
		return fmt.Errorf("read the code of thread %d at %#x: %w", tid, t.at, err)
	}
	t.old = byte(w)
	if err := poke(tid, t.at, []byte{breakpointInsn}); err != nil {
		return fmt.Errorf("write a breakpoint into thread %d at %#x: %w", tid, t.at, err)
	}
	return nil
}

// remove takes it out again. The thread must stand still, or be gone.
func (t *trap) remove(tid int) { _ = poke(tid, t.at, []byte{t.old}) }

// trapped takes a SIGTRAP. It returns false when it is none of ours.
func (f *Family) trapped(tr *tracee) bool {
	m := tr.of
	if m.trap == nil {
		return false
	}
	r, err := getRegs(tr.tid)
	if err != nil || r.Rip != m.trap.at+1 {
		return false
	}
	r.Rip = m.trap.at
	if !m.trap.loaded(tr.tid) {
		// Not yet: the function does nothing but return.
		m.trap.pass(tr.tid, r)
		return true
	}
	m.trap.remove(tr.tid)
	m.trap = nil
	if setRegs(tr.tid, &r) == nil {
		f.park(tr, Event{Moment: Ready, Target: m.target})
	}
	return true
}

// loaded reports whether ld.so says that all is mapped and relocated.
func (t *trap) loaded(tid int) bool {
	if t.rdebug == 0 {
		return true
	}
	state, err := peek(tid, t.rdebug+rdebugState)
	return err != nil || uint32(state) == 0
}

// pass returns from the function without running it: it is empty.
func (t *trap) pass(tid int, r unix.PtraceRegs) {
	to, err := peek(tid, r.Rsp)
	if err == nil {
		r.Rip = to
		r.Rsp += 8
		_ = setRegs(tid, &r)
	}
	_ = cont(tid, 0)
}

// peek reads a word of a stopped thread's memory.
func peek(tid int, at uint64) (uint64, error) {
	var w [8]byte
	_, err := ask(unix.PTRACE_PEEKTEXT, tid, uintptr(at), unsafe.Pointer(&w))
	return order.Uint64(w[:]), err
}
