package fdtrace

import "stanch/internal/leak"

// holder is what a descriptor's number stands for at a moment.
type holder struct {
	open  bool
	maybe bool // nobody knows whether it is open
	quiet bool // it was open before the watch, which others say
	stack leak.StackID
	call  string
	at    uint64 // CLOCK_BOOTTIME in ns
}

// action is something that was done to one number between two times.
type action struct {
	enter, exit   uint64
	opens, closes bool // dup2 does both at once
	stack         leak.StackID
	call          string
	counted       bool // as an opening, to the sink
}

func (a *action) holder() holder {
	if !a.opens {
		return holder{at: a.exit}
	}
	return holder{open: true, stack: a.stack, call: a.call, at: a.exit}
}

// slot is one number of a table.
type slot struct {
	base   holder   // before recent
	recent []action // in the order of their ends, which is not that of what they did
	said   holder   // what the sink knows
	due    bool     // waits to be settled
	doubt  uint64   // something was lost that was done to it until then
}

// last is when the newest action ended.
func (s *slot) last() uint64 {
	var last uint64
	for i := range s.recent {
		last = max(last, s.recent[i].exit)
	}
	return last
}

// first is when the oldest action began, 0 when there is none.
func (s *slot) first() uint64 {
	if len(s.recent) == 0 {
		return 0
	}
	first := s.recent[0].enter
	for i := range s.recent {
		first = min(first, s.recent[i].enter)
	}
	return first
}

// orderMost bounds the actions that are put in order by trying.
const orderMost = 6

// settle finds what the number stands for after all actions. Calls that
// overlap may have taken effect in any order that the kernel allows: a number
// that is open is not given again, and one that is closed is not closed. sure
// is false when the orders that remain end differently.
func (s *slot) settle() (end holder, sure bool) {
	end, sure = s.order()
	if s.doubt > 0 && max(s.last(), s.base.at) <= s.doubt {
		end = holder{maybe: true, at: s.doubt}
		sure = false
	}
	return end, sure
}

func (s *slot) order() (end holder, sure bool) {
	if len(s.recent) == 0 {
		return s.base, !s.base.maybe
	}
	if len(s.recent) > orderMost {
		return s.lastAlone()
	}
	o := order{actions: s.recent, doubt: s.doubt >= s.first()}
	o.try(s.base, 0)
	if o.found {
		return o.end, o.sure
	}
	return s.lastAlone()
}

// lastAlone is for actions that fit together in no order, since some were not
// seen: the newest counts when none overlaps it.
func (s *slot) lastAlone() (holder, bool) {
	newest := 0
	for i := range s.recent {
		if s.recent[i].exit >= s.recent[newest].exit {
			newest = i
		}
	}
	for i := range s.recent {
		if i != newest && s.recent[i].exit >= s.recent[newest].enter {
			return s.recent[newest].holder(), false
		}
	}
	return s.recent[newest].holder(), true
}

// order tries all orders of the actions.
type order struct {
	actions     []action
	end         holder
	found, sure bool
	doubt       bool // something between them was lost
}

func (o *order) try(now holder, done uint) {
	if done == 1<<len(o.actions)-1 {
		switch {
		case !o.found:
			o.end, o.found, o.sure = now, true, true
		case now.open != o.end.open || now.open && now.stack != o.end.stack:
			o.sure = false
			o.end.open = o.end.open || now.open
		}
		return
	}
	for i := range o.actions {
		if done>>i&1 == 0 && o.mayBeNext(i, now, done) {
			o.try(o.actions[i].holder(), done|1<<i)
		}
	}
}

// mayBeNext reports whether action i can take effect when the number is as now
// says and the actions in done have.
func (o *order) mayBeNext(i int, now holder, done uint) bool {
	a := &o.actions[i]
	if !now.maybe && !now.quiet && !o.doubt && a.opens != a.closes && a.opens == now.open {
		return false
	}
	for j := range o.actions {
		if j != i && done>>j&1 == 0 && o.actions[j].exit < a.enter {
			return false
		}
	}
	return true
}
