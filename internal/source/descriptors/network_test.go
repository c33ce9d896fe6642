package descriptors

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// fact is a socket as the program that made it knows it.
type fact struct {
	Num                     int
	Protocol, State         string
	Local, Peer             string
	ReceiveQueue, SendQueue uint64
}

// stage is what the network role made.
type stage struct {
	Sockets  map[string]fact
	Serving  string // port of a listener that closed 30 connections itself
	Visited  string // address that 20 connections were made to from here, and closed here
	Orphaned string // port of a listener that closed a connection before its bytes were taken
	Full     string // address of a listener with a full queue
}

const (
	portsLow, portsHigh = 40000, 40999
	portsReserved       = "40010-40019"
	portsFree           = 990
	served, visited     = 30, 20
)

// network makes sockets in each state, in a network namespace of its own.
func network([]string) {
	loopbackUp()
	check(os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", portsLow, portsHigh), 0))
	check(os.WriteFile("/proc/sys/net/ipv4/ip_local_reserved_ports", []byte(portsReserved), 0))
	s := stage{Sockets: map[string]fact{}}
	keep := &holder{sockets: s.Sockets}
	keep.connections()
	keep.listeners(&s)
	keep.closed()
	keep.unix()
	keep.datagrams()
	s.Serving, s.Visited, s.Orphaned = keep.ownerless()
	ready(s)
}

// plain makes a connection and little else, where it is.
func plain([]string) {
	keep := &holder{sockets: map[string]fact{}}
	client, server := keep.pair(keep.listen("127.0.0.1:0"))
	keep.tcp("client", client, "ESTABLISHED")
	keep.tcp("server", server, "ESTABLISHED")
	ready(keep.sockets)
}

// loopbackUp starts the loopback device of a new network namespace.
func loopbackUp() {
	fd := must(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	request := must(unix.NewIfreq("lo"))
	check(unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request))
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	check(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request))
	check(unix.Close(fd))
}

// holder keeps what was made, and writes it down.
type holder struct{ sockets map[string]fact }

// kept are connections that nobody closes.
var kept []any

func (h *holder) note(name string, num int, f fact) {
	f.Num = num
	h.sockets[name] = f
}

// number is the descriptor of a connection or listener.
func number(c syscall.Conn) (num int) {
	raw := must(c.SyscallConn())
	check(raw.Control(func(fd uintptr) { num = int(fd) }))
	return num
}

// listen opens a listener without MPTCP, which is a protocol of its own.
func (h *holder) listen(address string) *net.TCPListener {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l := must(config.Listen(context.Background(), "tcp", address)).(*net.TCPListener)
	kept = append(kept, l)
	return l
}

// pair makes a connection: the end that called and the end that accepted.
func (h *holder) pair(l *net.TCPListener) (client, server *net.TCPConn) {
	client = must(net.Dial("tcp", l.Addr().String())).(*net.TCPConn)
	server = must(l.AcceptTCP())
	kept = append(kept, client, server)
	return client, server
}

func (h *holder) tcp(name string, c *net.TCPConn, state string) fact {
	f := fact{Num: number(c), Protocol: "tcp", State: state, Local: c.LocalAddr().String(), Peer: c.RemoteAddr().String()}
	h.note(name, f.Num, f)
	return f
}

// connections makes connected TCP sockets.
func (h *holder) connections() {
	l := h.listen("127.0.0.1:0")
	idle, other := h.pair(l)
	h.tcp("idle", idle, "ESTABLISHED")
	h.tcp("idle server", other, "ESTABLISHED")

	client, server := h.pair(l)
	must(client.Write(make([]byte, 1234)))
	f := h.tcp("unread", server, "ESTABLISHED")
	f.ReceiveQueue = 1234
	h.note("unread", f.Num, f)

	client, server = h.pair(l)
	check(client.Close())
	f = h.tcp("close wait", server, "CLOSE_WAIT")
	f.ReceiveQueue = 1 // the end of the stream counts as one
	h.note("close wait", f.Num, f)

	client, server = h.pair(l)
	check(client.CloseWrite())
	h.tcp("fin wait 2", client, "FIN_WAIT2")
	f = h.tcp("half closed", server, "CLOSE_WAIT")
	f.ReceiveQueue = 1
	h.note("half closed", f.Num, f)

	client, _ = h.pair(l)
	check(client.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)))
	_, _ = client.Write(make([]byte, 32<<20)) // as much as the buffers of both ends take
	check(client.CloseWrite())
	h.tcp("fin wait 1", client, "FIN_WAIT1")

	client, server = h.pair(l)
	check(client.SetLinger(0))
	check(client.Close())
	h.note("reset", number(server), fact{Protocol: "tcp", State: "CLOSE"})

	six := h.listen("[::1]:0")
	client, _ = h.pair(six)
	h.tcp("six", client, "ESTABLISHED")

	dual := h.listen(":0")
	client = must(net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", dual.Addr().(*net.TCPAddr).Port))).(*net.TCPConn)
	server = must(dual.AcceptTCP())
	kept = append(kept, client, server)
	h.tcp("four in six", server, "ESTABLISHED")
}

