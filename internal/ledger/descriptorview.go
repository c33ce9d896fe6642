package ledger

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
)

// OpenDescriptor is a descriptor that is open, with what is known of how it
// came to be. Times are negative where they are not known.
type OpenDescriptor struct {
	leak.Descriptor               // the number alone when no listing has it
	Opener          leak.StackID  // 0 when nobody saw it opened
	Call            string        // how it came, as in Acquire; "" when nobody saw it come
	OpenedAt        time.Duration // when it came to this process or, by exec, to this program; negative when it was open before anyone watched
	Use             *leak.Use     // the last call on it, nil when none was seen
	SeenAt          time.Duration // the first listing that had this number with the same inode
	StateAt         time.Duration // the first listing since which its socket is in this state
	QuietAt         time.Duration // the first listing since which no data came or went and none waits more or less; only for sockets whose times of data are known
}

// Opener counts the descriptors that one stack opened by one call, since a
// tracer watched.
type Opener struct {
	Stack    leak.StackID
	Call     string
	Opened   uint64
	Closed   uint64
	Held     uint64        // opened and not closed
	Thirds   [3]uint64     // of these, by the third of the watch in which they came
	OldestAt time.Duration // when the oldest of them came; negative when none is held
	Closers  []Closer      // where others of its descriptors were closed, most first
}

// Closer counts the descriptors that one stack closed.
type Closer struct {
	Stack leak.StackID
	Call  string
	N     uint64
}

func (d *descriptors) view(p *Process) {
	p.Exited = d.exited
	p.FirstAt, p.LastAt, p.TracedAt, p.ListedAt, p.ClosedOlder = d.firstAt, d.lastAt, d.tracedAt, d.listedAt, d.older
	p.Open = make([]OpenDescriptor, 0, len(d.listed))
	for i := range d.listed {
		l := &d.listed[i]
		num := uint64(max(l.Num, 0))
		if d.outdated(num) {
			continue
		}
		o := OpenDescriptor{Descriptor: l.Descriptor, OpenedAt: -1, SeenAt: l.seenAt, StateAt: l.stateAt, QuietAt: l.quietAt}
		if h, held := d.held[num]; held && !h.gone && makes(h.by.call, l.Kind) {
			o.opened(&h)
		}
		o.Use = d.lastUse(num)
		p.Open = append(p.Open, o)
	}
	byOpener := map[*opener]*Opener{}
	for _, k := range slices.SortedFunc(maps.Keys(d.openers), func(a, b openKey) int {
		return cmp.Or(cmp.Compare(a.stack, b.stack), strings.Compare(a.call, b.call))
	}) {
		o := d.openers[k]
		closers := slices.Clone(o.closers)
		slices.SortStableFunc(closers, func(a, b Closer) int { return cmp.Compare(b.N, a.N) })
		p.Openers = append(p.Openers, Opener{Stack: k.stack, Call: k.call, Opened: o.opened, Closed: o.closed, OldestAt: -1, Closers: closers})
	}
	for i := range p.Openers {
		o := &p.Openers[i]
		byOpener[d.openers[openKey{o.Stack, o.Call}]] = o
	}
	for num, h := range d.held {
		if h.gone {
			continue
		}
		by := byOpener[h.by]
		by.Held++
		by.Thirds[third(h.at, d.firstAt, d.lastAt)]++
		if by.OldestAt < 0 || h.at < by.OldestAt {
			by.OldestAt = h.at
		}
		if _, listed := d.listedNow(num); !listed {
			o := OpenDescriptor{Descriptor: leak.Descriptor{Num: int(num)}, OpenedAt: -1, SeenAt: -1, StateAt: -1, QuietAt: -1, Use: d.lastUse(num)}
			o.opened(&h)
			p.Open = append(p.Open, o)
		}
	}
	slices.SortFunc(p.Open, func(a, b OpenDescriptor) int { return cmp.Compare(a.Num, b.Num) })
}

// listedNow finds a number in the last listing, unless it stands for something
// else by now.
func (d *descriptors) listedNow(num uint64) (*listedDescriptor, bool) {
	if d.outdated(num) {
		return nil, false
	}
	return find(d.listed, num)
}

func (o *OpenDescriptor) opened(h *heldDescriptor) {
	o.Opener, o.Call = h.stack, h.by.call
	if h.by.call != "" || h.stack != 0 {
		o.OpenedAt = h.at
	}
}

func (d *descriptors) lastUse(num uint64) *leak.Use {
	u, ok := d.uses[num]
	if !ok {
		return nil
	}
	return &u
}

// makes reports whether a call can have made a descriptor of a kind. What it
// cannot have made is another one, whose opening was missed.
func makes(call, kind string) bool {
	switch call {
	case "socket", "socketpair", "accept", "accept4":
		return kind == "socket"
	case "pipe", "pipe2":
		return kind == "pipe"
	case "open", "openat", "openat2", "creat":
		return kind != "socket" && kind != "memfd" && !strings.HasPrefix(kind, "event")
	}
	return true
}
