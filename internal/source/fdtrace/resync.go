package fdtrace

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/cilium/ebpf/link"

	"stanch/internal/proc"
)

// listed is struct process of fdtrace.bpf.c: a process as the kernel has it.
type listed struct {
	At, Start, Files             uint64
	Tgid, Parent, Visible, Bytes uint32
	Most, _                      uint32
}

// listing is all processes at a moment, with the descriptors of the watched
// ones.
type listing struct {
	at    uint64 // when it was complete
	procs map[uint32]listed
	bits  map[uint32]bitmap
	seen  bool // it has been compared
}

// iterate runs one of the programs that walk all processes.
func (t *Tracer) iterate(program string, take func([]byte) error) error {
	it, err := link.AttachIter(link.IterOptions{Program: t.objects.Programs[program]})
	if err != nil {
		return fmt.Errorf("list the processes: %w", refused(err))
	}
	defer func() { _ = it.Close() }()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("list the processes: %w", err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("list the processes: %w", err)
	}
	return take(b)
}

// list reads the tables of the kernel.
func (t *Tracer) list() (*listing, error) {
	l := &listing{procs: map[uint32]listed{}, bits: map[uint32]bitmap{}}
	err := t.iterate("list", func(b []byte) error {
		size := binary.Size(listed{})
		for len(b) >= size {
			var p listed
			if _, err := binary.Decode(b, binary.LittleEndian, &p); err != nil {
				return err
			}
			b = b[size:]
			if uint64(p.Bytes) > uint64(len(b)) {
				return io.ErrUnexpectedEOF
			}
			if _, twice := l.procs[p.Tgid]; !twice {
				l.procs[p.Tgid] = p
				l.bits[p.Tgid] = append(bitmap(nil), b[:p.Bytes]...)
			}
			b = b[p.Bytes:]
		}
		return nil
	})
	l.at = bootNow()
	return l, err
}

// begin watches the processes of the scope that live already. Each is listed
// after it is watched: what is open then and was not seen to be opened is
// older.
func (t *Tracer) begin() error {
	b := t.books
	watched := map[uint32]bool{}
	for {
		l, err := t.list()
		if err != nil {
			return err
		}
		more := false
		for tgid, p := range l.procs {
			if !watched[tgid] && b.inScope(p, watched) {
				if err := t.objects.Maps["watch"].Put(tgid, uint64(0)); err != nil {
					return fmt.Errorf("watch process %d: %w", p.Visible, err)
				}
				watched[tgid], more = true, true
			}
		}
		if len(watched) == 0 {
			return fmt.Errorf("process %d: %w", t.target.ID.PID, proc.ErrGone)
		}
		if more {
			continue
		}
		for tgid := range watched {
			if t.o.Scope == OneProcess {
				if err := t.objects.Variables["only"].Set(tgid); err != nil {
					return fmt.Errorf("watch process %d alone: %w", t.target.ID.PID, err)
				}
			}
			p, ok := l.procs[tgid]
			if !ok {
				continue
			}
			b.meet(p, l, true)
		}
		return nil
	}
}

// inScope reports whether a process that lives already is to be watched.
func (b *books) inScope(p listed, watched map[uint32]bool) bool {
	if int(p.Visible) == b.t.target.ID.PID {
		return true
	}
	switch b.t.o.Scope {
	case Tree:
		return watched[p.Parent]
	case Cgroup:
		return b.t.inCgroup(int(p.Visible))
	}
	return false
}

// meet makes the books of a process that was there before it was watched.
func (b *books) meet(l listed, all *listing, quiet bool) *process {
	p := b.add(l.Tgid, l.Visible, l.Start)
	if t := b.tables[l.Files]; t != nil && all.procs[t.owner.tgid].Files != l.Files {
		delete(b.tables, l.Files) // of a process whose end has not been noted
	}
	t := b.join(p, l.Files)
	if t.vague {
		t.quiet = quiet
		b.syncs = append(b.syncs, all)
	}
	p.code.refresh()
	return p
}

