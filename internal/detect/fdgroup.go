package detect

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// fdEntry is an open descriptor with what it is, and who opened it.
type fdEntry struct {
	*ledger.OpenDescriptor
	protocol string // in words: "TCP", "unix stream"
	local    string
	peer     string
	server   bool   // the other side connected to this one
	name     string // of what is no socket: a path or a pattern of paths
	site     *site  // who opened it, nil when it is not known
	// Proved when it was seen, likely when others of its group came from there.
	certainty leak.Certainty
	call      string // how it came, as sure as site
}

// fdEntries describes all open descriptors of a process, finds who opened them,
// and puts together what is alike.
func fdEntries(n *names, p *ledger.Process) (entries []*fdEntry, groups []*fdGroup) {
	all := make([]fdEntry, len(p.Open))
	out := make([]*fdEntry, 0, len(p.Open))
	for i := range p.Open {
		e := &all[i]
		e.OpenDescriptor, e.certainty = &p.Open[i], leak.CertaintyNone
		if s := e.Socket; s != nil {
			e.protocol, e.local, e.peer = protocolWord(s.Protocol), unmapped(s.Local), unmapped(s.Peer)
		}
		if s := n.stack(e.Opener); s != nil {
			e.site, e.call, e.certainty = s, e.Call, leak.CertaintyProved
		}
		out = append(out, e)
	}
	sides(out)
	pathPatterns(out)
	groups = groupsOf(out)
	attribute(n, p, groups)
	return out, groups
}

// rawProtocol is the socket's protocol as the listing has it.
func (e *fdEntry) rawProtocol() string {
	if e.Socket == nil {
		return ""
	}
	return e.Socket.Protocol
}

func protocolWord(p string) string {
	switch p {
	case "tcp", "udp", "sctp", "mptcp", "dccp":
		return strings.ToUpper(p)
	}
	return p
}

// unmapped writes an IPv4 address in an IPv6 socket as what it is.
func unmapped(address string) string {
	if !strings.Contains(strings.ToLower(address), "::ffff:") {
		return address
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return address
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// port gives ":8080" of an address; "" when it has none.
func port(address string) string {
	if i := strings.LastIndexByte(address, ':'); i >= 0 && !strings.HasPrefix(address, "/") && !strings.HasPrefix(address, "@") {
		return address[i:]
	}
	return ""
}

// host is an address without its port.
func host(address string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(address, port(address)), "["), "]")
}

// manyPeers is how many connections of one local port, with peers of their
// own, make it the port of a server whose listening socket is not here.
const manyPeers = 3

// sides finds which connections came from the other side.
func sides(entries []*fdEntry) {
	type end struct{ protocol, port string }
	listens := map[end]bool{}
	peers := map[end][]string{} // manyPeers of them at most
	for _, e := range entries {
		if e.Socket == nil || port(e.local) == "" {
			continue
		}
		at := end{e.protocol, port(e.local)}
		switch {
		case e.Socket.State == "LISTEN":
			listens[at] = true
		case e.peer != "":
			if known := peers[at]; len(known) < manyPeers && !slices.Contains(known, e.peer) {
				peers[at] = append(known, e.peer)
			}
		}
	}
	for _, e := range entries {
		if e.Socket == nil || e.peer == "" || port(e.local) == "" {
			continue
		}
		at := end{e.protocol, port(e.local)}
		e.server = listens[at] || len(peers[at]) >= manyPeers
	}
}

// leastPattern is how many paths make a pattern.
const leastPattern = 3

// pathPatterns names files, and puts a pattern where many paths are alike.
func pathPatterns(entries []*fdEntry) {
	paths := map[string]map[string]bool{}
	pattern := func(e *fdEntry) string {
		dir, base := path.Split(e.Name)
		parts := strings.Split(dir, "/")
		for i, s := range parts {
			if s != "" && strings.Trim(s, "0123456789") == "" {
				parts[i] = "*"
			}
		}
		dir = strings.Join(parts, "/")
		if ext := path.Ext(base); len(ext) > 1 && len(ext) <= 8 && ext != base && strings.Trim(ext, ".0123456789") != "" {
			return dir + "*" + ext
		}
		if dir != e.Name[:len(e.Name)-len(base)] {
			return dir + base // as /proc/*/stat
		}
		return dir + "*"
	}
	alike := func(e *fdEntry) bool {
		return (e.Kind == "file" || e.Kind == "directory") && strings.HasPrefix(e.Name, "/")
	}
	key := func(e *fdEntry, pattern string) string { return fmt.Sprint(e.Kind, e.Deleted, pattern) }
	for _, e := range entries {
		if alike(e) {
			k := key(e, pattern(e))
			if paths[k] == nil {
				paths[k] = map[string]bool{}
			}
			paths[k][e.Name] = true
		}
	}
	for _, e := range entries {
		e.name = e.Name
		switch {
		case alike(e):
			if p := pattern(e); len(paths[key(e, p)]) >= leastPattern {
				e.name = p
			}
		case e.Kind == "memfd":
			e.name = "memfd " + strings.TrimPrefix(strings.TrimPrefix(e.Name, "/memfd:"), "memfd:")
		case !strings.HasPrefix(e.Name, "/"):
			e.name = e.Kind // "pipe:[77]" and the like tell no more
		}
		if e.Kind == "" && e.name == "" {
			e.name = "opened by " + cmp.Or(e.Call, "an unknown call")
		}
	}
}

