package fdtrace

import (
	"fmt"

	"stanch/internal/leak"
)

// lostKey is struct slot of fdtrace.bpf.c.
type lostKey struct {
	Tgid uint32
	Num  int32
}

// losses are events that did not fit into the ring: what they were about, and
// when that was known.
type losses struct {
	at   uint64
	all  uint64 // since then nothing is certain
	keys map[lostKey]uint64
}

// dropped deals with events that did not fit into the ring, once those from
// before have been taken: what they were about is not known any more.
func (b *books) dropped(now uint64) {
	if l := b.losses; l != nil && l.at <= now {
		b.losses = nil
		for key, at := range l.keys {
			p := b.live[key.Tgid]
			switch {
			case p == nil || p.table == nil:
			case key.Num < 0:
				b.doubtAll(p.table, at)
			default:
				b.doubt(p.table, key.Num, at)
			}
		}
		if l.all > 0 {
			for _, t := range b.tables {
				b.doubtAll(t, l.all)
			}
		}
		b.resync()
	}
	var dropped uint64
	if err := b.t.objects.Variables["dropped"].Get(&dropped); err != nil || dropped == b.told || b.losses != nil {
		return
	}
	b.told = dropped
	b.losses = b.lost()
}

// lost takes the list of what was lost from the kernel.
func (b *books) lost() *losses {
	l := &losses{keys: map[lostKey]uint64{}}
	lost := b.t.objects.Maps["lost"]
	var keys []lostKey
	var key lostKey
	var at uint64
	for it := lost.Iterate(); it.Next(&key, &at); {
		keys = append(keys, key)
	}
	for _, key := range keys {
		if err := lost.LookupAndDelete(key, &at); err == nil {
			l.keys[key] = at
		}
	}
	if err := b.t.objects.Variables["dropped_all"].Get(&at); err == nil && at > b.allLost {
		b.allLost, l.all = at, at
	}
	l.at = bootNow()
	return l
}

func (b *books) doubtAll(t *table, at uint64) {
	for num := range t.slots {
		b.doubt(t, num, at)
	}
	// What was opened then is found by the next listing.
	t.missed = at
}

// doubt forgets what a number stood for before a time.
func (b *books) doubt(t *table, num int32, at uint64) {
	s := t.slot(num)
	if s.last() > at {
		kept := s.recent[:0]
		for _, a := range s.recent {
			if a.exit > at {
				kept = append(kept, a)
			}
		}
		s.recent = kept
		s.base = holder{maybe: true, at: at}
		return
	}
	if s.said.open {
		b.sink.Release(leak.Release{At: b.at(at), Ref: leak.Ref{Proc: t.owner.id, Kind: leak.KindDescriptor, ID: uint64(num)}})
	}
	s.base, s.recent, s.said = holder{maybe: true, at: at}, s.recent[:0], holder{}
}

// gap says what nobody could see.
func (b *books) gap(format string, args ...any) {
	b.sink.Gap(leak.Gap{At: b.t.o.Clock.Now(), Proc: b.target.id, Source: "fdtrace", What: fmt.Sprintf(format, args...)})
}

// gaps says at the end what could not be told.
func (b *books) gaps() {
	say := func(n uint64, what string) {
		if n > 0 {
			b.sink.Gap(leak.Gap{At: b.t.o.Clock.Now(), Proc: b.target.id, Source: "fdtrace", What: what, Lost: n})
		}
	}
	say(b.told, "calls on descriptors were not noted for lack of room: who opened some is unknown")
	say(b.unknown, "descriptors are open whose opener could not be told: another process passed them, or calls on their numbers overlapped")
	say(b.stacks0, "descriptors were opened by code whose stack could not be walked, since the process had ended or replaced its program")
}
