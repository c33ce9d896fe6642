package fdtrace

import (
	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// class says what a system call is to the programs. The numbers are those of
// fdtrace.bpf.c.
type class uint8

const (
	_ class = iota
	classOpen
	classPair0
	classPair3
	classClose
	classCloseRange
	classDup
	classFcntl
	classBPF
	classSignalfd
	classLandlock
	classSeccomp
	classClone
	classClone3
	classUnshare
	classRecvmsg
	classEpoll
	classUse
	classMemory
	classBrk
)

// call is a system call that is watched.
type call struct {
	nr    uint32
	name  string
	class class
}

// entered reports whether the beginning of a call is noted too. It is needed
// where a descriptor comes or goes: two such calls on one number may overlap.
func (c *call) entered() bool { return c.class < classEpoll }

// uses reports whether a call is watched only as the last use of a descriptor.
func (c *call) uses() bool {
	return (c.class == classUse || c.class == classEpoll) && c.name != "connect" && c.name != "bind"
}

// calls are the system calls of x86-64 that are watched: those that open and
// close descriptors, and these. Those that are newer than the running kernel are
// left out when they are attached.
var calls = append(plain(),
	call{unix.SYS_FCNTL, "fcntl", classFcntl},
	call{unix.SYS_BPF, "bpf", classBPF},
	call{unix.SYS_SIGNALFD, "signalfd", classSignalfd},
	call{unix.SYS_SIGNALFD4, "signalfd4", classSignalfd},
	call{unix.SYS_LANDLOCK_CREATE_RULESET, "landlock_create_ruleset", classLandlock},
	call{unix.SYS_SECCOMP, "seccomp", classSeccomp},
	call{unix.SYS_CLONE, "clone", classClone},
	call{unix.SYS_FORK, "fork", classClone},
	call{unix.SYS_VFORK, "vfork", classClone},
	call{unix.SYS_CLONE3, "clone3", classClone3},
	call{unix.SYS_UNSHARE, "unshare", classUnshare},
	call{unix.SYS_RECVMSG, "recvmsg", classRecvmsg},
	call{unix.SYS_EPOLL_CTL, "epoll_ctl", classEpoll},
	call{unix.SYS_READ, "read", classUse},
	call{unix.SYS_WRITE, "write", classUse},
	call{unix.SYS_READV, "readv", classUse},
	call{unix.SYS_WRITEV, "writev", classUse},
	call{unix.SYS_PREAD64, "pread64", classUse},
	call{unix.SYS_PWRITE64, "pwrite64", classUse},
	call{unix.SYS_SENDTO, "sendto", classUse},
	call{unix.SYS_SENDMSG, "sendmsg", classUse},
	call{unix.SYS_SENDMMSG, "sendmmsg", classUse},
	call{unix.SYS_RECVFROM, "recvfrom", classUse},
	call{unix.SYS_RECVMMSG, "recvmmsg", classUse},
	call{unix.SYS_CONNECT, "connect", classUse},
	call{unix.SYS_BIND, "bind", classUse},
	call{unix.SYS_SHUTDOWN, "shutdown", classUse},
	call{unix.SYS_LISTEN, "listen", classUse},
	call{unix.SYS_IOCTL, "ioctl", classUse},
	call{unix.SYS_MMAP, "mmap", classMemory},
	call{unix.SYS_MREMAP, "mremap", classMemory},
	call{unix.SYS_BRK, "brk", classBrk},
)

// plain are the calls of which their numbers tell everything.
func plain() []call {
	var out []call
	for i := range proc.FDCalls {
		c := &proc.FDCalls[i]
		class := class(0)
		switch {
		case c.When != nil: // which it is, the programs find by its arguments
		case c.Does == proc.FDReturns:
			class = classOpen
		case c.Does == proc.FDPair && c.Arg == 0:
			class = classPair0
		case c.Does == proc.FDPair && c.Arg == 3:
			class = classPair3
		case c.Does == proc.FDReplaces:
			class = classDup
		case c.Does == proc.FDCloses:
			class = classClose
		case c.Does == proc.FDClosesRange:
			class = classCloseRange
		}
		if class != 0 {
			out = append(out, call{uint32(c.Nr), c.Name, class})
		}
	}
	return out
}

// callNames finds a call's name by its number.
var callNames = func() map[uint32]string {
	m := make(map[uint32]string, len(calls))
	for _, c := range calls {
		m[c.nr] = c.name
	}
	return m
}()

// classOf finds a call's class by its number.
var classOf = func() (out [512]class) {
	for _, c := range calls {
		out[c.nr] = c.class
	}
	return out
}()

// classes are the calls as the programs look them up.
func classes(uses bool) [512]uint8 {
	var out [512]uint8
	for _, c := range calls {
		if uses || !c.uses() {
			out[c.nr] = uint8(c.class)
		}
	}
	return out
}