// listeners makes listening sockets, one of them with a full queue.
func (h *holder) listeners(s *stage) {
	l := h.listen("[::]:0")
	h.note("listener", number(l), fact{Protocol: "tcp", State: "LISTEN", Local: l.Addr().String(), SendQueue: longest()})

	full := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	check(unix.Bind(full, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(unix.Listen(full, 2))
	port := must(unix.Getsockname(full)).(*unix.SockaddrInet4).Port
	s.Full = fmt.Sprintf("127.0.0.1:%d", port)
	for range 3 { // a queue holds one more than its backlog
		kept = append(kept, must(net.Dial("tcp", s.Full)))
	}
	h.note("full", full, fact{Protocol: "tcp", State: "LISTEN", Local: s.Full, ReceiveQueue: 3, SendQueue: 2})
	// The next one is not answered.
	late := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0))
	if err := unix.Connect(late, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != unix.EINPROGRESS {
		panic(err)
	}
	local := must(unix.Getsockname(late)).(*unix.SockaddrInet4).Port
	h.note("late", late, fact{Protocol: "tcp", State: "SYN_SENT", Local: fmt.Sprintf("127.0.0.1:%d", local), Peer: s.Full, SendQueue: 1})
}

// longest is the backlog that package net asks for.
func longest() uint64 {
	n, _ := proc.Default.Sysctl("net/core/somaxconn")
	return n
}

// closed makes TCP sockets that are not connected.
func (h *holder) closed() {
	fresh := must(unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	h.note("fresh", fresh, fact{Protocol: "tcp", State: "CLOSE"})
	multi := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP))
	h.note("multipath", multi, fact{Protocol: "mptcp", State: "CLOSE"})
}

// unix makes unix sockets: a pair, a server with a path, an abstract one.
func (h *holder) unix() {
	pair := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
	must(unix.Write(pair[0], []byte("hello")))
	h.note("pair", pair[0], fact{Protocol: "unix seqpacket", State: "ESTABLISHED"})
	for name, address := range map[string]string{"path": filepath.Join(must(os.MkdirTemp("", "stanch")), "a socket"), "abstract": fmt.Sprintf("@stanch-%d", os.Getpid())} {
		l := must(net.Listen("unix", address)).(*net.UnixListener)
		client := must(net.Dial("unix", address)).(*net.UnixConn)
		kept = append(kept, l, client)
		listener, caller := fact{Protocol: "unix stream", State: "LISTEN", Local: address, SendQueue: longest()}, fact{Protocol: "unix stream", State: "ESTABLISHED"}
		if name == "path" {
			server := must(l.AcceptUnix())
			kept = append(kept, server)
			h.note("path server", number(server), fact{Protocol: "unix stream", State: "ESTABLISHED", Local: address})
			caller.Peer = address
			check(os.RemoveAll(filepath.Dir(address)))
		} else {
			listener.ReceiveQueue = 1 // an end that was not accepted yet has no inode to be known by
		}
		h.note(name+" listener", number(l), listener)
		h.note(name+" client", number(client), caller)
	}
}

// datagrams makes sockets of protocols without states.
func (h *holder) datagrams() {
	server := must(net.ListenPacket("udp", "127.0.0.1:0")).(*net.UDPConn)
	client := must(net.Dial("udp", server.LocalAddr().String())).(*net.UDPConn)
	kept = append(kept, server, client)
	h.note("udp", number(server), fact{Protocol: "udp", Local: server.LocalAddr().String()})
	h.note("udp client", number(client), fact{Protocol: "udp", Local: client.LocalAddr().String(), Peer: server.LocalAddr().String()})
	raw := must(unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP))
	h.note("raw", raw, fact{Protocol: "raw", Local: "0.0.0.0:1"})
	route := must(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE))
	check(unix.Bind(route, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: uint32(os.Getpid())}))
	h.note("netlink", route, fact{Protocol: "netlink", Local: fmt.Sprintf("route:%d", os.Getpid())})
	packet := must(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300)) // ETH_P_ALL in network order
	h.note("packet", packet, fact{Protocol: "packet", Local: "all"})
}

// ownerless leaves sockets behind that no descriptor leads to.
func (h *holder) ownerless() (serving, visiting, orphaned string) {
	l := h.listen("127.0.0.1:0")
	for range served {
		client, server := h.pair(l)
		check(server.CloseWrite())
		_, _ = client.Read(make([]byte, 1)) // the end
		check(server.Close())
		check(client.Close())
	}
	away := h.listen("127.0.0.2:0")
	for range visited {
		client, server := h.pair(away)
		check(client.Close())
		_, _ = server.Read(make([]byte, 1)) // the end
		check(server.Close())
	}
	stuck := h.listen("127.0.0.3:0")
	_, server := h.pair(stuck)
	check(server.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)))
	_, _ = server.Write(make([]byte, 32<<20))
	check(server.Close())
	port := func(l *net.TCPListener) string { return fmt.Sprintf(":%d", l.Addr().(*net.TCPAddr).Port) }
	return port(l), away.Addr().String(), port(stuck)
}
