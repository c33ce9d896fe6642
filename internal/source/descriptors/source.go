package descriptors

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Source says in one phrase what a descriptor is: "TCP 10.1.2.3:8080" for the
// peer of a connection, "/var/log/x", "unix /run/x.sock", "pipe"; "" when it
// is closed. Of a socket one table of the kernel is read.
func Source(t *proc.Target, num int) string {
	link := make([]byte, 4096)
	n, err := unix.Readlink(t.Path("fd", strconv.Itoa(num)), link)
	if err != nil {
		return ""
	}
	name := string(link[:n])
	inode, isSocket := strings.CutPrefix(name, "socket:[")
	if !isSocket {
		return phrase(name)
	}
	d := leak.Descriptor{Num: num, Kind: "socket", Name: name}
	d.Inode, _ = strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 64)
	protocol, ok := socketProtocol(t, num)
	if !ok {
		return ""
	}
	return socketPhrase(findSocket(t, &d, protocol))
}

// phrase makes "pipe" of "pipe:[7]" and "eventpoll" of "anon_inode:[eventpoll]".
func phrase(link string) string {
	if strings.HasPrefix(link, "/") {
		if name, ok := strings.CutPrefix(link, "/memfd:"); ok {
			return "memfd " + strings.TrimSuffix(name, " (deleted)")
		}
		return link
	}
	kind, rest, _ := strings.Cut(link, ":")
	if kind == "anon_inode" {
		return strings.Trim(rest, "[]")
	}
	return kind
}

// findSocket looks for one socket in the table of its protocol.
func findSocket(t *proc.Target, d *leak.Descriptor, protocol string) *leak.Socket {
	j := join{
		watcher: (&Lister{Clock: proc.NewClock()}).watcher(t, leak.Ignore{}), open: []leak.Descriptor{*d},
		sockets: map[uint64]*leak.Socket{d.Inode: nil}, names: map[uint64]string{}, blind: map[string]bool{},
	}
	ns, err := openNamespace(t)
	if err != nil {
		return j.unlisted(d.Inode, protocol)
	}
	defer ns.close()
	from, _ := ns.tables()
	defer from.close()
	name := tableName(protocol)
	if name == protoMPTCP.name {
		j.read(from, protoTCP.name) // it tells more, of the path that the connection takes
	}
	if j.sockets[d.Inode] == nil {
		j.read(from, name)
	}
	if s := j.sockets[d.Inode]; s != nil {
		return s
	}
	return j.unlisted(d.Inode, protocol)
}

func socketPhrase(s *leak.Socket) string {
	name, _, _ := strings.Cut(s.Protocol, " ") // "unix" of "unix stream"
	if inetByName[name] != nil {
		name = strings.ToUpper(name)
	}
	switch {
	case s.Peer != "":
		return name + " " + s.Peer
	case s.State == "LISTEN":
		return fmt.Sprintf("%s listening on %s", name, s.Local)
	case s.Local != "":
		return name + " " + s.Local
	case s.PeerID != 0:
		return name + " socket pair"
	}
	return name
}
