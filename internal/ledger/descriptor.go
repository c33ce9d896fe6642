package ledger

import (
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
)

// descriptors are the books of one process's descriptors: those that a tracer
// saw come, by number, and those of the last listing. Neither knows all: a
// descriptor that was open before anyone watched has no opener, and what the
// tracer missed is corrected by the next listing.
type descriptors struct {
	firstAt  time.Duration // first word of any source; negative when there was none
	lastAt   time.Duration // and the last
	tracedAt time.Duration // first word of a tracer; likewise
	held     map[uint64]heldDescriptor
	openers  map[openKey]*opener
	uses     map[uint64]leak.Use
	exited   bool   // the process has ended
	older    uint64 // closed ones that were open before the tracer came

	listedAt time.Duration // negative when nothing was listed
	listed   []listedDescriptor
	changed  map[uint64]change // numbers that were opened or closed after it
}

// heldDescriptor is a descriptor that a tracer saw come and not go.
type heldDescriptor struct {
	record
	by   *opener
	gone bool // a listing showed that it was closed
}

// change is when a number was last opened and closed; negative when it was not.
type change struct{ opened, closed time.Duration }

type openKey struct {
	stack leak.StackID
	call  string
}

// opener counts what one stack opened by one call.
type opener struct {
	openKey
	opened, closed uint64
	closers        []Closer
}

// listedDescriptor is a descriptor of the last listing with its history.
type listedDescriptor struct {
	leak.Descriptor
	seenAt, stateAt, quietAt time.Duration
	data                     time.Duration // when data last came or went, at quietAt
}

// The most openers that are told apart, and the most closers of one. What
// comes beyond them is counted without stacks.
const (
	maxOpeners = 4096
	maxClosers = 16
)

// listingTime is how long the reading of a listing may take. Within it nobody
// knows whether the listing or the call came first.
const listingTime = time.Second

// dataSlack is by how much the time of the last data may seem to move between
// two listings without any: tcp_info counts in jiffies, from when it was asked.
const dataSlack = time.Second

func newDescriptors() descriptors {
	return descriptors{
		firstAt: -1, tracedAt: -1, listedAt: -1, held: map[uint64]heldDescriptor{}, openers: map[openKey]*opener{},
		uses: map[uint64]leak.Use{}, changed: map[uint64]change{},
	}
}

// heard notes that a source spoke.
func (d *descriptors) heard(at time.Duration) {
	earlier(&d.firstAt, at)
	d.lastAt = max(d.lastAt, at)
}

// earlier makes *first the earlier of both; negative means that it has none.
func earlier(first *time.Duration, at time.Duration) {
	if at = max(at, 0); *first < 0 || at < *first {
		*first = at
	}
}

func (d *descriptors) traced(at time.Duration) {
	d.heard(at)
	earlier(&d.tracedAt, at)
}

func (d *descriptors) opener(k openKey) *opener {
	o := d.openers[k]
	if o == nil && len(d.openers) >= maxOpeners {
		k = openKey{}
		o = d.openers[k]
	}
	if o == nil {
		o = &opener{openKey: k}
		d.openers[k] = o
	}
	return o
}

func (d *descriptors) acquire(a leak.Acquire) {
	d.traced(a.At)
	num := a.Ref.ID
	h := heldDescriptor{record: record{at: a.At, stack: a.Stack, weight: 1, last: math.MaxUint16, exact: a.Exact}}
	k := openKey{a.Stack, a.Call}
	replaced := false
	if old, known := d.held[num]; known {
		if (old.at-a.At).Abs() <= clockSlack(a.At) && old.by.openKey == k {
			return // said again
		}
		// What a new program finds open was opened by the old one.
		if a.Call == "exec" && a.Stack == 0 {
			h.stack, k.stack = old.stack, old.stack
		}
		d.close(num, old, leak.Release{})
		replaced = a.Call != "exec"
	}
	h.by = d.opener(k)
	h.by.opened++
	d.held[num] = h
	if d.uses[num].At < a.At {
		delete(d.uses, num)
	}
	if a.Call != "exec" {
		d.change(num, a.At, replaced)
	}
}

func (d *descriptors) release(r leak.Release) {
	d.traced(r.At)
	if r.Call == "exit" {
		d.exited = true
		return // the kernel closes what the program did not
	}
	num := r.Ref.ID
	if h, known := d.held[num]; known {
		d.close(num, h, r)
	} else {
		d.older++
	}
	delete(d.uses, num)
	d.change(num, r.At, true)
}

// change notes that a number was closed, or else opened, unless the last
// listing is later.
func (d *descriptors) change(num uint64, at time.Duration, closed bool) {
	if at <= d.listedAt {
		return
	}
	c, known := d.changed[num]
	if !known {
		c = change{-1, -1}
	}
	if closed {
		c.closed = max(c.closed, at)
	} else {
		c.opened = max(c.opened, at)
	}
	d.changed[num] = c
}

