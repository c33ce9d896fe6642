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

// dropped deals with events that did not fit into the ring: what they were
// about is not known any more.
func (b *books) dropped() {
	var dropped uint64
	if err := b.t.objects.Variables["dropped"].Get(&dropped); err != nil || dropped == b.told {
		return
	}
	b.told = dropped
	lost := b.t.objects.Maps["lost"]
	var keys []lostKey
	var key lostKey
	var at uint64
	for it := lost.Iterate(); it.Next(&key, &at); {
		keys = append(keys, key)
	}
	for _, key := range keys {
		if err := lost.LookupAndDelete(key, &at); err != nil {
			continue
		}
		p := b.live[key.Tgid]
		switch {
		case p == nil || p.table == nil:
		case key.Num < 0:
			b.doubtAll(p.table, at)
		default:
			s := p.table.slot(key.Num)
			s.doubt = max(s.doubt, at)
			b.later(p.table, key.Num, s, at)
		}
	}
	if err := b.t.objects.Variables["dropped_all"].Get(&at); err == nil && at > b.allLost {
		b.allLost = at
		for _, t := range b.tables {
			b.doubtAll(t, at)
		}
	}
	b.resync()
}

// doubtAll makes what all numbers of a table stood for until a time unknown.
func (b *books) doubtAll(t *table, at uint64) {
	t.doubt = max(t.doubt, at)
	for num, s := range t.slots {
		s.doubt = max(s.doubt, t.doubt)
		b.later(t, num, s, at)
	}
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
