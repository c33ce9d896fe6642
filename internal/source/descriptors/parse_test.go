package descriptors

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// inetAnswer is an answer of inet_diag for 10.0.0.1:8080 to 10.0.0.5:5432,
// with tcp_info.
func inetAnswer(state byte) []byte {
	b := make([]byte, inetSize)
	b[inetFamily], b[inetState], b[inetTimer], b[inetRetrans] = unix.AF_INET, state, timerRetransmit, 3
	binary.BigEndian.PutUint16(b[inetSport:], 8080)
	binary.BigEndian.PutUint16(b[inetDport:], 5432)
	copy(b[inetSrc:], []byte{10, 0, 0, 1})
	copy(b[inetDst:], []byte{10, 0, 0, 5})
	for at, value := range map[int]uint32{inetRqueue: 1, inetWqueue: 77, inetUID: 1000, inetInode: 4711} {
		binary.NativeEndian.PutUint32(b[at:], value)
	}
	info := make([]byte, tcpInfoSize)
	binary.NativeEndian.PutUint32(info[tcpLastDataSent:], 10_800_000)
	binary.NativeEndian.PutUint32(info[tcpLastDataRecv:], 5)
	return append(append(b, attribute(9, []byte{1, 2, 3})...), attribute(inetDiagInfo, info)...)
}

// attribute is a netlink attribute with its padding.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func TestParseInet(t *testing.T) {
	s, err := parseInet(protoTCP, inetAnswer(8))
	if err != nil {
		t.Fatal(err)
	}
	want := leak.Socket{
		Protocol: "tcp", State: "CLOSE_WAIT", Local: "10.0.0.1:8080", Peer: "10.0.0.5:5432", Inode: 4711, ReceiveQueue: 1, SendQueue: 77,
		LastReceived: 5 * time.Millisecond, LastSent: 3 * time.Hour, Retransmits: 3, Owner: 1000,
	}
	if *s.socket() != want {
		t.Errorf("%+v\nwant %+v", *s.socket(), want)
	}
	if s, err = parseInet(protoTCP, inetAnswer(2)); err != nil || s.lastSent >= 0 || s.state != "SYN_SENT" {
		t.Errorf("before it is connected: %+v, %v", s, err)
	}
	whole := inetAnswer(1)
	for n := range len(whole) {
		if _, err := parseInet(protoTCP, whole[:n]); err == nil && n != inetSize && n != inetSize+7 && n != inetSize+8 { // where an attribute ends, padded or not
			t.Errorf("%d of %d bytes are taken", n, len(whole))
		}
	}
	whole[inetFamily] = 77
	if _, err := parseInet(protoTCP, whole); err == nil {
		t.Error("address family 77 is taken")
	}
}

