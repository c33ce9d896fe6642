package proc

import "golang.org/x/sys/unix"

// FDCall is a system call that opens or closes descriptors of who makes it.
type FDCall struct {
	Nr   uint64
	Name string
	Does FDDeed
	// Arg is the argument, from 0, that Does is about.
	Arg int
	// When, if not nil, restricts the call: it counts only when it holds.
	When *FDWhen
}

// FDWhen is a condition on an argument: its lower 32 bits are one of Values.
type FDWhen struct {
	Arg    int
	Values []uint32
}

// FDDeed is what a system call does to the table of descriptors.
type FDDeed uint8

// The deeds.
const (
	FDReturns     FDDeed = iota // the result is a new descriptor
	FDPair                      // Arg points to two int that are new descriptors; the result is 0
	FDReplaces                  // the result is a new descriptor, and what was open under that number was closed silently
	FDCloses                    // Arg is closed, whatever the result but EBADF
	FDClosesRange               // Arg is the first and Arg+1 the last one closed, unless Arg+2 has FDKeepOpen
	FDReceives                  // Arg points to a struct msghdr, whose control data may hold new descriptors
	FDReceivesAll               // likewise an array of struct mmsghdr, as many as the result says
	FDBears                     // makes a process or a thread, and a pidfd where its flags ask for one; the child's table is a copy or shared
	FDConnects                  // opens nothing, but fails when local ports have run out
)

// FDKeepOpen is CLOSE_RANGE_CLOEXEC: the range is only marked.
const FDKeepOpen = unix.CLOSE_RANGE_CLOEXEC

// fcntlDups are the commands of fcntl that make a descriptor.
var fcntlDups = FDWhen{1, []uint32{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC}}

// bpfOpens are the commands of bpf(2) that do, enum bpf_cmd of
// include/uapi/linux/bpf.h.
var bpfOpens = FDWhen{0, []uint32{
	0,  // BPF_MAP_CREATE
	5,  // BPF_PROG_LOAD
	7,  // BPF_OBJ_GET
	13, // BPF_PROG_GET_FD_BY_ID
	14, // BPF_MAP_GET_FD_BY_ID
	17, // BPF_RAW_TRACEPOINT_OPEN
	18, // BPF_BTF_LOAD
	19, // BPF_BTF_GET_FD_BY_ID
	28, // BPF_LINK_CREATE
	30, // BPF_LINK_GET_FD_BY_ID
	32, // BPF_ENABLE_STATS
	33, // BPF_ITER_CREATE
	36, // BPF_TOKEN_CREATE
}}

