package descriptors

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// tables are the sockets of one network namespace.
type tables interface {
	// inet gives each socket of a protocol over IPv4 and IPv6. A table that the
	// kernel does not have is empty.
	inet(p *protocol, each func(*inetSocket)) error
	// others gives each socket of another family: AF_UNIX, AF_NETLINK, AF_PACKET.
	others(family uint8, each func(*leak.Socket)) error
	close()
}

// diag are the tables as the kernel gives them on request, sock_diag(7).
type diag struct {
	conn *netlink.Conn
	text netText // for the tables that this kernel does not give
}

// errNoTable says that the kernel was built without a table.
var errNoTable = errors.New("no such table")

// dialDiag opens a way to ask. namespace is a descriptor of the target's
// network namespace, 0 when it is our own.
func dialDiag(namespace int, t *proc.Target) (*diag, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: namespace})
	if err != nil {
		return nil, err
	}
	return &diag{conn, netText{t}}, nil
}

func (d *diag) close() { _ = d.conn.Close() } // it was only asked

// sockDiagByFamily is SOCK_DIAG_BY_FAMILY, include/uapi/linux/sock_diag.h.
const sockDiagByFamily = 20

// dump asks for a table and gives each answer's body, which is valid during
// the call alone.
func (d *diag) dump(request []byte, each func(body []byte) error) error {
	_, err := d.conn.Send(netlink.Message{Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: request})
	if err != nil {
		return err
	}
	var bad error
	for m, err := range d.conn.ReceiveIter() {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return errNoTable
		}
		if err != nil {
			return err
		}
		if m.Header.Type == sockDiagByFamily && bad == nil {
			bad = each(m.Data) // the rest is received all the same, or the next dump would get it
		}
	}
	return bad
}

// Request of inet_diag: struct inet_diag_req_v2, include/uapi/linux/inet_diag.h.
const (
	inetReqSize     = 56
	inetReqProtocol = 3 // INET_DIAG_REQ_PROTOCOL, the attribute for protocols above 255
	allStates       = 0xffffffff
)

func inetRequest(family uint8, p *protocol) []byte {
	b := make([]byte, inetReqSize, inetReqSize+8)
	b[0], b[1] = family, uint8(p.number)
	b[2] = 1 << (inetDiagInfo - 1) // idiag_ext
	binary.NativeEndian.PutUint32(b[4:], allStates)
	switch {
	case p == protoRaw:
		b[3] = 0xff // sdiag_raw_protocol: those of any IP protocol
	case p.number > 0xff:
		b = binary.NativeEndian.AppendUint16(b, 8)
		b = binary.NativeEndian.AppendUint16(b, inetReqProtocol)
		b = binary.NativeEndian.AppendUint32(b, p.number)
	}
	return b
}

func (d *diag) inet(p *protocol, each func(*inetSocket)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := d.dump(inetRequest(family, p), func(body []byte) error {
			s, err := parseInet(p, body)
			if err == nil {
				each(&s)
			}
			return err
		})
		if errors.Is(err, errNoTable) && family == unix.AF_INET {
			return d.text.inet(p, each) // of both families
		}
		if errors.Is(err, errNoTable) {
			return nil // without IPv6
		}
		if err != nil {
			return fmt.Errorf("%s sockets: %w", p.name, err)
		}
	}
	return nil
}

func (d *diag) others(family uint8, each func(*leak.Socket)) error {
	f := families[family]
	err := d.dump(f.request(), func(body []byte) error {
		s, err := f.parse(body)
		if err == nil {
			each(s)
		}
		return err
	})
	if errors.Is(err, errNoTable) {
		return d.text.others(family, each)
	}
	if err != nil {
		return fmt.Errorf("%s sockets: %w", f.name, err)
	}
	return nil
}

// attributes gives each netlink attribute of b, struct nlattr of
// include/uapi/linux/netlink.h.
func attributes(b []byte, each func(kind uint16, value []byte)) error {
	const (
		head     = 4
		typeMask = 0x3fff // NLA_TYPE_MASK
	)
	for len(b) >= head {
		size := int(binary.NativeEndian.Uint16(b))
		if size < head || size > len(b) {
			return fmt.Errorf("a netlink attribute of %d bytes in %d", size, len(b))
		}
		kind := binary.NativeEndian.Uint16(b[2:]) & typeMask
		each(kind, b[head:size])
		b = b[min(len(b), (size+3)&^3):]
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes behind the last netlink attribute", len(b))
	}
	return nil
}
