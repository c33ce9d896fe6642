package sampler

import (
	"bytes"
	"time"

	"stanch/internal/series"
)

// parts are the values of one metric by its own label. What was said once is
// said for ever, also when it is zero.
type parts []part

type part struct {
	name  string
	count int
	said  bool
}

// mostParts bounds how many kinds a place may have: what comes then is
// "other".
const mostParts = 32

func (ps parts) reset() {
	for i := range ps {
		ps[i].count = 0
	}
}

func (ps *parts) add(name []byte) {
	for i := range *ps {
		if (*ps)[i].name == string(name) {
			(*ps)[i].count++
			return
		}
	}
	switch text := printable(string(name)); {
	case text == "":
		ps.add([]byte("other"))
	case text != string(name):
		ps.add([]byte(text))
	case len(*ps) < mostParts-1 || text == "other":
		*ps = append(*ps, part{name: text, count: 1})
	default:
		ps.add([]byte("other"))
	}
}

// set sets a part that has a count of its own.
func (ps *parts) set(name string, count int) {
	for i := range *ps {
		if (*ps)[i].name == name {
			(*ps)[i].count = count
			return
		}
	}
	*ps = append(*ps, part{name: name, count: count})
}

func (h *Host) sayParts(p *process, m series.Metric, ps parts) {
	for i := range ps {
		if ps[i].count > 0 || ps[i].said {
			ps[i].said = true
			h.sayPart(p, m, ps[i].name, float64(ps[i].count))
		}
	}
}

// descriptors says how many there are of each kind, and in which states the TCP
// sockets of them are. It tells what that cost.
func (h *Host) descriptors(p *process) time.Duration {
	at := p.place()
	at.kinds.reset()
	h.inodes = h.inodes[:0]
	n, err := h.reader.Links(p.ID.PID, func(link []byte) {
		kind, inode := kindOf(link)
		at.kinds.add(kind)
		if inode != 0 {
			h.inodes = append(h.inodes, inode)
		}
	})
	if err != nil {
		return 0
	}
	if n == 0 && (h.memory(p) != nil || p.ending()) {
		return 0 // it has given them back since
	}
	if _, counted := h.count(p); !counted {
		h.say(p, series.FDs, float64(n))
	}
	h.sayParts(p, series.FDKinds, at.kinds)
	cost := time.Duration(n) * costDescriptor
	at.states.reset()
	if len(h.inodes) > 0 {
		table, read := h.table(p.ID.PID)
		cost += read
		if table == nil {
			return cost
		}
		for _, inode := range h.inodes {
			if state, ok := table.states[inode]; ok {
				at.states.add([]byte(tcpStates[state]))
			}
		}
	}
	h.sayParts(p, series.Sockets, at.states)
	return cost
}

// kindOf tells what a descriptor is by the text of its link, as proc.FD does;
// inode is that of a socket, else 0.
func kindOf(link []byte) (kind []byte, inode uint64) {
	if bytes.HasPrefix(link, []byte("/memfd:")) {
		return []byte("memfd"), 0
	}
	if len(link) > 0 && link[0] == '/' {
		return []byte("file"), 0
	}
	kind, rest, ok := bytes.Cut(link, []byte{':'})
	if !ok || len(kind) == 0 || kind[0] == '(' { // "(unreachable)/path"
		return []byte("other"), 0
	}
	switch string(kind) {
	case "anon_inode":
		// "[eventpoll]", "inotify", "kvm-vcpu:3": the number would be a kind each.
		kind, _, _ = bytes.Cut(bytes.Trim(rest, "[]/ "), []byte{':'})
		return kind, 0
	case "socket":
		return kind, uint64(decimal(bytes.TrimPrefix(rest, []byte{'['})))
	}
	return kind, 0
}

// tcpStates are those of include/net/tcp_states.h without TCP_.
var tcpStates = [...]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE",
	8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "SYN_RECV",
}

// socketTable is what a network namespace told of its TCP sockets.
type socketTable struct {
	read   time.Duration // when, CLOCK_BOOTTIME
	cost   time.Duration
	lines  int
	states map[uint64]uint8 // by inode
}

// oneOfFour is how much of the costly part's time the tables of sockets may
// have.
const oneOfFour = 4

// table gives the TCP sockets that a process can have, and what reading them
// cost. A table is used for a while, the longer the more it cost: with few
// sockets for half a minute, with 20,000 for 3 minutes. What was opened since
// is not in it. Nil when it may not be read.
func (h *Host) table(pid int) (*socketTable, time.Duration) {
	link, err := h.reader.Link(pid, "ns/net")
	if err != nil {
		return nil, 0
	}
	_, number, _ := bytes.Cut(link, []byte{'['})
	id := uint64(decimal(number)) // "net:[4026531840]"
	t := h.tables[id]
	if t == nil {
		t = &socketTable{states: map[uint64]uint8{}}
		h.tables[id] = t
	} else if age := h.out.At.Boot - t.read; age == 0 || age < h.worth(t) {
		return t, 0
	}
	t.read, t.lines = h.out.At.Boot, 0
	clear(t.states)
	if err := h.reader.Lines(pid, "net/tcp", t.take); err != nil {
		delete(h.tables, id) // gone meanwhile
		return nil, 0
	}
	_ = h.reader.Lines(pid, "net/tcp6", t.take) // IPv6 may be off
	t.cost = costTable + time.Duration(t.lines)*costSocket
	return t, t.cost
}

// worth is how long a table is used.
func (h *Host) worth(t *socketTable) time.Duration {
	return time.Duration(oneOfFour * float64(t.cost) / h.share())
}

// take reads a line of /proc/PID/net/tcp: number, local and remote address,
// state, queues, timer, retransmits, uid, timeout, inode (get_tcp4_sock of
// net/ipv4/tcp_ipv4.c). The head has no numbers.
func (t *socketTable) take(line []byte) {
	const stateField, inodeField = 3, 9
	t.lines++
	var state, inode uint64
	for field := 0; field <= inodeField; field++ {
		line = bytes.TrimLeft(line, " ")
		end := bytes.IndexByte(line, ' ')
		if end < 0 {
			end = len(line)
		}
		switch field {
		case stateField:
			state = hex(line[:end])
		case inodeField:
			inode = uint64(decimal(line[:end]))
		}
		line = line[end:]
	}
	if inode != 0 && state < uint64(len(tcpStates)) && tcpStates[state] != "" {
		t.states[inode] = uint8(state)
	}
}

// hex reads digits as the kernel writes them, "0A"; other text is large.
func hex(b []byte) (n uint64) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'A' && c <= 'F':
			n = n<<4 | uint64(c-'A'+10)
		default:
			return 1 << 32
		}
	}
	return n
}
