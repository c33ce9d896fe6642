package fdcalls

import (
	"time"

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
	alone := len(p.table.inside) == 0
	switch call.Does {
	case proc.FDCloses:
		if _, open := p.table.open[num]; open {
			t.release(p.table, num, call.Name, t.stack(p, c))
			alone = !p.table.replacing(num)
		}
		if alone {
			return false // it closes what was in the books, or nothing
		}
	case proc.FDClosesRange:
		first, last, closes := closingRange(c, call)
		if !closes {
			return false
		}
		t.closeRange(p, c, call, func(num int) bool { return num >= first && num <= last })
		if alone {
			return false
		}
	case proc.FDReceives:
		if !hasControl(c, leak.Addr(c.Args[call.Arg]), 1) {
			return false
		}
	case proc.FDReceivesAll:
		if !hasControl(c, leak.Addr(c.Args[call.Arg]), c.Args[call.Arg+1]) {
			return false
		}
	}
	p.table.inside[c.TID] = inside{call, p.target.ID, t.o.Clock.Now(), num}
	return true
}

// closingRange gives the numbers that close_range closes, which does not fail
// then.
func closingRange(c *ptrace.Call, call *proc.FDCall) (first, last int, closes bool) {
	from, to := uint32(c.Args[call.Arg]), uint32(c.Args[call.Arg+1])
	return int(from), int(to), from <= to && c.Args[call.Arg+2]&proc.FDKeepOpen == 0
}

// closeRange closes what the books have in a range.
func (t *Tracer) closeRange(p *process, c *ptrace.Call, call *proc.FDCall, within func(num int) bool) {
	var stack leak.StackID
	for num := range p.table.open {
		if !within(num) {
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
	in := p.table.inside[c.TID]
	delete(p.table.inside, c.TID)
	defer p.table.calm()
	if c.Result < 0 {
		if errno := proc.Exhausted(-c.Result); errno != "" {
			t.fail(p, c, call.Name, errno)
		}
		return
	}
	switch call.Does {
	case proc.FDCloses:
		t.closedBlindly(p, c, call)
	case proc.FDClosesRange:
		first, last, _ := closingRange(c, call)
		t.closeRange(p, c, call, func(num int) bool { return num >= first && num <= last && !isOpen(p.target, num) })
		p.table.doubt = true
	default:
		t.opened(p, c, call, in.began)
	}
}

// opened notes the descriptors that a call gave.
func (t *Tracer) opened(p *process, c *ptrace.Call, call *proc.FDCall, began time.Duration) {
	nums := given(c, call)
	if len(nums) == 0 {
		return
	}
	o := opening{t.o.Clock.Now(), t.stack(p, c), call.Name, call.Does == proc.FDReplaces}
	if call.Does == proc.FDReceives || call.Does == proc.FDReceivesAll {
		o.call = "received"
	}
	for _, num := range nums {
		now, open := p.table.open[num]
		// A number that is open is given to nobody but who asks for it: of two
		// calls at a time, the one that does was the later one.
		if beside := open && now.onto && began < now.at; beside && !o.onto {
			continue
		} else if beside {
			o.stack = 0 // either of the two
		}
		if open && o.onto {
			t.release(p.table, num, call.Name, o.stack)
		}
		t.acquire(p.table, num, o)
		if p.table.blind[num] || p.table.doubt {
			delete(p.table.blind, num)
			if !isOpen(p.target, num) {
				t.release(p.table, num, "close", 0)
			}
		}
	}
}

// closedBlindly takes the result of a close beside another thread's call that
// may have opened what it closed.
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
	came := ""
	if p == nil {
		p = &process{target: target, table: newTable(target.ID)}
		t.procs[target.ID] = p
		came = "exec"
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
	t.compare(p, open, came, "exec")
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
