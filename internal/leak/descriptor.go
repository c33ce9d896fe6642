package leak

import "time"

// Listing is all open descriptors of a process at one moment, as
// /proc/PID/fd and the kernel's socket tables show them.
type Listing struct {
	At   time.Duration // since the observation began
	Proc ProcID
	Open []Descriptor // in order of their numbers
}

// Descriptor is one open descriptor.
type Descriptor struct {
	Num         int
	Kind        string // "file", "memfd", "directory", "device", "socket", "pipe", "fifo", or the kernel's word: "eventpoll", "eventfd", "timerfd", "signalfd", "inotify", "io_uring", "pidfd", ...
	Name        string // what /proc/PID/fd/N points to, without " (deleted)": a path, "pipe:[77]", "anon_inode:[eventpoll]"
	Deleted     bool   // the file was unlinked; a memfd never is
	CloseOnExec bool
	Access      string  // "r", "w", "rw", or "" when it is not known
	Size        uint64  // bytes: of a file, a memfd; waiting in a pipe or FIFO, where that is known
	Inode       uint64  // of files, pipes and sockets; 0 when not known
	Dev         uint64  // device number of a file, as in Mapping
	Socket      *Socket // of sockets, when the kernel's tables were readable and had it
}

// Socket is what the kernel tells of a socket. States are the kernel's names,
// include/net/tcp_states.h: ESTABLISHED, CLOSE_WAIT, FIN_WAIT2, LISTEN, ...
type Socket struct {
	Protocol string // "tcp", "udp", "raw", "unix stream", "unix dgram", "unix seqpacket", "netlink", "packet", "sctp", "mptcp", ...
	State    string // "" when the protocol has none
	Local    string // "10.0.0.1:8080", "[::1]:53", the path of a unix socket, "@name" of an abstract one; "" when unbound
	Peer     string // likewise; "" when there is none
	Inode    uint64
	PeerID   uint64 // inode of the other end of a unix socket, 0 when unknown
	// Bytes that wait to be read and to be sent or acknowledged. Of a listening
	// socket: connections that wait to be accepted, and how many may.
	ReceiveQueue, SendQueue uint64
	// How long ago data came and went, tcp_info; negative when not known.
	LastReceived, LastSent time.Duration
	Retransmits            uint32 // of the segment that waits now, tcp_info
	Owner                  uint32 // user id
}

// Ownerless counts sockets that belong to no process any more, in the target's
// network namespace: TIME_WAIT, and orphans that were closed with data in
// flight.
type Ownerless struct {
	At    time.Duration
	Proc  ProcID // whose namespace
	State string // "TIME_WAIT", "FIN_WAIT1", "LAST_ACK", ...
	Local string // the local port, ":8080", or the whole address of an outgoing connection's peer: "to 10.0.0.5:5432"
	N     uint64
}

// Usage is how much of a limited resource is in use.
type Usage struct {
	At    time.Duration
	Proc  ProcID
	Name  UsageName
	Scope string // which one of several: "10.0.0.1 to 10.0.0.5:5432", "0.0.0.0:8080", a cgroup; "" when there is one
	Used  uint64 // bytes or a number, as Bytes says
	Max   uint64 // the limit that stops the target
	Hard  uint64 // of an rlimit: up to where the owner may raise Max without privileges; 0 when there is none
	Limit string // what sets it: "RLIMIT_NOFILE", "fs.file-max", "net.ipv4.ip_local_port_range"
	Bytes bool
}

// UsageName names a limited resource.
type UsageName string

// The resources whose exhaustion stops a process.
const (
	UsageDescriptors   UsageName = "descriptors"
	UsageFiles         UsageName = "open files of the host"
	UsagePorts         UsageName = "local ports"
	UsageConntrack     UsageName = "connection tracking"
	UsageBacklog       UsageName = "connections waiting to be accepted"
	UsageTCPMemory     UsageName = "TCP buffers of the host"
	UsageTasks         UsageName = "tasks of the cgroup"
	UsageUserTasks     UsageName = "tasks of the user"
	UsageMappings      UsageName = "mappings"
	UsageAddressSpace  UsageName = "address space"
	UsageData          UsageName = "data segment"
	UsageCommit        UsageName = "committed memory of the host"
	UsageCgroupMemory  UsageName = "memory of the cgroup"
	UsageHostMemory    UsageName = "memory of the host"
	UsageListenDropped UsageName = "connections dropped at full listen queues" // Used counts them since boot; Max is 0
)

// Failure counts the system calls of one stack that failed because something
// had run out. Said again, it replaces what was said before.
type Failure struct {
	At    time.Duration
	Proc  ProcID
	Call  string // "openat", "socket", "clone"
	Errno string // "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EAGAIN", "EADDRNOTAVAIL"
	Stack StackID
	N     uint64 // since the watch began
}

// Use is the last system call that was made on a descriptor that is still open.
type Use struct {
	At   time.Duration // when it was made
	Ref  Ref
	Call string // "read", "sendto"
	// Error is the errno it failed with, "" when it did not fail.
	Error string
}

// Input is where the bytes came from that a thread had read last when it asked
// for a block of a suspicious size.
type Input struct {
	At     time.Duration
	Proc   ProcID
	Size   uint64 // bytes requested
	Stack  StackID
	Num    int    // the descriptor
	Source string // what it is: "TCP 10.1.2.3:8080", a path; "" when it was closed before anyone looked
}
