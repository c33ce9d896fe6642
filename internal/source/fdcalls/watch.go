package fdcalls

import (
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// watcher is the Tracer as the family sees it.
type watcher Tracer

var _ ptrace.Watcher = (*watcher)(nil)

// Begins takes a call that is about to be made.
func (w *watcher) Begins(c *ptrace.Call) bool {
	t := (*Tracer)(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	call, p := t.calls[c.Nr], t.procs[c.Target.ID]
	if call == nil || p == nil {
		return false
	}
	num := int(int32(c.Args[call.Arg]))
	switch call.Does {
	case proc.FDCloses:
		if _, open := p.table.open[num]; open {
			t.release(p.table, num, call.Name, t.stack(p, c))
			return false
		}
		if len(p.table.inside) == 0 {
			return false // there is nothing to close
		}
	case proc.FDClosesRange:
		t.closeRange(p, c, call)
		return false
	case proc.FDReceives:
		if !hasControl(c, leak.Addr(c.Args[call.Arg]), 1) {
			return false
		}
	case proc.FDReceivesAll:
		if !hasControl(c, leak.Addr(c.Args[call.Arg]), c.Args[call.Arg+1]) {
			return false
		}
	}
	p.table.inside[c.TID] = inside{call, p.target.ID, num}
	return true
}

// closeRange closes what the books have in the range: with these arguments the
// call does not fail.
func (t *Tracer) closeRange(p *process, c *ptrace.Call, call *proc.FDCall) {
	first, last, flags := uint32(c.Args[call.Arg]), uint32(c.Args[call.Arg+1]), c.Args[call.Arg+2]
	if first > last || flags&proc.FDKeepOpen != 0 {
		return
	}
	var stack leak.StackID
	for num := range p.table.open {
		if uint32(num) < first || uint32(num) > last {
			continue
		}
		if stack == 0 {
			stack = t.stack(p, c)
		}
		t.release(p.table, num, call.Name, stack)
	}
}

// Ends takes a call that has a result.
func (w *watcher) Ends(c *ptrace.Call) {
	t := (*Tracer)(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	call, p := t.calls[c.Nr], t.procs[c.Target.ID]
	if call == nil || p == nil {
		return
	}
	delete(p.table.inside, c.TID)
	if c.Result < 0 {
		if errno := proc.Exhausted(-c.Result); errno != "" {
			t.fail(p, c, call.Name, errno)
		}
		return
	}
	if call.Does == proc.FDCloses {
		t.closedBlindly(p, c, call)
	} else {
		t.opened(p, c, call)
	}
	if len(p.table.inside) == 0 {
		clear(p.table.blind)
	}
}

// opened notes the descriptors that a call gave.
func (t *Tracer) opened(p *process, c *ptrace.Call, call *proc.FDCall) {
	nums := given(c, call)
	if len(nums) == 0 {
		return
	}
	o := opening{t.o.Clock.Now(), t.stack(p, c), call.Name}
	if call.Does == proc.FDReceives || call.Does == proc.FDReceivesAll {
		o.call = "received"
	}
	for _, num := range nums {
		if _, open := p.table.open[num]; open && call.Does == proc.FDReplaces {
			t.release(p.table, num, call.Name, o.stack)
		}
		t.acquire(p.table, num, o)
		if p.table.blind[num] {
			delete(p.table.blind, num)
			if !isOpen(p.target, num) {
				t.release(p.table, num, "close", 0)
			}
		}
	}
}

// closedBlindly takes the result of a close of what the books did not have when
// it began: another thread's call opened it meanwhile.
func (t *Tracer) closedBlindly(p *process, c *ptrace.Call, call *proc.FDCall) {
	num := int(int32(c.Args[call.Arg]))
	if _, open := p.table.open[num]; !open {
		p.table.blind[num] = true
	} else if !isOpen(p.target, num) {
		t.release(p.table, num, call.Name, t.stack(p, c))
	}
}

// Born takes a new process, which has a copy of its parent's descriptors or
// shares them.
func (w *watcher) Born(parent, child *proc.Target) {
	t := (*Tracer)(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &process{target: child}
	t.procs[child.ID] = p
	var from *process
	if parent != nil {
		from = t.procs[parent.ID]
	}
	if from != nil {
		p.view = from.view
		if proc.SharesDescriptors(parent, child) {
			p.table = from.table
			p.table.owners[child.ID] = true
			for num, o := range p.table.open {
				t.sayAcquire(child.ID, num, o)
			}
			return
		}
	}
	p.table = newTable(child.ID)
	open, err := numbers(child)
	if err != nil {
		return // it was killed
	}
	for num := range open {
		var o opening
		if from != nil {
			o = from.table.opener(num)
		}
		o.at, o.call = t.o.Clock.Now(), "fork"
		t.acquire(p.table, num, o)
	}
}

// Replaced takes a process in which another program begins: what was
// close-on-exec is gone, and nothing is shared any more.
func (w *watcher) Replaced(target *proc.Target) {
	t := (*Tracer)(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.procs[target.ID]
	if p == nil {
		p = &process{target: target, table: newTable(target.ID)}
		t.procs[target.ID] = p
	}
	p.view = nil
	own := newTable(target.ID)
	for num, o := range p.table.open {
		own.open[num] = o
	}
	p.table.leave(target.ID)
	p.table = own
	open, err := numbers(target)
	if err != nil {
		return // it was killed
	}
	t.compare(p, open, "exec")
	for num, o := range own.open {
		o.call = "exec"
		own.open[num] = o
	}
}

// Loaded takes a process whose code has changed.
func (w *watcher) Loaded(target *proc.Target) {
	t := (*Tracer)(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.procs[target.ID]
	switch {
	case p == nil || p.view == nil:
	case p.view.of == target.ID:
		p.view = &view{atlas: p.view.atlas, of: target.ID}
	default:
		p.view = nil // it is its parent's
	}
}

// Ended forgets a process.
func (w *watcher) Ended(target *proc.Target) {
	t := (*Tracer)(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.procs[target.ID]
	if p == nil {
		return
	}
	p.table.leave(target.ID)
	delete(t.procs, target.ID)
	for f := range t.failures {
		if f.proc == target.ID {
			delete(t.failures, f)
		}
	}
}
