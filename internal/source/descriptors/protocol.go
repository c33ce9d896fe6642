package descriptors

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// protocol is a sort of Internet sockets.
type protocol struct {
	name   string
	number uint32   // IPPROTO_*
	files  []string // below /proc/PID/net; none for those it does not list
	states bool     // it has states
}

var (
	protoTCP   = &protocol{"tcp", unix.IPPROTO_TCP, []string{"tcp", "tcp6"}, true}
	protoUDP   = &protocol{"udp", unix.IPPROTO_UDP, []string{"udp", "udp6"}, false}
	protoLite  = &protocol{"udplite", unix.IPPROTO_UDPLITE, []string{"udplite", "udplite6"}, false}
	protoRaw   = &protocol{"raw", unix.IPPROTO_RAW, []string{"raw", "raw6"}, false}
	protoMPTCP = &protocol{"mptcp", unix.IPPROTO_MPTCP, nil, true}
	protoSCTP  = &protocol{"sctp", unix.IPPROTO_SCTP, nil, true}
)

// owned maps what the kernel calls the protocol of a socket (the name of its
// struct proto, which the attribute system.sockprotoname of a socket's link
// gives) to the table that lists it.
var owned = map[string]*protocol{
	"TCP": protoTCP, "TCPv6": protoTCP, "UDP": protoUDP, "UDPv6": protoUDP, "UDP-Lite": protoLite, "UDPLITEv6": protoLite,
	"RAW": protoRaw, "RAWv6": protoRaw, "MPTCP": protoMPTCP, "MPTCPv6": protoMPTCP, "SCTP": protoSCTP, "SCTPv6": protoSCTP,
}

// inetByName finds a protocol by the name of its table.
var inetByName = map[string]*protocol{
	"tcp": protoTCP, "udp": protoUDP, "udplite": protoLite, "raw": protoRaw, "mptcp": protoMPTCP, "sctp": protoSCTP,
}

// tcpStates are the names of include/net/tcp_states.h without TCP_. A socket
// that is bound and neither listens nor is connected is closed to the kernel,
// and asked for as 13; a request that waits for its third packet is 12.
var tcpStates = [...]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE",
	8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "SYN_RECV", 13: "CLOSE",
}

// sctpStates are enum sctp_state of include/linux/sctp.h, and the LISTEN of an
// endpoint (SCTP_SS_LISTENING, include/net/sctp/constants.h).
var sctpStates = [...]string{
	0: "CLOSED", 1: "COOKIE_WAIT", 2: "COOKIE_ECHOED", 3: "ESTABLISHED", 4: "SHUTDOWN_PENDING", 5: "SHUTDOWN_SENT",
	6: "SHUTDOWN_RECEIVED", 7: "SHUTDOWN_ACK_SENT", 10: "LISTEN",
}

func (p *protocol) state(n byte) string {
	names := tcpStates[:]
	if p == protoSCTP {
		names = sctpStates[:]
	}
	if int(n) < len(names) && names[n] != "" {
		return names[n]
	}
	return strconv.Itoa(int(n))
}
