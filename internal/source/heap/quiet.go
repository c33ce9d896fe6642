package heap

import (
	"bytes"

	"stanch/internal/leak"
	"stanch/internal/unwind"
)

// guard tells whether a thread is at work in the allocator.
//
// With several threads glibc changes an arena only while it holds the arena's
// lock, and what it does without - taking a block from its thread's cache or
// putting one there, pushing one to a fast bin - leaves the block at any moment
// in a list or in a register. So the locks say all. A process with one thread
// takes no locks: there the thread itself must be elsewhere.
type guard struct {
	img    *Image // its memory may change; files and mappings are looked up in it
	texts  []leak.Range
	tables map[tableKey]*unwind.Table
	walker *unwind.Unwinder // nil until prepare
}

type tableKey struct {
	path       string
	dev, inode uint64
}

// newGuard finds the code of the allocator of these main arenas.
func newGuard(img *Image, mains []*arena) *guard {
	g := &guard{img: img, tables: map[tableKey]*unwind.Table{}}
	for _, a := range mains {
		if t := img.allocatorText(a); t.Start < t.End {
			g.texts = append(g.texts, t)
		}
	}
	return g
}

func (g *guard) in(pc uint64) bool {
	for _, t := range g.texts {
		if t.Contains(leak.Addr(pc)) {
			return true
		}
	}
	return false
}

// System calls that the allocator makes, asm/unistd_64.h: mmap, mprotect,
// munmap, brk, mremap, madvise, futex; getrandom for its key.
var ofAllocator = map[uint64]bool{9: true, 10: true, 11: true, 12: true, 25: true, 28: true, 202: true, 318: true}

// answer is what guard found out.
type answer uint8

const (
	outside answer = iota // surely not in the allocator
	inside                // in the allocator, or in a signal handler that interrupted it
	unsure                // something on the stack points into it; only unwinding can tell
)

const (
	deepStack = 64 << 10 // a signal frame and what its handler uses
	nearStack = 16 << 10 // what the allocator calls uses less
)

// only says where the only thread of a process is.
func (g *guard) only(t *Thread) answer {
	if g.in(t.PC) {
		return inside
	}
	if len(g.texts) == 0 {
		// The allocator's code is not known. In a system call that it does not
		// make, it is not at work.
		if t.InSyscall && !ofAllocator[t.Syscall] {
			return outside
		}
		return unsure
	}
	stack := make([]byte, deepStack)
	n, _ := g.img.Mem.ReadAt(stack, leak.Addr(t.SP&^7)) // what there is of it
	stack = stack[:n&^7]
	if g.interrupted(stack) {
		return inside
	}
	if t.InSyscall && !ofAllocator[t.Syscall] {
		return outside
	}
	if !g.returns(stack[:min(len(stack), nearStack)]) {
		return outside
	}
	return g.walk(t)
}

// interrupted reports whether a signal frame on the stack has its interrupted
// instruction in the allocator. A frame begins with the address of code that
// calls rt_sigreturn; rip is at 168 in the struct ucontext behind it
// (asm/sigcontext.h).
func (g *guard) interrupted(stack []byte) bool {
	const ripAt = 8 + 168
	for i := 0; i+ripAt+8 <= len(stack); i += 8 {
		if g.in(load(stack[i+ripAt:])) && g.restorer(load(stack[i:])) {
			return true
		}
	}
	return false
}

// restorer reports whether the code at pc is mov $15, %rax or %eax; syscall.
func (g *guard) restorer(pc uint64) bool {
	var code [9]byte
	if pc >= userEnd || readFull(g.img.Mem, code[:], pc) != nil {
		return false
	}
	return bytes.Equal(code[:], []byte{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}) ||
		bytes.HasPrefix(code[:], []byte{0xb8, 15, 0, 0, 0, 0x0f, 0x05})
}

// returns reports whether a word of the stack is an address in the allocator
// that a call may return to.
func (g *guard) returns(stack []byte) bool {
	var code [7]byte
	for ; len(stack) >= 8; stack = stack[8:] {
		if a := load(stack); g.in(a) && (readFull(g.img.Mem, code[:], a-uint64(len(code))) != nil || afterCall(code[:])) {
			return true
		}
	}
	return false
}

// walk decides by unwinding, which needs tables: see prepare.
func (g *guard) walk(t *Thread) answer {
	const frames = 256
	if g.walker == nil {
		return unsure
	}
	places, whole := g.walker.Unwind(unwind.Regs{PC: t.PC, SP: t.SP, BP: t.BP}, g.img.Mem, frames)
	for _, at := range places {
		if g.in(uint64(at)) {
			return inside
		}
	}
	if whole || len(places) == frames {
		return outside
	}
	return unsure
}

// prepare compiles the tables that unwinding needs. It takes tens of
// milliseconds, so the process should not stand still meanwhile.
func (g *guard) prepare() {
	if g.walker != nil || g.img.OpenFile == nil {
		return
	}
	var modules []unwind.Module
	for i := range g.img.Maps {
		m := &g.img.Maps[i]
		if !m.Exec || !m.File() {
			continue
		}
		key := tableKey{m.Path, m.Dev, m.Inode}
		table, known := g.tables[key]
		if !known {
			if f, err := g.img.OpenFile(m); err == nil {
				table, _ = unwind.Compile(f) // nil without: the walk stops there
				_ = f.Close()                // it was only read
			}
			g.tables[key] = table
		}
		if table == nil {
			modules = append(modules, unwind.Module{Start: m.Start, End: m.End})
		} else if module, ok := table.Module(m); ok {
			modules = append(modules, module)
		}
	}
	g.walker = unwind.New(modules)
}
