package proc

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FDClass is the coarse sort of a descriptor.
type FDClass uint8

// The classes. They follow what the kernel prints as the link's text, so no
// file is touched: a device or a FIFO with a name counts as a file.
const (
	FDFile   FDClass = iota // something with a path, memfd included
	FDSocket                // any address family
	FDPipe                  // an unnamed pipe
	FDAnon                  // an anonymous inode: epoll, eventfd, timerfd, io_uring, ...
	FDOther                 // a namespace, a mount context, ...
)

// String gives the word used in reports.
func (c FDClass) String() string {
	switch c {
	case FDFile:
		return "file"
	case FDSocket:
		return "socket"
	case FDPipe:
		return "pipe"
	case FDAnon:
		return "anon_inode"
	}
	return "other"
}

// FD is one descriptor of a process.
type FD struct {
	Num   int
	Class FDClass
	Kind  string // "file", "memfd", "socket", "pipe"; for FDAnon the kernel's word: "eventpoll", "io_uring", "eventfd", "timerfd", "signalfd", "inotify", "userfaultfd", "pidfd", "bpf-map"; for FDOther "net", "mnt", ...
	Link  string // what /proc/PID/fd/N points to
	Inode uint64 // of a socket, a pipe or a namespace; 0 for others
}

// Descriptors lists the open descriptors, in order of their numbers. It costs a
// readlink each; one that is closed meanwhile is left out.
func (t *Target) Descriptors() ([]FD, error) {
	dir, err := os.Open(t.Path("fd"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	fds := make([]FD, 0, len(names))
	link := make([]byte, 4096)
	for _, name := range names {
		num, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		n, err := unix.Readlinkat(int(dir.Fd()), name, link)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, gone(t.ID.PID, err)
		}
		fds = append(fds, parseFD(num, string(link[:n])))
	}
	if err := t.Check(); err != nil {
		return nil, err
	}
	return fds, nil
}

// parseFD classifies a descriptor by the text of its link.
func parseFD(num int, link string) FD {
	fd := FD{Num: num, Link: link, Class: FDOther, Kind: "other"}
	if strings.HasPrefix(link, "/") {
		fd.Class, fd.Kind = FDFile, "file"
		if strings.HasPrefix(link, "/memfd:") {
			fd.Kind = "memfd"
		}
		return fd
	}
	kind, rest, ok := strings.Cut(link, ":")
	if !ok || strings.HasPrefix(link, "(unreachable)") { // d_path of what lies outside our root directory
		return fd
	}
	if kind == "anon_inode" {
		fd.Class, fd.Kind = FDAnon, strings.Trim(rest, "[]/ ") // "[eventpoll]", "inotify", "/anon"
		return fd
	}
	fd.Kind = kind
	fd.Inode, _ = strconv.ParseUint(strings.Trim(rest, "[]"), 10, 64)
	switch kind {
	case "socket":
		fd.Class = FDSocket
	case "pipe":
		fd.Class = FDPipe
	}
	return fd
}

// DescriptorCount counts the open descriptors: at the cost of one stat since
// Linux 6.2, by listing them before.
func (t *Target) DescriptorCount() (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(t.Path("fd"), &st); err != nil {
		return 0, gone(t.ID.PID, err)
	}
	if st.Size > 0 {
		return int(st.Size), nil
	}
	dir, err := os.Open(t.Path("fd"))
	if err != nil {
		return 0, gone(t.ID.PID, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, gone(t.ID.PID, err)
	}
	if len(names) == 0 {
		return 0, t.Check() // a process that ends has none
	}
	return len(names), nil
}

// FDCounts is how many descriptors of each class a process has.
type FDCounts struct {
	Total, File, Socket, Pipe, Anon, Other int
	Kinds                                  map[string]int // by FD.Kind
}

// CountFDs counts what Descriptors listed.
func CountFDs(fds []FD) FDCounts {
	c := FDCounts{Total: len(fds), Kinds: map[string]int{}}
	for i := range fds {
		c.Kinds[fds[i].Kind]++
		switch fds[i].Class {
		case FDFile:
			c.File++
		case FDSocket:
			c.Socket++
		case FDPipe:
			c.Pipe++
		case FDAnon:
			c.Anon++
		default:
			c.Other++
		}
	}
	return c
}
