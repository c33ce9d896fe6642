package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// placed is a probe in a target: one that this stanch placed, or one that it
// found.
type placed struct {
	t    *proc.Target
	text region // starts with struct header
	head *header
	used bool // a function jumped to the text once
}

func (p *placed) near() region {
	return region{p.text.start + wNearDistance, p.head.nearSize}
}

// state is the address of a field of struct state.
func (p *placed) state(field uint64) uint64 { return p.near().start + field }

// findPlaced looks for texts of ours. Their first bytes tell; those that are
// of another version are left alone.
func findPlaced(t *proc.Target, maps []leak.Mapping, mem leak.Memory) []*placed {
	var out []*placed
	for i := range maps {
		m := &maps[i]
		if !anonymous(m) || !m.Exec || m.Write {
			continue
		}
		// A neighbour may have been merged with ours: look at each place
		// where a text may begin.
		first := (uint64(m.Start) + textAlign - 1) &^ (textAlign - 1)
		for at := first; at+textRegion <= uint64(m.End); at += textAlign {
			b := make([]byte, wHeaderSize)
			if _, err := mem.ReadAt(b, leak.Addr(at)); err != nil {
				continue
			}
			if h, ok := decodeHeader(b); ok {
				p := &placed{t: t, text: region{at, textRegion}, head: h}
				p.used = order.Uint32(b[wHeaderUsed:]) != 0
				out = append(out, p)
			}
		}
	}
	return out
}

// orphan recognizes a text that was mapped by a stanch that died before it
// could write the header: a size nobody else uses, executable, all zeros, with
// free pages on both sides.
func orphan(maps []leak.Mapping, i int, mem leak.Memory) bool {
	m := &maps[i]
	if !anonymous(m) || !m.Exec || m.Write || !m.Read || m.Size() != textRegion || uint64(m.Start)%textAlign != 0 ||
		i > 0 && maps[i-1].End == m.Start || i+1 < len(maps) && maps[i+1].Start == m.End {
		return false
	}
	b := make([]byte, textRegion)
	_, err := mem.ReadAt(b, m.Start)
	return err == nil && len(bytes.Trim(b, "\x00")) == 0
}

// quiet reports whether nothing of it is at work: no function jumps here and
// no data is mapped.
func (p *placed) quiet() bool { return p.used && len(p.head.patches) == 0 && len(p.head.data) == 0 }

// regions lists what it occupies.
func (p *placed) regions() []region {
	out := []region{p.text, p.near()}
	return slices.Concat(out, p.head.islands, p.head.data)
}

// putHead writes the header anew.
func (p *placed) putHead(m memory) error {
	b := p.head.encode()
	if p.used {
		order.PutUint32(b[wHeaderUsed:], 1)
	}
	return m.put(p.text.start, b)
}

// restore puts the original bytes of the chosen functions back, of all when
// choose is nil. It leaves alone what somebody else has changed since, and says
// so.
func (p *placed) restore(h held, choose func(*hook) bool) (foreign []string, err error) {
	var changes []change
	for i := range p.head.patches {
		q := &p.head.patches[i]
		if choose != nil && !choose(&hooks[q.hook]) {
			continue
		}
		m := proc.Find(h.Maps(), leak.Addr(q.at))
		if m == nil || !m.Exec {
			continue // that library is gone
		}
		now, err := read(h, q.at, jumpSize)
		if err != nil {
			return foreign, err
		}
		jump, err := jumpTo(q.at, q.target)
		switch {
		case err != nil:
			return foreign, err
		case bytes.Equal(now, jump):
			changes = append(changes, change{q.at, q.old[:jumpSize]})
		case !bytes.Equal(now, q.old[:jumpSize]):
			foreign = append(foreign, hooks[q.hook].name)
		}
	}
	return foreign, putCode(h, changes)
}

// off makes the hooks that are still reached go straight to the original.
// State that was wiped, or never written, is off already.
func (p *placed) off(m memory) error {
	if w, err := get64(m, p.state(wStateMagic)); err != nil || w != magic {
		return nil
	}
	return errors.Join(put32(m, p.state(wStateOn), 0), put64(m, p.state(wStateBooks), 0))
}

// remove takes the probe out: original code back, hooks off, tables and books
// unmapped once no thread uses them. The text stays where a thread may return
// to it.
func (p *placed) remove(ctx context.Context, stops *pauses) error {
	restored := false
	var foreign []string
	err := stops.patiently(ctx, func(h held) error {
		if !restored {
			var err error
			if foreign, err = p.restore(h, nil); err != nil {
				return err
			}
			if err := p.off(h); err != nil {
				return err
			}
			restored = true
		}
		if len(foreign) > 0 {
			return nil
		}
		if err := p.nobodyInside(h); err != nil {
			return err
		}
		return p.unmap(h)
	})
	if err == nil && len(foreign) > 0 {
		return fmt.Errorf("another tool has changed %v since; the probe is off and stays: %w", foreign, proc.ErrUnsupported)
	}
	if errors.Is(err, ErrBusy) {
		return fmt.Errorf("the probe is off, %d KiB of its books stay: %w", p.head.size()>>10, err)
	}
	return err
}

