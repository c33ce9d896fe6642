package probe

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// descriptors is what was said of the target's descriptors.
type descriptors struct {
	said    map[int]descriptor
	doubt   map[int]uint64 // open at the last look without a record: its word
	stale   map[int]uint64 // recorded as open, and closed unseen: its word
	first   map[int]opener // of what was open before the probe
	started bool
	failed  bool // /proc/PID/fd cannot be read, and that was said
	rest    int  // looks for which it is not read: with very many it takes long
}

// descriptor is one that is open.
type descriptor struct {
	word  uint64 // its record
	seen  bool   // the record tells who opened it
	stack leak.StackID
	link  string // what it was when it was said, for those who ask later
}

// opener is who opened a descriptor that the program has inherited.
type opener struct {
	frames []leak.Addr // return addresses
	call   string
}

// fdWord is a record, as probe/wire.h describes it.
type fdWord uint64

func (w fdWord) open() bool          { return w>>wFdOpenShift&1 != 0 }
func (w fdWord) stack() uint32       { return uint32(w & (1<<wStackBits - 1)) }
func (w fdWord) call() string        { return callName(uint64(w >> wFdCallShift & (wCalls - 1))) }
func (w fdWord) time() time.Duration { return timeOf(uint32(w >> wFdTimeShift & (1<<20 - 1))) }

// went is how the one before went, or this one when it is not open.
func (w fdWord) went() string {
	switch w >> wFdHowShift & 3 {
	case wFdClosed:
		return "close"
	case wFdClosedRange:
		return "close_range"
	case wFdReplaced:
		if name := w.call(); w.open() && (name == "dup2" || name == "dup3") {
			return name
		}
		return "dup2"
	}
	return ""
}

// followDescriptors says what changed since the last look: releases, then
// acquires. /proc/PID/fd tells what is open; the records tell by whom. The
// records are read before and after, and a number whose record changes
// meanwhile is left for the next look, unless last says that there is none.
func (p *Probe) followDescriptors(head *bookHead, last bool, sink leak.Sink) error {
	if !p.o.Descriptors {
		return nil
	}
	d := &p.descriptors
	if p.watch.cost.off {
		d.recheck(p.t)
	}
	before, err := p.fdWords(head)
	if err != nil {
		return err
	}
	open, err := p.opened(last, sink)
	if err != nil {
		return err
	}
	if err := p.putOpen(head, open); err != nil {
		return err
	}
	if head, err = p.bookHead(p.mem); err != nil {
		return err
	}
	words, err := p.fdWords(head)
	if err != nil {
		return err
	}
	before = append(before, make([]fdWord, len(words)-min(len(words), len(before)))...)
	p.settle(&settling{before: before, words: words, open: open, known: open != nil, last: last}, sink)
	p.lost("more descriptors than the probe has books for: who opened them was not recorded", head.fdsLost, sink)
	return nil
}

// opened lists /proc/PID/fd; nil when that was not done.
func (p *Probe) opened(last bool, sink leak.Sink) (map[int]bool, error) {
	d := &p.descriptors
	if d.rest > 0 && !last {
		d.rest--
		return nil, nil
	}
	open, err := p.openNumbers()
	if err == nil {
		d.rest = len(open) / 5000
		return open, nil
	}
	if p.t.Check() != nil {
		return nil, err
	}
	if !d.failed {
		d.failed = true
		p.gap(sink, "/proc/PID/fd cannot be read: descriptors that nobody saw opening or closing are not told", 0)
	}
	return nil, nil
}

// settling is one comparison of records with what is open.
type settling struct {
	before, words []fdWord // by number
	open          map[int]bool
	known         bool // open is
	last          bool
	doubt         map[int]uint64
}

func (s *settling) word(num int) fdWord {
	if num < len(s.words) {
		return s.words[num]
	}
	return 0
}

func (p *Probe) settle(s *settling, sink leak.Sink) {
	d := &p.descriptors
	if d.said == nil {
		d.said, d.stale = map[int]descriptor{}, map[int]uint64{}
	}
	s.doubt = map[int]uint64{}
	var gone, came []int
	for _, n := range d.numbers(s) {
		if !s.last && n < len(s.words) && s.words[n] != s.before[n] {
			continue
		}
		is := d.isOpen(s, n)
		was, said := d.said[n]
		same := said && is && was.word == uint64(s.word(n)) && was.seen == d.seen(n, s.word(n))
		if said && !same {
			gone = append(gone, n)
		}
		if is && !same && !d.doubtful(s, n) {
			came = append(came, n)
		}
	}
	slices.Sort(gone)
	slices.Sort(came)
	for _, n := range gone {
		p.saidGone(n, s.word(n), sink)
	}
	for _, n := range came {
		p.saidOpen(n, s.word(n), sink)
	}
	d.doubt, d.started = s.doubt, true
}

