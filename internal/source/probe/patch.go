package probe

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"stanch/internal/proc"
)

// textFor makes the text with its trampolines, and the jumps to it.
func (p *Probe) textFor(pl *plan) ([]byte, []patch, error) {
	text := append([]byte(nil), blob...)
	var patches []patch
	for i := range pl.sites {
		s := &pl.sites[i]
		d := s.def()
		tramp := p.text.start + d.tramp
		var code []byte
		var err error
		if s.moved == nil {
			code, err = jumpTo(tramp, s.passes)
		} else {
			code, err = s.moved.relocate(tramp)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w: %w", d.name, proc.ErrUnsupported, err)
		}
		copy(text[d.tramp:], code)
		if s.moved == nil {
			continue
		}
		entry := d.fast
		if s.framed {
			entry = d.slow
		}
		patches = append(patches, patch{at: s.moved.at, target: p.text.start + entry, old: s.moved.bytes, hook: s.hook})
	}
	called, err := p.fillSites(text)
	if err != nil {
		return nil, nil, err
	}
	patches = append(patches, called...)
	more, err := p.fillIslands(text)
	if err != nil {
		return nil, nil, err
	}
	patches = append(patches, more...)
	if len(patches) > wPatches {
		return nil, nil, fmt.Errorf("%d functions to hook: %w", len(patches), proc.ErrUnsupported)
	}
	return text, patches, nil
}

func (p *Probe) putText(m memory, text []byte) error {
	for _, x := range p.islands {
		if err := m.put(x.start, x.bytes); err != nil {
			return err
		}
	}
	return m.put(p.text.start+wHeadRoom, text[wHeadRoom:])
}

// sameText makes sure that in a text that is used again nothing changes but
// trampolines that were never filled: a thread may be in it.
func (p *Probe) sameText(text []byte) error {
	now, err := read(p.mem, p.text.start, uint64(len(text)))
	if err != nil {
		return err
	}
	stubs := hooks[siteHook()].tramp
	for i := wHeadRoom; i < len(text); i++ {
		if at := uint64(i); at >= stubs && at < stubs+wSites*wStub && text[i] == blob[i] {
			text[i] = now[i] // a stub that is not asked for this time
		}
		if now[i] != text[i] && now[i] != blob[i] {
			return fmt.Errorf("the probe's code that stayed from before differs at %#x: %w", i, proc.ErrUnsupported)
		}
	}
	return nil
}

// ownPages makes the pages of code that will be changed the target's own, by
// writing what is there: so that the kernel copies them while the target runs.
// Where it may not, that happens later.
func (p *Probe) ownPages() {
	done := map[uint64]bool{}
	for i := range p.head.patches {
		if q := &p.head.patches[i]; !done[q.at/pageSize] {
			done[q.at/pageSize] = true
			if now, err := read(p.mem, q.at, 1); err == nil {
				_ = p.mem.put(q.at, now)
			}
		}
	}
}

// redirect writes the jumps, unless a thread stands between the instructions
// that they replace.
func (p *Probe) redirect(h held, text []byte, late bool) error {
	for i := range p.head.patches {
		q := &p.head.patches[i]
		now, err := read(h, q.at, uint64(len(q.old)))
		if err != nil {
			return err
		}
		if !bytes.Equal(now, q.old) {
			return fmt.Errorf("%s changed while the probe was prepared: %w", hooks[q.hook].name, proc.ErrUnsupported)
		}
	}
	if err := p.nobodyBetween(h); err != nil {
		return err
	}
	if late {
		if err := p.putText(h, text); err != nil {
			return fmt.Errorf("write the probe's code: %w: %w", proc.ErrDenied, err)
		}
	}
	p.used = true
	if err := p.putHead(h); err != nil {
		return err
	}
	if err := p.renewLease(h); err != nil {
		return err
	}
	if err := put32(h, p.state(wStateOn), 1); err != nil {
		return err
	}
	var changes []change
	for i := range p.head.patches {
		q := &p.head.patches[i]
		jump, err := jumpTo(q.at, q.target)
		if err != nil {
			return err
		}
		changes = append(changes, change{q.at, jump})
	}
	return putCode(h, changes)
}

// change is code to be written at a place, all of it on one page.
type change struct {
	at    uint64
	bytes []byte
}

// putCode writes what lies on one page at once, with what is between as it is:
// for each write another thread must be waited for, the tracer.
func putCode(h held, changes []change) error {
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	for len(changes) > 0 {
		start, n := changes[0].at, 1
		for n < len(changes) && changes[n].at/pageSize == start/pageSize {
			n++
		}
		last := changes[n-1]
		code, err := read(h, start, last.at+uint64(len(last.bytes))-start)
		if err != nil {
			return err
		}
		for _, c := range changes[:n] {
			copy(code[c.at-start:], c.bytes)
		}
		if err := h.put(start, code); err != nil {
			return fmt.Errorf("change the code at %#x: %w", start, err)
		}
		changes = changes[n:]
	}
	return nil
}

// nobodyBetween returns an errMoment when a thread stands behind the first of
// the instructions that a jump will replace, or will return there, also from a
// signal handler.
func (p *Probe) nobodyBetween(h held) error {
	lo, hi := ^uint64(0), uint64(0)
	for i := range p.head.patches {
		q := &p.head.patches[i]
		lo, hi = min(lo, q.at+1), max(hi, q.at+uint64(len(q.old)))
	}
	between := func(pc uint64) bool {
		if pc < lo || pc >= hi {
			return false
		}
		for i := range p.head.patches {
			if q := &p.head.patches[i]; pc > q.at && pc < q.at+uint64(len(q.old)) {
				return true
			}
		}
		return false
	}
	for _, th := range h.Threads() {
		found := between(th.Regs.Rip)
		if !found {
			err := stackWords(h, h.Maps(), th.Regs.Rsp, 128<<10, func(_, w uint64) bool {
				found = between(w)
				return !found
			})
			if err != nil {
				return err
			}
		}
		if found {
			return errMoment("thread " + strconv.Itoa(th.TID) + " was at the start of a function that is to be hooked")
		}
	}
	return nil
}

// verify makes sure that the functions jump to the probe and that it is on.
func (p *Probe) verify() error {
	for i := range p.head.patches {
		q := &p.head.patches[i]
		jump, err := jumpTo(q.at, q.target)
		if err != nil {
			return err
		}
		now, err := read(p.mem, q.at, jumpSize)
		if err != nil {
			return err
		}
		if !bytes.Equal(now, jump) {
			return fmt.Errorf("%s is not redirected although it was: %w", hooks[q.hook].name, proc.ErrUnsupported)
		}
	}
	return nil
}