// FDCalls are the system calls by which descriptors come and go. Some other
// ways exist: ioctl of some devices, io_uring, another process that puts one in
// (a seccomp supervisor), unshare. A listing of /proc/PID/fd shows their results.
var FDCalls = []FDCall{
	{Nr: unix.SYS_OPENAT, Name: "openat"},
	{Nr: unix.SYS_OPEN, Name: "open"},
	{Nr: unix.SYS_OPENAT2, Name: "openat2"},
	{Nr: unix.SYS_CREAT, Name: "creat"},
	{Nr: unix.SYS_OPEN_BY_HANDLE_AT, Name: "open_by_handle_at"},
	{Nr: unix.SYS_SOCKET, Name: "socket"},
	{Nr: unix.SYS_SOCKETPAIR, Name: "socketpair", Does: FDPair, Arg: 3},
	{Nr: unix.SYS_ACCEPT, Name: "accept"},
	{Nr: unix.SYS_ACCEPT4, Name: "accept4"},
	{Nr: unix.SYS_PIPE, Name: "pipe", Does: FDPair},
	{Nr: unix.SYS_PIPE2, Name: "pipe2", Does: FDPair},
	{Nr: unix.SYS_DUP, Name: "dup"},
	{Nr: unix.SYS_DUP2, Name: "dup2", Does: FDReplaces, Arg: 1},
	{Nr: unix.SYS_DUP3, Name: "dup3", Does: FDReplaces, Arg: 1},
	{Nr: unix.SYS_FCNTL, Name: "fcntl", When: &fcntlDups},
	{Nr: unix.SYS_EPOLL_CREATE, Name: "epoll_create"},
	{Nr: unix.SYS_EPOLL_CREATE1, Name: "epoll_create1"},
	{Nr: unix.SYS_EVENTFD, Name: "eventfd"},
	{Nr: unix.SYS_EVENTFD2, Name: "eventfd2"},
	{Nr: unix.SYS_TIMERFD_CREATE, Name: "timerfd_create"},
	// With a descriptor as first argument they change that one.
	{Nr: unix.SYS_SIGNALFD, Name: "signalfd", When: &FDWhen{0, []uint32{1<<32 - 1}}},
	{Nr: unix.SYS_SIGNALFD4, Name: "signalfd4", When: &FDWhen{0, []uint32{1<<32 - 1}}},
	{Nr: unix.SYS_INOTIFY_INIT, Name: "inotify_init"},
	{Nr: unix.SYS_INOTIFY_INIT1, Name: "inotify_init1"},
	{Nr: unix.SYS_FANOTIFY_INIT, Name: "fanotify_init"},
	{Nr: unix.SYS_MEMFD_CREATE, Name: "memfd_create"},
	{Nr: unix.SYS_MEMFD_SECRET, Name: "memfd_secret"},
	{Nr: unix.SYS_PIDFD_OPEN, Name: "pidfd_open"},
	{Nr: unix.SYS_PIDFD_GETFD, Name: "pidfd_getfd"},
	{Nr: unix.SYS_USERFAULTFD, Name: "userfaultfd"},
	{Nr: unix.SYS_IO_URING_SETUP, Name: "io_uring_setup"},
	{Nr: unix.SYS_PERF_EVENT_OPEN, Name: "perf_event_open"},
	{Nr: unix.SYS_BPF, Name: "bpf", When: &bpfOpens},
	{Nr: unix.SYS_MQ_OPEN, Name: "mq_open"},
	{Nr: unix.SYS_OPEN_TREE, Name: "open_tree"},
	{Nr: unix.SYS_OPEN_TREE_ATTR, Name: "open_tree_attr"},
	{Nr: unix.SYS_FSOPEN, Name: "fsopen"},
	{Nr: unix.SYS_FSMOUNT, Name: "fsmount"},
	{Nr: unix.SYS_FSPICK, Name: "fspick"},
	// With flags it tells a version.
	{Nr: unix.SYS_LANDLOCK_CREATE_RULESET, Name: "landlock_create_ruleset", When: &FDWhen{2, []uint32{0}}},
	{Nr: unix.SYS_CLOSE, Name: "close", Does: FDCloses},
	{Nr: unix.SYS_CLOSE_RANGE, Name: "close_range", Does: FDClosesRange},
	{Nr: unix.SYS_RECVMSG, Name: "recvmsg", Does: FDReceives, Arg: 1},
	{Nr: unix.SYS_RECVMMSG, Name: "recvmmsg", Does: FDReceivesAll, Arg: 1},
	{Nr: unix.SYS_CLONE, Name: "clone", Does: FDBears},
	{Nr: unix.SYS_CLONE3, Name: "clone3", Does: FDBears},
	{Nr: unix.SYS_CONNECT, Name: "connect", Does: FDConnects},
}

// Exhausted names the error numbers of system calls that failed because
// something had run out, as leak.Failure has them; "" for all others.
func Exhausted(errno int64) string {
	switch unix.Errno(errno) {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EADDRNOTAVAIL:
		return unix.ErrnoName(unix.Errno(errno))
	}
	return ""
}

// SharesDescriptors reports whether two processes have one table of descriptors
// (clone with CLONE_FILES). It needs CONFIG_KCMP and the rights of ptrace; without,
// they count as having two.
func SharesDescriptors(a, b *Target) bool {
	const files = 2 // KCMP_FILES, include/uapi/linux/kcmp.h
	differ, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(a.ID.PID), uintptr(b.ID.PID), files, 0, 0, 0)
	return e == 0 && differ == 0
}