// outdated reports whether a number stands for something else than the last
// listing shows. One that was opened while that was being read, and was not
// closed since it began, is what it shows.
func (d *descriptors) outdated(num uint64) bool {
	c, known := d.changed[num]
	return known && (c.closed > d.listedAt || c.opened > d.listedAt+listingTime)
}

// close takes a descriptor out of the books of who opened it.
func (d *descriptors) close(num uint64, h heldDescriptor, r leak.Release) {
	delete(d.held, num)
	o := h.by
	if !h.gone {
		o.closed++
	}
	if r.Stack == 0 {
		return
	}
	i := slices.IndexFunc(o.closers, func(c Closer) bool { return c.Stack == r.Stack && c.Call == r.Call })
	switch {
	case i >= 0:
		o.closers[i].N++
	case len(o.closers) < maxClosers:
		o.closers = append(o.closers, Closer{r.Stack, r.Call, 1})
	}
}

func (d *descriptors) use(u leak.Use) {
	d.traced(u.At)
	num := u.Ref.ID
	c, changed := d.changed[num]
	if h, known := d.held[num]; known && u.At < h.at || max(c.opened, c.closed) > u.At && changed {
		return // of the one that had the number before
	}
	if old, known := d.uses[num]; !known || old.At <= u.At {
		d.uses[num] = u
	}
}

// list takes a listing. One that is older than the last is left out.
func (d *descriptors) list(x leak.Listing) {
	d.heard(x.At)
	if x.At < d.listedAt {
		return
	}
	now := make([]listedDescriptor, 0, len(x.Open))
	for i := range x.Open {
		e := listedDescriptor{Descriptor: x.Open[i], seenAt: x.At, stateAt: x.At, quietAt: -1}
		if s := e.Socket; s != nil {
			kept := *s
			e.Socket = &kept
		}
		if e.data = lastData(&e.Descriptor, x.At); e.data != noData {
			e.quietAt = x.At
		}
		now = append(now, e)
	}
	slices.SortStableFunc(now, func(a, b listedDescriptor) int { return a.Num - b.Num })
	now = slices.CompactFunc(now, func(a, b listedDescriptor) bool { return a.Num == b.Num })
	j := 0
	for i := range now {
		for j < len(d.listed) && d.listed[j].Num < now[i].Num {
			j++
		}
		if j == len(d.listed) || d.listed[j].Num != now[i].Num {
			continue
		}
		d.follow(&d.listed[j], &now[i])
	}
	for num, h := range d.held {
		if _, open := find(now, num); !open && !h.gone && h.at+listingTime < x.At {
			d.unseenClose(num, h)
		}
	}
	for num, c := range d.changed {
		if max(c.opened, c.closed) <= x.At {
			delete(d.changed, num)
		}
	}
	d.listed, d.listedAt = now, x.At
}

// follow carries on what was known of a number at the listing before.
func (d *descriptors) follow(before, now *listedDescriptor) {
	num := uint64(max(now.Num, 0))
	if !before.same(&now.Descriptor) {
		if h, held := d.held[num]; held && !h.gone && h.at <= d.listedAt+listingTime && !d.outdated(num) {
			d.unseenClose(num, h)
		}
		return
	}
	if _, again := d.changed[num]; again && now.Inode == 0 {
		return // perhaps another of the same name
	}
	now.seenAt = before.seenAt
	a, b := before.Socket, now.Socket
	if a == nil || b == nil || a.State != b.State {
		return
	}
	now.stateAt = before.stateAt
	if now.quietAt >= 0 && before.quietAt >= 0 && (now.data-before.data).Abs() <= dataSlack && a.ReceiveQueue == b.ReceiveQueue && a.SendQueue == b.SendQueue {
		now.quietAt, now.data = before.quietAt, before.data
	}
}

// unseenClose notes that a descriptor is not what was opened any more.
func (d *descriptors) unseenClose(num uint64, h heldDescriptor) {
	h.gone = true
	h.by.closed++
	d.held[num] = h
}

// same reports whether a number stands for the same open file as before, as
// far as that can be told.
func (l *listedDescriptor) same(now *leak.Descriptor) bool {
	return l.Kind == now.Kind && l.Inode == now.Inode && l.Dev == now.Dev && (l.Inode != 0 || l.Name == now.Name)
}

// noData is a time of data that nobody knows.
const noData = time.Duration(-1 << 62)

// lastData gives the moment at which data last came or went through a socket.
func lastData(f *leak.Descriptor, at time.Duration) time.Duration {
	if f.Socket == nil || f.Socket.LastReceived < 0 || f.Socket.LastSent < 0 {
		return noData
	}
	return at - min(f.Socket.LastReceived, f.Socket.LastSent)
}

func find(listed []listedDescriptor, num uint64) (*listedDescriptor, bool) {
	i, ok := slices.BinarySearchFunc(listed, num, func(l listedDescriptor, n uint64) int {
		switch at := uint64(max(l.Num, 0)); {
		case at < n:
			return -1
		case at > n:
			return 1
		}
		return 0
	})
	if !ok {
		return nil, false
	}
	return &listed[i], true
}
