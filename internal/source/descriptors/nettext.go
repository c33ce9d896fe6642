package descriptors

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// netText are the tables as /proc/PID/net prints them, for whoever may not
// enter the namespace: without times, without backlogs, without the other ends
// of unix sockets.
type netText struct{ target *proc.Target }

func (netText) close() {}

// lines gives the fields of each line of a file below its head.
func (n netText) lines(name string, each func(f []string) error) error {
	file, err := os.Open(n.target.Path("net", name))
	if errors.Is(err, os.ErrNotExist) {
		return n.target.Check() // built without this protocol
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Scan()
	for lines.Scan() {
		if err := each(strings.Fields(lines.Text())); err != nil {
			return fmt.Errorf("/proc/%d/net/%s: %w", n.target.ID.PID, name, err)
		}
	}
	return lines.Err()
}

func (n netText) inet(p *protocol, each func(*inetSocket)) error {
	if len(p.files) == 0 {
		return fmt.Errorf("%s sockets: /proc/%d/net does not list them", p.name, n.target.ID.PID)
	}
	for _, name := range p.files {
		err := n.lines(name, func(f []string) error {
			s, err := parseInetLine(p, f)
			if err == nil {
				each(&s)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (n netText) others(family uint8, each func(*leak.Socket)) error {
	f := families[family]
	return n.lines(f.name, func(fields []string) error {
		s, err := f.parseLine(fields)
		if err == nil {
			each(s)
		}
		return err
	})
}

// numbers reads the fields that have these indexes, in a base.
func numbers(f []string, base int, index ...int) ([]uint64, error) {
	values := make([]uint64, len(index))
	for i, at := range index {
		if at >= len(f) {
			return nil, fmt.Errorf("short line %q", f)
		}
		n, err := strconv.ParseUint(f[at], base, 64)
		if err != nil {
			return nil, err
		}
		values[i] = n
	}
	return values, nil
}

// parseInetLine reads a line of /proc/net/tcp and its like: number, local and
// remote address, state, queues, timer, retransmits, uid, timeout, inode
// (get_tcp4_sock of net/ipv4/tcp_ipv4.c).
func parseInetLine(p *protocol, f []string) (inetSocket, error) {
	n, err := numbers(f, 10, 7, 9)
	if err != nil {
		return inetSocket{}, err
	}
	bits, err := numbers(f, 16, 3, 6)
	if err != nil {
		return inetSocket{}, err
	}
	s := inetSocket{protocol: p, state: p.state(byte(bits[0])), uid: uint32(n[0]), inode: n[1], lastReceived: -1, lastSent: -1}
	if s.local, err = parseEndpoint(f[1]); err != nil {
		return s, err
	}
	if s.peer, err = parseEndpoint(f[2]); err != nil {
		return s, err
	}
	send, receive, _ := strings.Cut(f[4], ":")
	queues, err := numbers([]string{send, receive}, 16, 0, 1)
	if err != nil {
		return s, err
	}
	s.sendQueue, s.receiveQueue = queues[0], queues[1]
	if timer, _, _ := strings.Cut(f[5], ":"); timer == "01" {
		s.retransmits = uint32(bits[1])
	}
	return s, nil
}

// parseEndpoint reads "0100007F:1F90": words of the address as the host reads
// them from network order, and the port.
func parseEndpoint(text string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("malformed address %q", text)
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("malformed address %q", text)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	family := byte(unix.AF_INET)
	if len(raw) == 16 {
		family = unix.AF_INET6
	}
	at, _ := endpoint(family, raw, uint16(number), 0)
	return at, nil
}

// parseUnixLine reads Num RefCount Protocol Flags Type St Inode Path of
// /proc/net/unix (unix_seq_show of net/unix/af_unix.c). St is of enum
// socket_state, include/uapi/linux/net.h; a listener is told by its flags.
func parseUnixLine(f []string) (*leak.Socket, error) {
	const (
		acceptCon = 1 << 16 // __SO_ACCEPTCON
		connected = 3       // SS_CONNECTED
	)
	bits, err := numbers(f, 16, 3, 4, 5)
	if err != nil {
		return nil, err
	}
	inode, err := numbers(f, 10, 6)
	if err != nil {
		return nil, err
	}
	state := "CLOSE"
	switch {
	case bits[0]&acceptCon != 0:
		state = "LISTEN"
	case bits[2] == connected:
		state = "ESTABLISHED"
	}
	s := &leak.Socket{Inode: inode[0], Local: strings.Join(f[7:], " "), LastReceived: -1, LastSent: -1}
	s.Protocol, s.State = unixKind(bits[1], state)
	return s, nil
}

// parseNetlinkLine reads sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode.
func parseNetlinkLine(f []string) (*leak.Socket, error) {
	n, err := numbers(f, 10, 1, 2, 4, 9)
	if err != nil {
		return nil, err
	}
	s := netlinkSocket(n[0], n[1], n[3])
	s.ReceiveQueue = n[2]
	return s, nil
}

// parsePacketLine reads sk RefCnt Type Proto Iface R Rmem User Inode.
func parsePacketLine(f []string) (*leak.Socket, error) {
	n, err := numbers(f, 10, 4, 6, 7, 8)
	if err != nil {
		return nil, err
	}
	protocol, err := numbers(f, 16, 3)
	if err != nil {
		return nil, err
	}
	s := packetSocket(protocol[0], n[0], n[3])
	s.ReceiveQueue, s.Owner = n[1], uint32(n[2])
	return s, nil
}