// late makes the books of a process whose beginning was not seen, for it came
// into the cgroup from outside, or its event was dropped.
func (b *books) late(tgid uint32) *process {
	const again = uint64(time.Second)
	if at, ok := b.strange[tgid]; ok && bootNow()-at < again {
		return nil
	}
	l, err := b.t.list()
	if err != nil {
		return nil
	}
	if p, ok := l.procs[tgid]; ok && p.Files != 0 {
		_ = b.t.objects.Maps["watch"].Put(tgid, uint64(0)) // without it, its descriptors cannot be compared
		return b.meet(p, l, false)
	}
	if len(b.strange) > strangeMost {
		clear(b.strange)
	}
	b.strange[tgid] = bootNow()
	return nil
}

// strangeMost bounds the processes that were looked for in vain.
const strangeMost = 1 << 12

// resync compares the books with the kernel's tables.
func (b *books) resync() {
	if l, err := b.t.list(); err == nil {
		b.syncs = append(b.syncs, l)
	}
}

// compareAll takes the listings that are old enough: every event from before
// them has come.
func (b *books) compareAll(now uint64) {
	for len(b.syncs) > 0 && b.syncs[0].at+grace <= now {
		l := b.syncs[0]
		b.syncs = b.syncs[1:]
		if l.seen {
			continue
		}
		l.seen = true
		for tgid, p := range l.procs {
			if p.Bytes > 0 && b.live[tgid] == nil && p.Files != 0 {
				b.meet(p, l, false) // its fork was not noted
			}
			if known := b.live[tgid]; known != nil && p.Files != 0 && known.table != nil && b.tables[p.Files] != known.table && known.table.owner == known && known.since < l.at {
				b.strayed(known, p.Files, l.at)
			}
		}
		done := map[*table]bool{}
		for tgid, p := range b.live {
			bits, ok := l.bits[tgid]
			at := l.procs[tgid]
			if (!ok || at.Files == 0 && p.table != nil) && p.since < l.at {
				b.end(p, l.at) // its exit was not noted
				continue
			}
			if ok && at.Files != 0 && b.tables[at.Files] == p.table && p.table != nil && !done[p.table] {
				done[p.table] = true
				b.compareTable(p, bits, at)
			}
		}
	}
}

// compareTable holds one table against the kernel's as it was at l.At.
func (b *books) compareTable(p *process, bits bitmap, l listed) {
	t := p.table
	if t.copy != nil {
		return // too early to tell
	}
	complete := l.Bytes == l.Most
	if l.Bytes == 0 {
		return
	}
	for num, s := range t.slots {
		if bits.has(num) || !complete && int(num) >= len(bits)*8 || s.last() >= l.At || s.base.at >= l.At {
			continue
		}
		if !s.mayBeOpen() {
			continue
		}
		b.act(t, num, action{enter: l.At, exit: l.At, closes: true})
	}
	bits.each(func(num int32) {
		s := t.slots[num]
		if s != nil && (s.mayBeOpen() && !s.now().maybe || s.last() >= l.At) {
			delete(t.suspects, num)
			return
		}
		if t.vague && t.quiet {
			if s == nil {
				h := holder{open: true, quiet: true, at: l.At}
				t.slots[num] = &slot{base: h, said: h}
			}
			return
		}
		// A call that has reserved its number and waits, as accept does, has a
		// bit but no file.
		if _, err := os.Lstat(b.t.target.Root.Path(p.id.PID, "fd", strconv.Itoa(int(num)))); err != nil {
			return
		}
		since, known := t.suspects[num]
		if !known {
			t.suspects[num] = l.At
			return
		}
		if l.At-since < uint64(suspicion) {
			return
		}
		delete(t.suspects, num)
		call := "received"
		if t.vague || t.doubt != 0 || s != nil && s.base.maybe {
			call = ""
		}
		b.unknown++
		h := holder{open: true, at: l.At, call: call}
		if s == nil {
			s = t.slot(num)
		}
		b.say(t, num, s)
		b.acquire(ref(t.owner, num), h)
		s.base, s.recent, s.said = h, s.recent[:0], h
	})
	if t.quiet {
		t.vague = false
	}
}

// suspicion is how long a descriptor must be open without an event before it
// is said to have come unseen: far longer than a call takes to end after it
// has opened it.
const suspicion = 100 * time.Millisecond
