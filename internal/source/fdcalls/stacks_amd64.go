package fdcalls

import (
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/unwind"
)

// clone3 is the system call whose arguments are in a struct (SYS_clone3).
const clone3 = 435

// maxFrames bounds a stack.
const maxFrames = 128

// rereadAfter is how long a view is trusted though a stack through it was cut:
// code that a program makes by itself cuts all.
const rereadAfter = 100 * time.Millisecond

// view is the code of a process as it was when the memory map was read.
type view struct {
	atlas  *leak.Atlas
	of     leak.ProcID // whose memory map was read
	walker *unwind.Unwinder
	read   time.Duration
}

// file names the file of a mapping.
type file struct {
	path       string
	dev, inode uint64
}

// stack names who makes a call; 0 when not even the first frame is known.
func (t *Tracer) stack(p *process, c *ptrace.Call) leak.StackID {
	r := &c.Regs
	t.words = [...]uint64{
		r.R15, r.R14, r.R13, r.R12, r.Rbp, r.Rbx, r.R11, r.R10, r.R9, r.R8,
		r.Rax, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Orig_rax, r.Rip, r.Cs, r.Eflags, r.Rsp,
	}
	regs := unwind.UserRegs(t.words[:])
	if p.view == nil {
		p.view = &view{atlas: t.o.Atlas(p.target), of: p.target.ID}
	}
	fresh := false
	if p.view.walker == nil {
		t.look(p.view, p.target)
		fresh = true
	}
	places, complete := p.view.walker.Unwind(regs, c, maxFrames)
	if !complete && !fresh && t.o.Clock.Now()-p.view.read > rereadAfter {
		if p.view.of != p.target.ID {
			p.view = &view{atlas: t.o.Atlas(p.target), of: p.target.ID}
		}
		t.look(p.view, p.target)
		places, _ = p.view.walker.Unwind(regs, c, maxFrames)
	}
	frames := make([]leak.Frame, 0, len(places))
	for _, at := range places {
		frames = append(frames, p.view.atlas.Frame(at))
	}
	return p.view.atlas.Stack(frames)
}

// look reads the memory map and prepares to walk through it. The tables of a
// file are compiled once.
func (t *Tracer) look(v *view, target *proc.Target) {
	v.read = t.o.Clock.Now()
	maps, _ := target.Maps() // without any, when it was killed
	v.atlas.Update(maps)
	var modules []unwind.Module
	for i := range maps {
		m := &maps[i]
		if !m.Exec || !m.File() {
			continue
		}
		key := file{m.Path, m.Dev, m.Inode}
		table, known := t.files[key]
		if !known {
			if f, err := target.OpenFile(m); err == nil {
				table, _ = unwind.Compile(f) // nil without: the walk stops there
				_ = f.Close()                // it was only read
			}
			t.files[key] = table
		}
		if table == nil {
			modules = append(modules, unwind.Module{Start: m.Start, End: m.End})
		} else if module, ok := table.Module(m); ok {
			modules = append(modules, module)
		}
	}
	v.walker = unwind.New(modules)
}
