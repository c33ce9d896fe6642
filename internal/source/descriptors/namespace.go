package descriptors

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// namespace is the network namespace of a target.
type namespace struct {
	target *proc.Target
	dir    *os.File // what setns takes; nil when it is our own namespace
	denied error    // why it cannot be entered, nil when it can
}

// openNamespace finds the target's network namespace and tries whether it can
// be entered.
func openNamespace(t *proc.Target) (*namespace, error) {
	n := &namespace{target: t}
	theirs, err := os.Readlink(t.Path("ns", "net"))
	if err != nil {
		if gone := t.Check(); gone != nil {
			return nil, gone
		}
		if errors.Is(err, os.ErrNotExist) {
			return n, nil // a kernel without network namespaces
		}
		n.denied = err
		return n, nil
	}
	ours, err := os.Readlink(string(t.Root) + "/thread-self/ns/net")
	if err == nil && ours == theirs {
		return n, nil
	}
	if n.dir, err = os.Open(t.Path("ns", "net")); err != nil {
		n.denied = err
		return n, nil
	}
	n.denied = n.inside(func() {})
	return n, nil
}

func (n *namespace) close() {
	if n.dir != nil {
		n.dir.Close()
	}
}

// needs says what would help, for a sentence.
func (n *namespace) needs() string {
	if n.denied == nil {
		return ""
	}
	return "; CAP_SYS_ADMIN is needed to enter it"
}

// inside runs f in the namespace, in a thread that is back in ours afterwards.
func (n *namespace) inside(f func()) error {
	if n.denied != nil {
		return n.denied
	}
	if n.dir == nil {
		f()
		return nil
	}
	done := make(chan error)
	go func() { done <- n.visit(f) }()
	return <-done
}

func (n *namespace) visit(f func()) error {
	runtime.LockOSThread()
	home, err := os.Open(string(n.target.Root) + "/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(n.dir.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("setns: %w", err)
	}
	f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("setns back: %w", err) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return nil
}

// tables opens the socket tables in the best way there is. The error says why
// it is not the best one.
func (n *namespace) tables() (tables, error) {
	why := n.denied
	if why == nil {
		fd := 0
		if n.dir != nil {
			fd = int(n.dir.Fd())
		}
		d, err := dialDiag(fd, n.target)
		if err == nil {
			return d, nil
		}
		why = err
	}
	return netText{n.target}, why
}

// sysctls are the limits of a network namespace.
type sysctls struct {
	ports        portRange
	backlog      uint64 // net.core.somaxconn
	conntrack    uint64 // connections that are tracked
	conntrackMax uint64 // 0 when nothing tracks connections
	tcpMemory    uint64 // pages that all TCP buffers may have; 0 when it is not shown
}

// sysctls reads the limits. /proc/sys/net shows the namespace of the thread
// that reads, so they have to be read inside.
func (n *namespace) sysctls() (sysctls, error) {
	var s sysctls
	root := n.target.Root
	err := n.inside(func() {
		s.ports = parsePortRange(sysctl(root, "net/ipv4/ip_local_port_range"), sysctl(root, "net/ipv4/ip_local_reserved_ports"))
		s.backlog, _ = root.Sysctl("net/core/somaxconn")
		s.conntrack, _ = root.Sysctl("net/netfilter/nf_conntrack_count")
		s.conntrackMax, _ = root.Sysctl("net/netfilter/nf_conntrack_max")
	})
	// One number for all namespaces, which only the first one shows.
	if f := strings.Fields(sysctl(root, "net/ipv4/tcp_mem")); len(f) == 3 {
		s.tcpMemory, _ = strconv.ParseUint(f[2], 10, 64)
	}
	return s, err
}

func sysctl(r proc.Root, name string) string {
	b, err := os.ReadFile(string(r) + "/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