func TestEndpoint(t *testing.T) {
	for want, raw := range map[string][]byte{
		"1.2.3.4:9":       {1, 2, 3, 4},
		"[2001:db8::1]:9": netip.MustParseAddr("2001:db8::1").AsSlice(),
		"1.2.3.4:9 ":      netip.MustParseAddr("::ffff:1.2.3.4").AsSlice(),
		"[fe80::1%2]:9":   netip.MustParseAddr("fe80::1").AsSlice(),
	} {
		family := byte(unix.AF_INET6)
		if len(raw) == 4 {
			family = unix.AF_INET
		}
		if got, ok := endpoint(family, raw, 9, 2); !ok || got.String() != strings.TrimSpace(want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if address(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)) != "" || address(netip.AddrPort{}) != "" {
		t.Error("an unbound end has an address")
	}
}

func TestStates(t *testing.T) {
	for n, want := range map[byte]string{1: "ESTABLISHED", 7: "CLOSE", 12: "SYN_RECV", 13: "CLOSE", 0: "0", 99: "99"} {
		if got := protoTCP.state(n); got != want {
			t.Errorf("TCP %d is %s, want %s", n, got, want)
		}
	}
	for n, want := range map[byte]string{1: "COOKIE_WAIT", 3: "ESTABLISHED", 10: "LISTEN", 9: "9"} {
		if got := protoSCTP.state(n); got != want {
			t.Errorf("SCTP %d is %s, want %s", n, got, want)
		}
	}
}

func TestParseText(t *testing.T) {
	fields := strings.Fields
	tcp, err := parseInetLine(protoTCP, fields("3: 0100007F:1F90 0500000A:1538 08 0000004D:00000001 01:00000014 00000003 1000 0 4711 1 0000000003f01f23c 20 4 30 10 -1"))
	if err != nil {
		t.Fatal(err)
	}
	want := leak.Socket{
		Protocol: "tcp", State: "CLOSE_WAIT", Local: "127.0.0.1:8080", Peer: "10.0.0.5:5432", Inode: 4711, ReceiveQueue: 1, SendQueue: 77,
		LastReceived: -1, LastSent: -1, Retransmits: 3, Owner: 1000,
	}
	if *tcp.socket() != want {
		t.Errorf("%+v\nwant %+v", *tcp.socket(), want)
	}
	six, err := parseEndpoint("000080FE00000000FFFFFFFF01000000:0035")
	if err != nil || six.String() != "[fe80::ffff:ffff:0:1]:53" {
		t.Errorf("%s, %v", six, err)
	}
	path, err := parseUnixLine(fields("0000000000000000: 00000002 00000000 00010000 0001 01 1234 /run/a b"))
	if err != nil || path.Local != "/run/a b" || path.State != "LISTEN" || path.Protocol != "unix stream" || path.Inode != 1234 {
		t.Errorf("%+v, %v", path, err)
	}
	for _, bad := range []string{
		"", "1 2 3", "3: 0100007F:1F90 0500000A:1538 08 0000004D 01:0 3 1000 0 4711", "3: 0100007F 0500000A:1538 08 0:0 01:0 3 1000 0 4711",
		"3: 01007F:1 0500000A:1538 08 0:0 01:0 3 1000 0 4711", "3: 0100007F:1F90 0500000A:15388 08 0:0 01:0 3 1000 0 4711", "3: 0100007F:1F90 0500000A:1538 x 0:0 01:0 3 1000 0 4711",
	} {
		if s, err := parseInetLine(protoTCP, fields(bad)); err == nil {
			t.Errorf("%q is taken as %+v", bad, s)
		}
	}
	for _, parse := range []func([]string) (*leak.Socket, error){parseUnixLine, parseNetlinkLine, parsePacketLine} {
		if s, err := parse(fields("1 2 3 x")); err == nil {
			t.Errorf("taken as %+v", s)
		}
	}
}

func TestUnixAddress(t *testing.T) {
	for raw, want := range map[string]string{"": "", "/run/x\x00": "/run/x", "/run/x": "/run/x", "\x00name": "@name", "\x00a\x00b": "@a@b"} {
		if got := unixAddress([]byte(raw)); got != want {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
}

func TestPortRange(t *testing.T) {
	for _, c := range []struct {
		text, reserved string
		size           uint64
	}{
		{"32768\t60999", "", 28232}, {"100 109", "105", 9}, {"100 109", "1-104,108-200,108", 3}, {"100 100", "", 1}, {"1 65535", "", 65535},
		{"100 109", "x,1-,-", 10},
	} {
		r := parsePortRange(c.text, c.reserved)
		if got := r.size(); got != c.size || !r.known() {
			t.Errorf("%q without %q has %d ports, want %d", c.text, c.reserved, got, c.size)
		}
	}
	for _, bad := range []string{"", "1", "2 1", "1 70000", "a b"} {
		if r := parsePortRange(bad, ""); r.known() || r.has(1) {
			t.Errorf("%q is taken", bad)
		}
	}
	r := parsePortRange("100 109", "105")
	for port, want := range map[uint16]bool{99: false, 100: true, 105: false, 109: true, 110: false} {
		if r.has(port) != want {
			t.Errorf("port %d: %v", port, !want)
		}
	}
}

func TestProcText(t *testing.T) {
	if n, ok := parseSockstat("sockets: used 9\nTCP: inuse 27 orphan 1 tw 6 alloc 64 mem 12\nUDP: inuse 1 mem 3\n"); n != 12 || !ok {
		t.Errorf("TCP memory is %d", n)
	}
	got := parseNetstat("TcpExt: A ListenDrops\nTcpExt: 1 2\nIpExt: A\nIpExt: 7\nIpExt: B C\nTcpExt: 1 2\n")
	if want := map[string]uint64{"TcpExt:A": 1, "TcpExt:ListenDrops": 2, "IpExt:A": 7}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

// TestOwnerlessInFewLines holds that a host with 30,000 of them is told of in
// a few lines, and that none is lost from the count.
func TestOwnerlessInFewLines(t *testing.T) {
	const all = 30_000
	table := &tcpTable{listening: map[uint16]bool{8080: true}, out: map[wayPort]struct{}{}}
	table.sysctls.ports = parsePortRange("32768 60999", "")
	add := func(state, local, peer string) {
		table.add(&inetSocket{protocol: protoTCP, state: state, local: netip.MustParseAddrPort(local), peer: netip.MustParseAddrPort(peer)})
	}
	for i := range all {
		from := fmt.Sprintf("10.0.0.1:%d", 33000+i%25000)
		switch {
		case i < 1000:
			add("TIME_WAIT", "10.0.0.1:8080", fmt.Sprintf("10.9.%d.%d:4000", i/250, i%250))
		case i < 20_000:
			add("TIME_WAIT", from, "10.0.0.5:5432")
		case i < 21_000: // whose listener is gone
			add("TIME_WAIT", "10.0.0.1:40001", fmt.Sprintf("10.9.%d.%d:4000", i%1000/250, i%250))
		default:
			add("TIME_WAIT", from, fmt.Sprintf("10.1.%d.%d:80", i/2/250%250, i/2%250))
		}
	}
	add("ESTABLISHED", "10.0.0.1:8080", "10.9.9.9:4000") // not accepted yet
	add("LAST_ACK", "10.0.0.1:8080", "10.9.9.9:4001")
	var lines []leak.Ownerless
	counts := map[string]uint64{}
	table.ownerless(func(o leak.Ownerless) {
		lines = append(lines, o)
		counts[o.State] += o.N
		counts[o.State+" "+o.Local] = o.N
	})
	if len(lines) > groupsShown+2 || counts["TIME_WAIT"] != all || counts["LAST_ACK :8080"] != 1 || counts["ESTABLISHED"] != 0 {
		t.Errorf("%d lines: %+v", len(lines), lines)
	}
	if counts["TIME_WAIT :8080"] != 1000 || counts["TIME_WAIT to 10.0.0.5:5432"] != 19_000 || counts["TIME_WAIT :40001"] != 1000 {
		t.Errorf("%+v", lines)
	}
}

// answers gives the fuzzers answers of this kernel.
func answers(f *testing.F, request []byte) {
	d, err := dialDiag(0, self(f))
	if err != nil {
		f.Fatal(err)
	}
	defer d.close()
	if err := d.dump(request, func(body []byte) error { f.Add(body); return nil }); err != nil {
		f.Fatal(err)
	}
}

func FuzzInet(f *testing.F) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = l.Close() }() // no one has called
	answers(f, inetRequest(unix.AF_INET6, protoTCP))
	f.Add(inetAnswer(8))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseInet(protoTCP, b); err == nil {
			table := &tcpTable{listening: map[uint16]bool{}, out: map[wayPort]struct{}{}}
			table.add(&s)
			_ = s.socket()
		}
	})
}

func FuzzFamilies(f *testing.F) {
	answers(f, unixRequest())
	answers(f, netlinkRequest())
	answers(f, packetRequest())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, family := range families {
			if s, err := family.parse(b); err == nil && s == nil {
				t.Error("neither a socket nor an error")
			}
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("3: 0100007F:1F90 0500000A:1538 08 0000004D:00000001 01:00000014 00000003 1000 0 4711 1 0 20 4 30 10 -1")
	f.Add("0000000000000000: 00000002 00000000 00010000 0001 01 1234 /run/a b")
	f.Add("TcpExt: A B\nTcpExt: 1 2\nTCP: inuse 1 mem 3")
	f.Fuzz(func(t *testing.T, text string) {
		fields := strings.Fields(text)
		_, _ = parseInetLine(protoTCP, fields)
		for _, family := range families {
			if s, err := family.parseLine(fields); err == nil && s == nil {
				t.Error("neither a socket nor an error")
			}
		}
		parseNetstat(text)
		parseSockstat(text)
		r := parsePortRange(text, text)
		if r.known() && r.size() > 1<<16 {
			t.Errorf("%q has %d ports", text, r.size())
		}
	})
}