func (h *header) size() uint64 {
	var n uint64
	for _, r := range h.data {
		n += r.size
	}
	return n
}

// unmap gives the memory back. What the header tells is mapped or not, since
// stanch may have died in between; nothing is unmapped that is not surely ours.
func (p *placed) unmap(h held) error {
	for _, r := range p.head.data {
		if !ours(h, r, false) {
			continue
		}
		if _, err := h.Call(unix.SYS_MUNMAP, r.start, r.size); err != nil {
			return fmt.Errorf("unmap the probe's books: %w", err)
		}
	}
	p.head.data, p.head.patches = nil, nil
	near := p.near()
	switch mapped := ours(h, near, false); {
	case mapped && p.used:
		// Zeros mean off, and take no memory. Failing only costs that.
		_, _ = h.Call(unix.SYS_MADVISE, near.start, near.size, unix.MADV_DONTNEED)
	case mapped:
		if _, err := h.Call(unix.SYS_MUNMAP, near.start, near.size); err != nil {
			return fmt.Errorf("unmap the probe's state: %w", err)
		}
	}
	if p.used {
		return p.putHead(h)
	}
	for _, r := range p.head.islands {
		if !ours(h, r, true) {
			continue
		}
		if _, err := h.Call(unix.SYS_MUNMAP, r.start, r.size); err != nil {
			return fmt.Errorf("unmap the probe's jumps: %w", err)
		}
	}
	if !ours(h, p.text, true) {
		return nil
	}
	if _, err := h.Call(unix.SYS_MUNMAP, p.text.start, p.text.size); err != nil {
		return fmt.Errorf("unmap the probe's code: %w", err)
	}
	return nil
}

// ours reports whether r is mapped as stanch maps such a range: it begins with
// our magic, or was mapped so lately that it holds nothing yet.
func ours(h held, r region, exec bool) bool {
	m := proc.Find(h.Maps(), leak.Addr(r.start))
	if m == nil || !anonymous(m) || m.Exec != exec || m.Write == exec || uint64(m.End) < r.end() {
		return false
	}
	b, err := read(h, r.start, pageSize)
	if err != nil {
		return false
	}
	if order.Uint64(b) == magic {
		return true
	}
	alone := uint64(m.Start) == r.start || uint64(m.End) == r.end() // state and books may not be divided yet
	return alone && len(bytes.Trim(b, "\x00")) == 0
}

// nobodyInside returns an errMoment when a thread may still use the books.
// Only code behind cCode does, and while a thread is in it, its slot says so,
// except for a release inside of another hook.
func (p *placed) nobodyInside(h held) error {
	busy, err := p.busySlots(h)
	if err != nil {
		return err
	}
	lo, hi := p.text.start+cCode, p.text.end()
	for _, th := range h.Threads() {
		if rip := th.Regs.Rip; rip >= lo && rip < hi {
			return errMoment(fmt.Sprintf("thread %d was in a hook", th.TID))
		}
		fs, sp := th.Regs.Fs_base, th.Regs.Rsp
		at, working := busy[fs]
		delete(busy, fs)
		if !working {
			continue
		}
		if sp > at && sameMapping(h.Maps(), sp, at) {
			continue // siglongjmp took the hook's frame away
		}
		if sp > at || at-sp > 1<<20 {
			return errMoment(fmt.Sprintf("thread %d has a hook on another stack", th.TID))
		}
		inside := false
		err := stackWords(h, h.Maps(), sp, at-sp+256, func(_, w uint64) bool {
			inside = w >= lo && w < hi
			return !inside
		})
		if err != nil {
			return err
		}
		if inside {
			return errMoment(fmt.Sprintf("thread %d was in a hook", th.TID))
		}
	}
	return nil // the other slots belong to threads that ended
}

func sameMapping(maps []leak.Mapping, a, b uint64) bool {
	m := proc.Find(maps, leak.Addr(a))
	return m != nil && m.Contains(leak.Addr(b))
}

// busySlots gives the stack pointers of hooks at work, by thread pointer.
func (p *placed) busySlots(h held) (map[uint64]uint64, error) {
	busy := map[uint64]uint64{}
	m := proc.Find(h.Maps(), leak.Addr(p.near().start))
	if m == nil || !m.Write {
		return busy, nil
	}
	b, err := read(h, p.near().start+wNearSlot, wSlots*wSlotSize)
	if err != nil {
		return nil, err
	}
	for ; len(b) > 0; b = b[wSlotSize:] {
		if owner := order.Uint64(b[wSlotOwner:]); owner&1 != 0 {
			busy[owner&^1] = order.Uint64(b[wSlotBusy:])
		}
	}
	return busy, nil
}
