package detect

import (
	"cmp"
	"slices"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// The most numbers of a group, and openers of one, that are given.
const (
	maxNumbers = 16
	maxOpeners = 8
)

// DescriptorsOf says what the descriptors of a process are, in groups of what
// is alike, with their openers as far as they are known; each of them when all
// are asked for. Only those that c.Peer and c.Module let through are in groups
// and in the list; Open counts all. It is nil when nobody listed them.
func DescriptorsOf(v *ledger.View, p *ledger.Process, c Config, all bool) *leak.ReportDescriptors {
	if p.ListedAt < 0 {
		return nil
	}
	n := newNames(v, &c)
	entries, groups := fdEntries(n, p)
	out := &leak.ReportDescriptors{Open: uint64(len(entries)), Limits: fdLimits(p)}
	if c.Peer != "" || c.Module != "" {
		entries = slices.DeleteFunc(entries, func(e *fdEntry) bool { return !e.wanted(&c) })
		groups = groupsOf(entries)
	}
	for _, g := range groups {
		out.Groups = append(out.Groups, g.report())
	}
	out.Libraries = librariesOf(entries)
	if all {
		out.List = make([]leak.ReportDescriptor, 0, len(entries))
		for _, e := range entries {
			out.List = append(out.List, e.report(v))
		}
	}
	for _, o := range p.Ownerless {
		out.Ownerless = append(out.Ownerless, leak.ReportOwnerless{State: o.State, Local: o.Local, Count: o.N})
	}
	slices.SortStableFunc(out.Ownerless, func(a, b leak.ReportOwnerless) int { return cmp.Compare(b.Count, a.Count) })
	for _, f := range p.Failures {
		r := leak.ReportFailure{Call: f.Call, Errno: f.Errno, Count: f.N}
		if s := n.stack(f.Stack); s != nil {
			r.Stack, r.Site = s.stack, s.line
		}
		out.Failures = append(out.Failures, r)
	}
	return out
}

func (g *fdGroup) report() leak.ReportDescriptorGroup {
	r := leak.ReportDescriptorGroup{
		What: g.what(), Kind: g.kind, Protocol: g.entries[0].rawProtocol(), State: g.state, Peer: g.peer,
		Count: uint64(len(g.entries)), Openers: openersOf(g.entries),
	}
	if g.server && len(g.hosts()) == 1 {
		r.Peer = g.hosts()[0]
	}
	type file struct{ dev, inode uint64 }
	files := map[file]bool{}
	for _, e := range g.entries {
		if len(r.Numbers) < maxNumbers {
			r.Numbers = append(r.Numbers, e.Num)
		}
		if e.CloseOnExec {
			r.CloseOnExec++
		}
		if k := (file{e.Dev, e.Inode}); k.inode == 0 || !files[k] {
			files[k] = true
			r.Bytes += e.bytes()
		}
	}
	if l := librariesOf(g.entries); len(l) > 0 {
		r.Module = l[0].Module
	}
	if low, high, ok := idleOf(g.entries); ok {
		r.IdleLowS, r.IdleHighS = ptr(low.Seconds()), ptr(high.Seconds())
	}
	return r
}

// librariesOf counts whose code opened descriptors, most first.
func librariesOf(entries []*fdEntry) []leak.ReportLibrary {
	modules := map[string]uint64{}
	for _, e := range entries {
		if m := e.module(); m != "" {
			modules[m]++
		}
	}
	var out []leak.ReportLibrary
	for _, m := range counted(modules) {
		out = append(out, leak.ReportLibrary{Module: m.what, Count: m.n})
	}
	return out
}

// openersOf counts who opened descriptors, most first.
func openersOf(entries []*fdEntry) []leak.ReportOpener {
	type key struct {
		site, call string
		certainty  leak.Certainty
	}
	at := map[key]int{}
	var out []leak.ReportOpener
	for _, e := range entries {
		if e.site == nil {
			continue
		}
		k := key{e.site.lines, e.call, e.certainty}
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, *e.opener())
			out[i].Count = 0
		}
		out[i].Count++
	}
	slices.SortStableFunc(out, func(a, b leak.ReportOpener) int { return cmp.Compare(b.Count, a.Count) })
	return out[:min(len(out), maxOpeners)]
}

func (e *fdEntry) opener() *leak.ReportOpener {
	if e.site == nil {
		return nil
	}
	return &leak.ReportOpener{Count: 1, Certainty: e.certainty, Call: e.call, Stack: e.site.stack, Site: e.site.line}
}

func (e *fdEntry) report(v *ledger.View) leak.ReportDescriptor {
	r := leak.ReportDescriptor{
		Num: e.Num, Kind: e.Kind, What: e.what(), CloseOnExec: e.CloseOnExec, Access: e.Access,
		Bytes: e.bytes(), Deleted: e.Deleted, Opener: e.opener(),
	}
	if s := e.Socket; s != nil {
		r.Socket = &leak.ReportSocket{Protocol: s.Protocol, State: s.State, Local: e.local, Peer: e.peer, ReceiveQueue: s.ReceiveQueue, SendQueue: s.SendQueue}
		if s.LastReceived >= 0 {
			r.Socket.LastReceivedS = ptr(s.LastReceived.Seconds())
		}
		if s.LastSent >= 0 {
			r.Socket.LastSentS = ptr(s.LastSent.Seconds())
		}
	}
	if e.OpenedAt >= 0 {
		r.AgeS = ptr((v.End - e.OpenedAt).Seconds())
	}
	if u := e.Use; u != nil {
		r.LastCall, r.LastCallS = u.Call, ptr(max(v.End-u.At, 0).Seconds())
		if u.Error != "" {
			r.LastCall += " (" + u.Error + ")"
		}
	}
	return r
}
