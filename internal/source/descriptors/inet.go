package descriptors

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// inetSocket is one entry of the tables of TCP, UDP and their like.
type inetSocket struct {
	protocol    *protocol
	state       string
	local, peer netip.AddrPort // of raw sockets the port is the IP protocol
	inode       uint64         // 0 when it has no descriptor: not accepted yet, or closed
	uid         uint32
	retransmits uint32

	receiveQueue, sendQueue uint64
	lastReceived, lastSent  time.Duration // negative when not known
}

// listening reports whether it waits for connections.
func (s *inetSocket) listening() bool { return s.state == "LISTEN" }

// socket says it in the words of a report.
func (s *inetSocket) socket() *leak.Socket {
	state := s.state
	if !s.protocol.states {
		state = ""
	}
	return &leak.Socket{
		Protocol: s.protocol.name, State: state, Local: address(s.local), Peer: address(s.peer), Inode: s.inode,
		ReceiveQueue: s.receiveQueue, SendQueue: s.sendQueue, LastReceived: s.lastReceived, LastSent: s.lastSent,
		Retransmits: s.retransmits, Owner: s.uid,
	}
}

// address is "" for an end that is not bound or connected.
func address(a netip.AddrPort) string {
	if a.Port() == 0 && (!a.Addr().IsValid() || a.Addr().IsUnspecified()) {
		return ""
	}
	return a.String()
}

// Offsets in struct inet_diag_msg, include/uapi/linux/inet_diag.h. Ports and
// addresses are in network order, the rest is the host's.
const (
	inetFamily  = 0
	inetState   = 1
	inetTimer   = 2
	inetRetrans = 3
	inetSport   = 4
	inetDport   = 6
	inetSrc     = 8
	inetDst     = 24
	inetIf      = 40
	inetRqueue  = 56
	inetWqueue  = 60
	inetUID     = 64
	inetInode   = 68
	inetSize    = 72
)

// Offsets in struct tcp_info, include/uapi/linux/tcp.h; milliseconds.
const (
	tcpLastDataSent = 44
	tcpLastDataRecv = 52
	tcpInfoSize     = 56 // as far as it is used
)

const (
	inetDiagInfo    = 2 // INET_DIAG_INFO, the attribute with tcp_info
	timerRetransmit = 1 // idiag_timer: the retransmission timer runs
)

// parseInet reads an answer of inet_diag.
func parseInet(p *protocol, b []byte) (inetSocket, error) {
	if len(b) < inetSize {
		return inetSocket{}, fmt.Errorf("inet_diag answers with %d bytes", len(b))
	}
	host := binary.NativeEndian
	zone := host.Uint32(b[inetIf:])
	s := inetSocket{
		protocol: p, state: p.state(b[inetState]), inode: uint64(host.Uint32(b[inetInode:])), uid: host.Uint32(b[inetUID:]),
		receiveQueue: uint64(host.Uint32(b[inetRqueue:])), sendQueue: uint64(host.Uint32(b[inetWqueue:])),
		lastReceived: -1, lastSent: -1,
	}
	if b[inetTimer] == timerRetransmit {
		s.retransmits = uint32(b[inetRetrans])
	}
	var ok1, ok2 bool
	s.local, ok1 = endpoint(b[inetFamily], b[inetSrc:inetSrc+16], binary.BigEndian.Uint16(b[inetSport:]), zone)
	s.peer, ok2 = endpoint(b[inetFamily], b[inetDst:inetDst+16], binary.BigEndian.Uint16(b[inetDport:]), zone)
	if !ok1 || !ok2 {
		return inetSocket{}, fmt.Errorf("inet_diag answers with address family %d", b[inetFamily])
	}
	err := attributes(b[inetSize:], func(kind uint16, value []byte) {
		if kind == inetDiagInfo {
			s.takeTCPInfo(value)
		}
	})
	return s, err
}

// takeTCPInfo reads when data came and went. The kernel sets both times when a
// connection is made (tcp_finish_connect, tcp_create_openreq_child); before
// that they mean nothing.
func (s *inetSocket) takeTCPInfo(info []byte) {
	switch s.state {
	case "ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2", "LAST_ACK", "CLOSING":
	default:
		return
	}
	if s.protocol.number != unix.IPPROTO_TCP || len(info) < tcpInfoSize {
		return
	}
	ms := func(at int) time.Duration {
		return time.Duration(binary.NativeEndian.Uint32(info[at:])) * time.Millisecond
	}
	s.lastSent, s.lastReceived = ms(tcpLastDataSent), ms(tcpLastDataRecv)
}

// endpoint makes an address of its bytes in network order. An IPv4 address
// that an IPv6 socket talks to is given as IPv4: it is the same peer. zone is
// the interface a link-local address belongs to.
func endpoint(family byte, raw []byte, port uint16, zone uint32) (netip.AddrPort, bool) {
	switch family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw)), port), true
	case unix.AF_INET6:
		a := netip.AddrFrom16([16]byte(raw)).Unmap()
		if a.IsLinkLocalUnicast() && a.Is6() && zone != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(zone), 10))
		}
		return netip.AddrPortFrom(a, port), true
	}
	return netip.AddrPort{}, false
}