// fdGroup are descriptors that are alike.
type fdGroup struct {
	kind, protocol, state string
	server                bool
	local, peer, name     string // what they have in common
	deleted               bool
	entries               []*fdEntry
	from                  []string // hosts, once they were asked for
}

// groupsOf puts together what is alike, the largest group first.
func groupsOf(entries []*fdEntry) []*fdGroup {
	type key struct {
		kind, protocol, state, local, peer, name string
		server, deleted                          bool
	}
	byKey := map[key]*fdGroup{}
	var out []*fdGroup
	for _, e := range entries {
		k := key{kind: e.Kind, name: e.name, deleted: e.Deleted}
		if s := e.Socket; s != nil {
			k = key{kind: e.Kind, protocol: e.protocol, state: s.State, server: e.server}
			switch {
			case e.server:
				k.local = port(e.local)
			case e.peer != "":
				k.peer = e.peer
			default:
				k.local = e.local
			}
		}
		g := byKey[k]
		if g == nil {
			g = &fdGroup{kind: k.kind, protocol: k.protocol, state: k.state, server: k.server, local: k.local, peer: k.peer, name: k.name, deleted: k.deleted}
			byKey[k] = g
			out = append(out, g)
		}
		g.entries = append(g.entries, e)
	}
	slices.SortStableFunc(out, func(a, b *fdGroup) int { return cmp.Compare(len(b.entries), len(a.entries)) })
	return out
}

// what says what the group is.
func (g *fdGroup) what() string {
	if g.protocol == "" {
		if g.deleted {
			return g.name + " (deleted)"
		}
		return g.name
	}
	words := []string{g.protocol}
	if g.state != "" {
		words = append(words, g.state)
	}
	switch {
	case g.server:
		from := g.hosts()
		if len(from) == 1 {
			words = append(words, "from", from[0])
		} else {
			words = append(words, "from", leak.FormatCount(uint64(len(from))), "peers")
		}
		words = append(words, "to", g.local)
	case g.peer != "":
		words = append(words, "to", g.peer)
	case g.local != "":
		words = append(words, "on", g.local)
	case g.state == "CLOSE":
		words = append(words, "(not connected)")
	}
	return strings.Join(words, " ")
}

// hosts are the other sides of a server's connections, each once.
func (g *fdGroup) hosts() []string {
	if g.from == nil {
		out := make([]string, 0, len(g.entries))
		for _, e := range g.entries {
			out = append(out, host(e.peer))
		}
		slices.Sort(out)
		g.from = slices.Compact(out)
	}
	return g.from
}

// what says what one descriptor is.
func (e *fdEntry) what() string {
	s := e.Socket
	switch {
	case s == nil && e.Deleted:
		return e.Name + " (deleted)"
	case s == nil && strings.HasPrefix(e.Name, "/") && e.Kind != "memfd":
		return e.Name
	case s == nil:
		return e.name
	}
	words := []string{e.protocol}
	for _, w := range []string{s.State, e.local} {
		if w != "" {
			words = append(words, w)
		}
	}
	switch {
	case e.server:
		words = append(words, "from", e.peer)
	case e.peer != "":
		words = append(words, "to", e.peer)
	}
	return strings.Join(words, " ")
}

// idle is for how long no data has come or gone; not ok when that is not
// known.
func (e *fdEntry) idle() (time.Duration, bool) {
	s := e.Socket
	if s == nil || s.LastReceived < 0 && s.LastSent < 0 {
		return 0, false
	}
	switch {
	case s.LastReceived < 0:
		return s.LastSent, true
	case s.LastSent < 0:
		return s.LastReceived, true
	}
	return min(s.LastReceived, s.LastSent), true
}

// idleOf is the shortest and the longest such time of several.
func idleOf(entries []*fdEntry) (low, high time.Duration, known bool) {
	for _, e := range entries {
		d, ok := e.idle()
		if !ok {
			continue
		}
		if !known || d < low {
			low = d
		}
		high, known = max(high, d), true
	}
	return low, high, known
}

// bytes are those that a descriptor keeps: of a memfd, of a file that nobody
// else can reach, or queued.
func (e *fdEntry) bytes() uint64 {
	switch {
	case e.Kind == "memfd", e.Kind == "pipe", e.Kind == "fifo", e.Kind == "file" && e.Deleted:
		return e.Size
	case e.Socket != nil && e.Socket.State != "LISTEN":
		return e.Socket.ReceiveQueue + e.Socket.SendQueue
	}
	return 0
}
