package detect

import (
	"strings"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// attribute finds the likely openers of what was open before anyone watched:
// the place that opened nearly all others of the group since; or, where none
// of the group was seen to be opened, the only place that was seen to make
// such descriptors at all.
func attribute(n *names, p *ledger.Process, groups []*fdGroup) {
	for _, g := range groups {
		s, call := g.opener()
		if s == nil {
			s, call = onlyMaker(n, p, g)
		}
		if s == nil {
			continue
		}
		for _, e := range g.entries {
			// What is known to have come otherwise has no such opener.
			if e.site == nil && e.Call == "" {
				e.site, e.call, e.certainty = s, call, leak.CertaintyLikely
			}
		}
	}
}

// opener is the place that opened at least two thirds of those of the group
// that were seen to be opened.
func (g *fdGroup) opener() (*site, string) {
	n := map[string]int{}
	all := 0
	var most *fdEntry
	for _, e := range g.entries {
		if e.site == nil || inheritedCall(e.call) {
			continue
		}
		all++
		n[e.site.lines]++
		if most == nil || n[e.site.lines] > n[most.site.lines] {
			most = e
		}
	}
	if most == nil || n[most.site.lines]*3 < all*2 {
		return nil, ""
	}
	return most.site, most.call
}

// onlyMaker is the only place of which a call was seen that makes descriptors
// of the group's kind and no others.
func onlyMaker(n *names, p *ledger.Process, g *fdGroup) (*site, string) {
	var only *site
	var call string
	for i := range p.Openers {
		o := &p.Openers[i]
		if !g.madeBy(o.Call) {
			continue
		}
		s := n.stack(o.Stack)
		if s == nil || only != nil && only.lines != s.lines {
			return nil, ""
		}
		only, call = s, o.Call
	}
	return only, call
}

// madeBy reports whether a call makes descriptors such as the group's, and
// hardly any others.
func (g *fdGroup) madeBy(call string) bool {
	switch g.kind {
	case "socket":
		return g.server && (call == "accept" || call == "accept4")
	case "pipe":
		return strings.HasPrefix(call, "pipe")
	case "memfd":
		return call == "memfd_create"
	case "eventpoll":
		return strings.HasPrefix(call, "epoll_create")
	case "eventfd", "timerfd", "signalfd", "inotify", "io_uring", "pidfd", "userfaultfd":
		return strings.HasPrefix(call, g.kind)
	}
	return false
}

// module is the library that opened a descriptor: that of the first frame
// outside libc; "" when it is not known.
func (e *fdEntry) module() string {
	if e.site == nil {
		return ""
	}
	for i := range e.site.stack {
		if m := e.site.stack[i].Module; !cLibrary(m) {
			return m
		}
	}
	return ""
}

// wanted reports whether a descriptor passes the filters.
func (e *fdEntry) wanted(c *Config) bool {
	if c.Module != "" && !strings.HasPrefix(e.module(), c.Module) {
		return false
	}
	if c.Peer == "" {
		return true
	}
	want := unmapped(c.Peer)
	return e.peer != "" && (e.peer == want || port(e.peer) == want || host(e.peer) == strings.Trim(want, "[]"))
}
