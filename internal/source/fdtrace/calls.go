package fdtrace

import "golang.org/x/sys/unix"

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

// calls are the system calls of x86-64 that are watched. Those that are newer
// than the running kernel are left out when they are attached.
var calls = []call{
	{unix.SYS_OPEN, "open", classOpen},
	{unix.SYS_OPENAT, "openat", classOpen},
	{unix.SYS_OPENAT2, "openat2", classOpen},
	{unix.SYS_CREAT, "creat", classOpen},
	{unix.SYS_OPEN_BY_HANDLE_AT, "open_by_handle_at", classOpen},
	{unix.SYS_SOCKET, "socket", classOpen},
	{unix.SYS_ACCEPT, "accept", classOpen},
	{unix.SYS_ACCEPT4, "accept4", classOpen},
	{unix.SYS_DUP, "dup", classOpen},
	{unix.SYS_EPOLL_CREATE, "epoll_create", classOpen},
	{unix.SYS_EPOLL_CREATE1, "epoll_create1", classOpen},
	{unix.SYS_EVENTFD, "eventfd", classOpen},
	{unix.SYS_EVENTFD2, "eventfd2", classOpen},
	{unix.SYS_TIMERFD_CREATE, "timerfd_create", classOpen},
	{unix.SYS_INOTIFY_INIT, "inotify_init", classOpen},
	{unix.SYS_INOTIFY_INIT1, "inotify_init1", classOpen},
	{unix.SYS_FANOTIFY_INIT, "fanotify_init", classOpen},
	{unix.SYS_MEMFD_CREATE, "memfd_create", classOpen},
	{unix.SYS_MEMFD_SECRET, "memfd_secret", classOpen},
	{unix.SYS_PIDFD_OPEN, "pidfd_open", classOpen},
	{unix.SYS_PIDFD_GETFD, "pidfd_getfd", classOpen},
	{unix.SYS_USERFAULTFD, "userfaultfd", classOpen},
	{unix.SYS_IO_URING_SETUP, "io_uring_setup", classOpen},
	{unix.SYS_PERF_EVENT_OPEN, "perf_event_open", classOpen},
	{unix.SYS_FSOPEN, "fsopen", classOpen},
	{unix.SYS_FSMOUNT, "fsmount", classOpen},
	{unix.SYS_FSPICK, "fspick", classOpen},
	{unix.SYS_OPEN_TREE, "open_tree", classOpen},
	{unix.SYS_OPEN_TREE_ATTR, "open_tree_attr", classOpen},
	{unix.SYS_MQ_OPEN, "mq_open", classOpen},
	{unix.SYS_PIPE, "pipe", classPair0},
	{unix.SYS_PIPE2, "pipe2", classPair0},
	{unix.SYS_SOCKETPAIR, "socketpair", classPair3},
	{unix.SYS_CLOSE, "close", classClose},
	{unix.SYS_CLOSE_RANGE, "close_range", classCloseRange},
	{unix.SYS_DUP2, "dup2", classDup},
	{unix.SYS_DUP3, "dup3", classDup},
	{unix.SYS_FCNTL, "fcntl", classFcntl},
	{unix.SYS_BPF, "bpf", classBPF},
	{unix.SYS_SIGNALFD, "signalfd", classSignalfd},
	{unix.SYS_SIGNALFD4, "signalfd4", classSignalfd},
	{unix.SYS_LANDLOCK_CREATE_RULESET, "landlock_create_ruleset", classLandlock},
	{unix.SYS_SECCOMP, "seccomp", classSeccomp},
	{unix.SYS_CLONE, "clone", classClone},
	{unix.SYS_FORK, "fork", classClone},
	{unix.SYS_VFORK, "vfork", classClone},
	{unix.SYS_CLONE3, "clone3", classClone3},
	{unix.SYS_UNSHARE, "unshare", classUnshare},
	{unix.SYS_RECVMSG, "recvmsg", classRecvmsg},
	{unix.SYS_EPOLL_CTL, "epoll_ctl", classEpoll},
	{unix.SYS_READ, "read", classUse},
	{unix.SYS_WRITE, "write", classUse},
	{unix.SYS_READV, "readv", classUse},
	{unix.SYS_WRITEV, "writev", classUse},
	{unix.SYS_PREAD64, "pread64", classUse},
	{unix.SYS_PWRITE64, "pwrite64", classUse},
	{unix.SYS_SENDTO, "sendto", classUse},
	{unix.SYS_SENDMSG, "sendmsg", classUse},
	{unix.SYS_SENDMMSG, "sendmmsg", classUse},
	{unix.SYS_RECVFROM, "recvfrom", classUse},
	{unix.SYS_RECVMMSG, "recvmmsg", classUse},
	{unix.SYS_CONNECT, "connect", classUse},
	{unix.SYS_BIND, "bind", classUse},
	{unix.SYS_SHUTDOWN, "shutdown", classUse},
	{unix.SYS_LISTEN, "listen", classUse},
	{unix.SYS_IOCTL, "ioctl", classUse},
	{unix.SYS_MMAP, "mmap", classMemory},
	{unix.SYS_MREMAP, "mremap", classMemory},
	{unix.SYS_BRK, "brk", classBrk},
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
