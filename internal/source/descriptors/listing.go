package descriptors

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// list says the descriptors, and what only the socket tables tell: ownerless
// sockets, local ports, listen queues.
func (w *watcher) list(ctx context.Context) error {
	at := w.Clock.Now()
	found, err := w.target.OpenDescriptors(ctx)
	if err != nil {
		return err
	}
	if found.Unasked > 0 {
		w.gap("close-on-exec of epoll descriptors was not read, since that would hold up a program that has so many descriptors; it is taken to be set")
	}
	j := join{watcher: w, open: found.Open, sockets: map[uint64]*leak.Socket{}, names: map[uint64]string{}, blind: map[string]bool{}}
	for i := range j.open {
		if j.open[i].Kind == "socket" {
			j.sockets[j.open[i].Inode] = nil
		}
	}
	w.networked, w.listens = len(j.sockets) > 0, false
	var tcp *tcpTable
	if w.networked {
		if tcp, err = j.all(ctx); err != nil {
			return err
		}
	}
	w.sink.Listing(leak.Listing{At: at, Proc: w.target.ID, Open: j.open})
	if tcp != nil {
		tcp.ownerless(func(o leak.Ownerless) {
			o.At, o.Proc = at, w.target.ID
			w.sink.Ownerless(o)
		})
		tcp.ports(w.usage)
		w.backlogs(j.sockets, tcp.sysctls.backlog)
	}
	return nil
}

// join finds the sockets among the descriptors in the kernel's tables.
type join struct {
	*watcher
	open    []leak.Descriptor
	sockets map[uint64]*leak.Socket // by inode; nil until it is found
	names   map[uint64]string       // of unix sockets
	blind   map[string]bool         // protocols whose table could not be read
}

// all joins all sockets. Only tables that the process has sockets of are asked
// for, and that of TCP, which tells of the namespace.
func (j *join) all(ctx context.Context) (*tcpTable, error) {
	ns, err := openNamespace(j.target)
	if err != nil {
		return nil, err
	}
	defer ns.close()
	from, why := ns.tables()
	defer from.close()
	if why != nil {
		j.gap("the sockets were read from /proc/%d/net, since the kernel did not tell of this network namespace (%v%s): "+
			"not known are the times of the last data, backlogs of listening sockets, the other ends of unix sockets, and the limits of the namespace",
			j.target.ID.PID, why, ns.needs())
	}
	tcp := &tcpTable{listening: map[uint16]bool{}, out: map[wayPort]struct{}{}}
	j.table(protoTCP.name, from.inet(protoTCP, func(s *inetSocket) {
		tcp.add(s)
		j.inet(s)
	}))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	j.rest(from)
	j.assign()
	if why == nil {
		if tcp.sysctls, err = ns.sysctls(); err != nil {
			j.gap("limits of the network namespace: %v", err)
		}
	}
	return tcp, nil
}

// table notes a table that could not be read.
func (j *join) table(name string, err error) {
	if err != nil {
		j.blind[name] = true
		j.gap("%v", err)
	}
}

// inet takes in a socket of TCP and its like.
func (j *join) inet(s *inetSocket) {
	if found, wanted := j.sockets[s.inode]; wanted && found == nil {
		j.sockets[s.inode] = s.socket()
	}
}

// readings is how often a table is read in search of a socket that it should
// have. The kernel counts its way through a hash chain between two answers, so
// that a socket is passed over when another one of its chain goes meanwhile.
const readings = 2

// rest joins what was not in the table of TCP: the kernel names the protocol of
// a socket, and the table of that is read.
func (j *join) rest(from tables) {
	read := map[string]int{protoTCP.name: 1}
	for i := range j.open {
		d := &j.open[i]
		if d.Kind != "socket" || j.sockets[d.Inode] != nil {
			continue
		}
		protocol, ok := socketProtocol(j.target, d.Num)
		if !ok {
			d.Kind = "" // closed meanwhile
			continue
		}
		for name := tableName(protocol); j.sockets[d.Inode] == nil && read[name] < readings; read[name]++ {
			j.read(from, name)
		}
		if j.sockets[d.Inode] == nil {
			j.sockets[d.Inode] = j.unlisted(d.Inode, protocol)
		}
	}
	j.open = slices.DeleteFunc(j.open, func(d leak.Descriptor) bool { return d.Kind == "" })
}

// read joins one table.
func (j *join) read(from tables, name string) {
	switch name {
	case "unix":
		j.unix(from)
	case "netlink":
		j.table(name, from.others(unix.AF_NETLINK, j.other))
	case "packet":
		j.table(name, from.others(unix.AF_PACKET, j.other))
	default:
		if p := inetByName[name]; p != nil {
			j.table(name, from.inet(p, j.inet))
		}
	}
}

// unlisted is a socket that no table has. An Internet socket that is neither
// bound nor connected is in none: it is new, or its connection was reset. A
// socket of another network namespace looks the same from outside.
func (j *join) unlisted(inode uint64, protocol string) *leak.Socket {
	s := &leak.Socket{Protocol: tableName(protocol), Inode: inode, LastReceived: -1, LastSent: -1}
	if p := inetByName[s.Protocol]; p != nil && p.states && !j.blind[s.Protocol] {
		s.State = "CLOSE"
	}
	if protocol == "UNIX-STREAM" {
		s.Protocol = "unix stream"
	}
	return s
}

// unix joins the unix sockets and names their other ends.
func (j *join) unix(from tables) {
	j.table("unix", from.others(unix.AF_UNIX, func(s *leak.Socket) {
		if s.Local != "" {
			j.names[s.Inode] = s.Local
		}
		j.other(s)
	}))
	for _, s := range j.sockets {
		if s != nil && s.PeerID != 0 {
			s.Peer = j.names[s.PeerID]
		}
	}
}

func (j *join) other(s *leak.Socket) {
	if found, wanted := j.sockets[s.Inode]; wanted && found == nil {
		j.sockets[s.Inode] = s
	}
}

func (j *join) assign() {
	for i := range j.open {
		if j.open[i].Kind == "socket" {
			j.open[i].Socket = j.sockets[j.open[i].Inode]
		}
	}
}

// socketProtocol is the kernel's name of the protocol of a socket, "TCPv6",
// "UNIX-STREAM", "unknown" where it does not tell (before Linux 3.7, or a
// security module forbids it); it is not ok when the descriptor is closed.
func socketProtocol(t *proc.Target, num int) (name string, ok bool) {
	var buf [64]byte
	n, err := unix.Getxattr(t.Path("fd", strconv.Itoa(num)), "system.sockprotoname", buf[:])
	if errors.Is(err, unix.ENOENT) {
		return "", false
	}
	if err != nil || n <= 1 {
		return "unknown", true
	}
	return string(buf[:n-1]), true // without the final zero
}

// tableName is the table that lists the sockets of a protocol, or the
// protocol in small letters.
func tableName(protocol string) string {
	if p := owned[protocol]; p != nil {
		return p.name
	}
	if protocol == "UNIX-STREAM" {
		return "unix"
	}
	return strings.ToLower(strings.TrimPrefix(protocol, "AF_"))
}
