package descriptors

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// family is a sort of sockets whose table has a layout of its own.
type family struct {
	name    string
	request func() []byte
	parse   func(body []byte) (*leak.Socket, error)
	// parseLine reads the fields of a line of /proc/PID/net/ and the name.
	parseLine func(fields []string) (*leak.Socket, error)
}

var families = map[uint8]family{
	unix.AF_UNIX:    {"unix", unixRequest, parseUnix, parseUnixLine},
	unix.AF_NETLINK: {"netlink", netlinkRequest, parseNetlink, parseNetlinkLine},
	unix.AF_PACKET:  {"packet", packetRequest, parsePacket, parsePacketLine},
}

// Request and answer of unix_diag, include/uapi/linux/unix_diag.h.
const (
	unixShow    = 0x1 | 0x4 | 0x10 | 0x40 // UDIAG_SHOW_NAME, _PEER, _RQLEN, _UID
	unixMsgSize = 16
	unixName    = 0 // UNIX_DIAG_NAME
	unixPeer    = 2 // UNIX_DIAG_PEER
	unixQueues  = 4 // UNIX_DIAG_RQLEN
	unixUID     = 7 // UNIX_DIAG_UID
)

func unixRequest() []byte {
	b := make([]byte, 24)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], allStates)
	binary.NativeEndian.PutUint32(b[12:], unixShow)
	return b
}

// parseUnix reads an answer of unix_diag; Peer is left to whoever knows the
// other end.
func parseUnix(b []byte) (*leak.Socket, error) {
	if len(b) < unixMsgSize {
		return nil, fmt.Errorf("unix_diag answers with %d bytes", len(b))
	}
	host := binary.NativeEndian
	s := &leak.Socket{Inode: uint64(host.Uint32(b[4:])), LastReceived: -1, LastSent: -1}
	s.Protocol, s.State = unixKind(uint64(b[1]), protoTCP.state(b[2]))
	err := attributes(b[unixMsgSize:], func(kind uint16, v []byte) {
		switch {
		case kind == unixName:
			s.Local = unixAddress(v)
		case kind == unixPeer && len(v) >= 4:
			s.PeerID = uint64(host.Uint32(v))
		case kind == unixQueues && len(v) >= 8:
			s.ReceiveQueue, s.SendQueue = uint64(host.Uint32(v)), uint64(host.Uint32(v[4:]))
		case kind == unixUID && len(v) >= 4:
			s.Owner = host.Uint32(v)
		}
	})
	return s, err
}

// unixKind names the type of a unix socket. Datagrams have no states.
func unixKind(kind uint64, state string) (protocol, s string) {
	switch kind {
	case unix.SOCK_STREAM:
		return "unix stream", state
	case unix.SOCK_SEQPACKET:
		return "unix seqpacket", state
	case unix.SOCK_DGRAM:
		return "unix dgram", ""
	}
	return fmt.Sprintf("unix type %d", kind), state
}

// unixAddress is the path of a bound socket, or "@name" of an abstract one,
// with "@" for each zero byte as /proc/net/unix has it.
func unixAddress(raw []byte) string {
	if len(raw) > 0 && raw[0] != 0 {
		path, _, _ := strings.Cut(string(raw), "\x00")
		return path
	}
	return strings.ReplaceAll(string(raw), "\x00", "@")
}

// Request and answer of netlink_diag, include/uapi/linux/netlink_diag.h.
const (
	netlinkMsgSize = 28
	netlinkAll     = 0xff // NDIAG_PROTO_ALL
)

func netlinkRequest() []byte {
	b := make([]byte, 20)
	b[0], b[1] = unix.AF_NETLINK, netlinkAll
	return b
}

func parseNetlink(b []byte) (*leak.Socket, error) {
	if len(b) < netlinkMsgSize {
		return nil, fmt.Errorf("netlink_diag answers with %d bytes", len(b))
	}
	host := binary.NativeEndian
	return netlinkSocket(uint64(b[2]), uint64(host.Uint32(b[4:])), uint64(host.Uint32(b[16:]))), nil
}

func netlinkSocket(protocol, port, inode uint64) *leak.Socket {
	name := fmt.Sprint(protocol)
	if protocol < uint64(len(netlinkNames)) && netlinkNames[protocol] != "" {
		name = netlinkNames[protocol]
	}
	s := &leak.Socket{Protocol: "netlink", Local: name, Inode: inode, LastReceived: -1, LastSent: -1}
	if port != 0 {
		s.Local = fmt.Sprintf("%s:%d", name, port)
	}
	return s
}

// netlinkNames are the NETLINK_ protocols of include/uapi/linux/netlink.h.
var netlinkNames = [...]string{
	0: "route", 2: "usersock", 3: "firewall", 4: "sock_diag", 5: "nflog", 6: "xfrm", 7: "selinux", 8: "iscsi", 9: "audit", 10: "fib_lookup",
	11: "connector", 12: "netfilter", 14: "dnrtmsg", 15: "kobject_uevent", 16: "generic", 18: "scsitransport", 19: "ecryptfs",
	20: "rdma", 21: "crypto", 22: "smc",
}

// Request and answer of packet_diag, include/uapi/linux/packet_diag.h.
const (
	packetMsgSize  = 16
	packetShowInfo = 1 // PACKET_SHOW_INFO
	packetInfo     = 0 // PACKET_DIAG_INFO: the interface first
	packetUID      = 5 // PACKET_DIAG_UID
	packetMemory   = 6 // PACKET_DIAG_MEMINFO: SK_MEMINFO_RMEM_ALLOC first
	packetShowMem  = 0x10
)

func packetRequest() []byte {
	b := make([]byte, 20)
	b[0] = unix.AF_PACKET
	binary.NativeEndian.PutUint32(b[8:], packetShowInfo|packetShowMem)
	return b
}

func parsePacket(b []byte) (*leak.Socket, error) {
	if len(b) < packetMsgSize {
		return nil, fmt.Errorf("packet_diag answers with %d bytes", len(b))
	}
	host := binary.NativeEndian
	var device, owner uint32
	var queued uint64
	err := attributes(b[packetMsgSize:], func(kind uint16, v []byte) {
		switch {
		case kind == packetInfo && len(v) >= 4:
			device = host.Uint32(v)
		case kind == packetUID && len(v) >= 4:
			owner = host.Uint32(v)
		case kind == packetMemory && len(v) >= 4:
			queued = uint64(host.Uint32(v))
		}
	})
	s := packetSocket(uint64(host.Uint16(b[2:])), uint64(device), uint64(host.Uint32(b[4:])))
	s.ReceiveQueue, s.Owner = queued, owner
	return s, err
}

// packetSocket names the Ethernet protocol that a socket takes, 3 for all, and
// the interface, 0 for all.
func packetSocket(protocol, device, inode uint64) *leak.Socket {
	const ethAll = 3 // ETH_P_ALL
	local := fmt.Sprintf("%#04x", protocol)
	if protocol == ethAll {
		local = "all"
	}
	if device != 0 {
		local += fmt.Sprintf(" on interface %d", device)
	}
	return &leak.Socket{Protocol: "packet", Local: local, Inode: inode, LastReceived: -1, LastSent: -1}
}