// numbers lists those about which something is known.
func (d *descriptors) numbers(s *settling) []int {
	var out []int
	for n, w := range s.words {
		if w != 0 {
			out = append(out, n)
		}
	}
	for n := range s.open {
		if s.word(n) == 0 {
			out = append(out, n)
		}
	}
	for n := range d.said {
		if s.word(n) == 0 && !s.open[n] {
			out = append(out, n)
		}
	}
	return out
}

// isOpen reports whether a number is open: by /proc/PID/fd, or by its record
// where that could not be read. A record that says more than /proc/PID/fd is
// one whose descriptor was closed by nobody that we saw.
func (d *descriptors) isOpen(s *settling, n int) bool {
	w := s.word(n)
	if !s.known {
		was, said := d.said[n]
		return d.seen(n, w) || said && uint64(w) == was.word
	}
	if w.open() && !s.open[n] {
		d.stale[n] = uint64(w)
	}
	return s.open[n]
}

// doubtful reports whether n may just be in the middle of its opening or
// closing: it is open without a record for the first time.
func (d *descriptors) doubtful(s *settling, n int) bool {
	w := s.word(n)
	if d.seen(n, w) || s.last || !d.started {
		return false
	}
	s.doubt[n] = uint64(w)
	at, again := d.doubt[n]
	return !again || at != uint64(w)
}

// seen reports whether the record tells who opened what is open.
func (d *descriptors) seen(n int, w fdWord) bool {
	stale, ok := d.stale[n]
	return w.open() && (!ok || stale != uint64(w))
}

func (p *Probe) saidGone(n int, w fdWord, sink leak.Sink) {
	delete(p.descriptors.said, n)
	r := leak.Release{At: p.o.Clock.Now(), Ref: p.ref(leak.KindDescriptor, uint64(n))}
	if stale, ok := p.descriptors.stale[n]; !ok || stale != uint64(w) {
		r.Call = w.went()
		if w.open() {
			r.At = w.time() // at the latest: then the next one came
		}
	}
	sink.Release(r)
}

func (p *Probe) saidOpen(n int, w fdWord, sink leak.Sink) {
	d := &p.descriptors
	a := leak.Acquire{At: p.o.Clock.Now(), Ref: p.ref(leak.KindDescriptor, uint64(n)), Weight: 1, Exact: true}
	if d.seen(n, w) {
		delete(d.stale, n)
		a.At, a.Call = w.time(), w.call()
		if id, err := p.stackAt(p.mem, w.stack()); err == nil {
			a.Stack = id
		}
	} else if !d.started {
		a.Call, a.Stack = p.inherited(n)
	}
	link, _ := os.Readlink(p.t.Path("fd/" + strconv.Itoa(n))) // it may be closed by now
	d.said[n] = descriptor{word: uint64(w), seen: d.seen(n, w), stack: a.Stack, link: link}
	sink.Acquire(a)
}

// recheck forgets who opened what, after a time in which the hooks were quiet. Only
// a socket or a pipe is surely the same when it looks the same.
func (d *descriptors) recheck(t *proc.Target) {
	for n, was := range d.said {
		link, err := os.Readlink(t.Path("fd/" + strconv.Itoa(n)))
		same := err == nil && link == was.link && (strings.HasPrefix(link, "socket:[") || strings.HasPrefix(link, "pipe:["))
		if !same && was.seen {
			d.stale[n] = was.word
		}
	}
}

// fdWords reads the records.
func (p *Probe) fdWords(head *bookHead) ([]fdWord, error) {
	n := min(head.fdsEnd, p.data.fdCount)
	if n == 0 {
		return nil, nil
	}
	b, err := read(p.mem, p.data.fds, 8*n)
	if err != nil {
		return nil, err
	}
	words := make([]fdWord, n)
	for i := range words {
		words[i] = fdWord(order.Uint64(b[8*i:]))
	}
	return words, nil
}

// putOpen tells the hooks up to where something is open, so that a close of what
// they did not see opening is noted.
func (p *Probe) putOpen(head *bookHead, open map[int]bool) error {
	end := 0
	for n := range open {
		end = max(end, n+1)
	}
	if uint64(end) <= head.fdsEnd || p.data.fdCount == 0 {
		return nil
	}
	return put64(p.mem, p.data.start+wBooksFdsOpen, uint64(end))
}

// openNumbers lists /proc/PID/fd.
func (p *Probe) openNumbers() (map[int]bool, error) {
	dir, err := os.Open(p.t.Path("fd"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	open := make(map[int]bool, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			open[n] = true
		}
	}
	return open, p.t.Check()
}
