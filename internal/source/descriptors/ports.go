package descriptors

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"stanch/internal/leak"
)

// portRange is where the kernel takes the local port of an outgoing connection
// from.
type portRange struct {
	low, high uint16   // both included; 0 when not known
	reserved  []uint16 // within, in order
}

// parsePortRange reads net.ipv4.ip_local_port_range, "32768 60999", and
// ip_local_reserved_ports, "8080,9000-9010".
func parsePortRange(text, reserved string) portRange {
	var r portRange
	f := strings.Fields(text)
	if len(f) != 2 {
		return r
	}
	low, err1 := strconv.ParseUint(f[0], 10, 16)
	high, err2 := strconv.ParseUint(f[1], 10, 16)
	if err1 != nil || err2 != nil || low > high {
		return r
	}
	r.low, r.high = uint16(low), uint16(high)
	for part := range strings.SplitSeq(reserved, ",") {
		from, to, span := strings.Cut(part, "-")
		if !span {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for p := max(first, low); p <= min(last, high); p++ {
			r.reserved = append(r.reserved, uint16(p))
		}
	}
	slices.Sort(r.reserved)
	r.reserved = slices.Compact(r.reserved)
	return r
}

// known reports whether the range could be read.
func (r *portRange) known() bool { return r.high != 0 }

// size is how many ports there are to take.
func (r *portRange) size() uint64 {
	return uint64(r.high) - uint64(r.low) + 1 - uint64(len(r.reserved))
}

// has reports whether p may be taken for an outgoing connection.
func (r *portRange) has(p uint16) bool {
	if p < r.low || p > r.high {
		return false
	}
	_, reserved := slices.BinarySearch(r.reserved, p)
	return !reserved
}

// way is what an outgoing connection has besides its local port, which must
// differ from those of all others on the same way.
type way struct {
	source netip.Addr
	peer   netip.AddrPort
}

// tcpTable is what the table of TCP says of the namespace as a whole.
type tcpTable struct {
	listening map[uint16]bool // local ports
	out       map[wayPort]struct{}
	gone      []inetSocket // without an owner, closed
	sysctls   sysctls      // zero when they could not be read
}

// wayPort is a local port in use on a way.
type wayPort struct {
	way
	port uint16
}

// unowned are the states of a connection that its program has closed. Other
// connections without a descriptor wait to be accepted.
var unowned = map[string]bool{"FIN_WAIT1": true, "FIN_WAIT2": true, "CLOSING": true, "LAST_ACK": true, "TIME_WAIT": true}

// add takes in one socket of the TCP table.
func (n *tcpTable) add(s *inetSocket) {
	if s.listening() {
		n.listening[s.local.Port()] = true
		return
	}
	if s.inode == 0 && unowned[s.state] {
		n.gone = append(n.gone, *s)
	}
	if s.peer.Port() != 0 {
		n.out[wayPort{way{s.local.Addr(), s.peer}, s.local.Port()}] = struct{}{}
	}
}

// outgoing reports whether a connection with this local port was made here,
// as far as one can tell once it is there.
func (n *tcpTable) outgoing(local uint16) bool {
	r := &n.sysctls.ports
	return !n.listening[local] && (!r.known() || local >= r.low && local <= r.high)
}

const (
	waysShown = 4  // the fullest ones
	fewPorts  = 10 // a way with less is not worth a line
)

// ports says how many local ports are taken on the fullest ways.
func (n *tcpTable) ports(say func(leak.Usage)) {
	r := &n.sysctls.ports
	if !r.known() {
		return
	}
	used := map[way]uint64{}
	for w := range n.out {
		if r.has(w.port) && n.outgoing(w.port) {
			used[w.way]++
		}
	}
	var ways []way
	for w, count := range used {
		if count >= fewPorts {
			ways = append(ways, w)
		}
	}
	slices.SortFunc(ways, func(a, b way) int {
		return cmp.Or(cmp.Compare(used[b], used[a]), a.source.Compare(b.source), a.peer.Compare(b.peer))
	})
	for _, w := range ways[:min(len(ways), waysShown)] {
		say(leak.Usage{
			Name: leak.UsagePorts, Scope: w.source.String() + " to " + w.peer.String(),
			Used: used[w], Max: r.size(), Limit: "net.ipv4.ip_local_port_range",
		})
	}
}

// groupsShown is how many groups of ownerless sockets each state is given.
const groupsShown = 16

// ownerless says what has no owner: incoming connections by the port they came
// to, outgoing ones by where they went. Small groups stand together.
func (n *tcpTable) ownerless(say func(leak.Ownerless)) {
	// Where the listener is gone too, the end that more of them share is the
	// server's.
	here, there := map[uint16]int{}, map[netip.AddrPort]int{}
	for i := range n.gone {
		here[n.gone[i].local.Port()]++
		there[n.gone[i].peer]++
	}
	groups := map[leak.Ownerless]uint64{} // by State and Local
	for i := range n.gone {
		s := &n.gone[i]
		port := s.local.Port()
		local := ":" + strconv.Itoa(int(port))
		if n.outgoing(port) && here[port] <= there[s.peer] {
			local = "to " + s.peer.String()
		}
		groups[leak.Ownerless{State: s.state, Local: local}]++
	}
	list := make([]leak.Ownerless, 0, len(groups))
	for g, count := range groups {
		g.N = count
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b leak.Ownerless) int {
		return cmp.Or(cmp.Compare(a.State, b.State), cmp.Compare(b.N, a.N), cmp.Compare(a.Local, b.Local))
	})
	for len(list) > 0 {
		end := slices.IndexFunc(list, func(o leak.Ownerless) bool { return o.State != list[0].State })
		if end < 0 {
			end = len(list)
		}
		sayGroups(list[:end], say)
		list = list[end:]
	}
}

// sayGroups says those of one state, the largest first.
func sayGroups(list []leak.Ownerless, say func(leak.Ownerless)) {
	other := leak.Ownerless{State: list[0].State, Local: "other"}
	for i, o := range list {
		if len(list) > 1 && (o.N == 1 || i >= groupsShown) {
			other.N += o.N
			continue
		}
		say(o)
	}
	if other.N > 0 {
		say(other)
	}
}
