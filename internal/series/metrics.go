package series

// What is measured of a process. The first ten are said on every tick, the
// others at a slower pace, or when they change; all of them only of processes
// that have lived for 60 s.
const (
	RSS       Metric = "stanch_process_resident_memory_bytes"
	Virtual   Metric = "stanch_process_virtual_memory_bytes"
	Anonymous Metric = "stanch_process_anonymous_memory_bytes"
	FDs       Metric = "stanch_process_open_fds"
	Threads   Metric = "stanch_process_threads"
	CPU       Metric = "stanch_process_cpu_seconds_total"
	Minor     Metric = "stanch_process_minor_page_faults_total"
	Major     Metric = "stanch_process_major_page_faults_total"
	Started   Metric = "stanch_process_start_time_seconds" // Unix time; a restart changes it
	PID       Metric = "stanch_process_pid"

	Data         Metric = "stanch_process_data_memory_bytes" // VmData
	Swap         Metric = "stanch_process_swap_bytes"
	PSS          Metric = "stanch_process_proportional_memory_bytes"
	PrivateDirty Metric = "stanch_process_private_dirty_memory_bytes"
	FDKinds      Metric = "stanch_process_open_fds_by_kind"
	Sockets      Metric = "stanch_process_tcp_sockets"
	Zombies      Metric = "stanch_process_zombie_children"
	Received     Metric = "stanch_process_received_bytes_total" // by read(2) and its like, /proc/PID/io rchar; not by recv(2)
	Sent         Metric = "stanch_process_sent_bytes_total"     // by write(2) and its like, wchar; not by send(2)
	FDLimit      Metric = "stanch_process_max_fds"              // soft RLIMIT_NOFILE
	AddressLimit Metric = "stanch_process_max_virtual_memory_bytes"
)

// What is measured of a service's cgroup, by any version of cgroups.
const (
	CgroupMemory   Metric = "stanch_cgroup_memory_bytes"     // without what the kernel can take back at once
	CgroupLimit    Metric = "stanch_cgroup_memory_max_bytes" // of the nearest level that has one
	CgroupEvents   Metric = "stanch_cgroup_memory_events_total"
	CgroupTasks    Metric = "stanch_cgroup_tasks"
	CgroupTasksMax Metric = "stanch_cgroup_tasks_max"
)

// What is measured of the host.
const (
	HostMemory       Metric = "stanch_host_memory_bytes"
	HostAvailable    Metric = "stanch_host_memory_available_bytes"
	HostCommitted    Metric = "stanch_host_committed_bytes"
	HostCommitLimit  Metric = "stanch_host_commit_limit_bytes"
	HostSwap         Metric = "stanch_host_swap_bytes"
	HostSwapFree     Metric = "stanch_host_swap_free_bytes"
	HostSlab         Metric = "stanch_host_slab_bytes"
	HostFiles        Metric = "stanch_host_open_files"
	HostFilesMax     Metric = "stanch_host_open_files_max"
	HostSockets      Metric = "stanch_host_sockets"
	HostConntrack    Metric = "stanch_host_conntrack_entries"
	HostConntrackMax Metric = "stanch_host_conntrack_entries_max"
	HostOOMKills     Metric = "stanch_host_oom_kills_total"
	HostAccepted     Metric = "stanch_host_tcp_accepted_total" // PassiveOpens of stanch's network namespace
	HostReceived     Metric = "stanch_host_network_received_bytes_total"
	HostSent         Metric = "stanch_host_network_sent_bytes_total"
	HostProcesses    Metric = "stanch_host_processes"
)

// What stanch itself notes.
const (
	// Log counts the lines of one template within the 100 ms that begin at
	// the point's time. Its Part is the template.
	Log Metric = "stanch_log_lines"
	// ClockJumps has a point where the wall clock was set, by so many seconds.
	ClockJumps Metric = "stanch_clock_jump_seconds"
	// Suspended has a point where the host woke up, after so many seconds.
	Suspended Metric = "stanch_host_suspended_seconds"
)

// Info is what a metric means.
type Info struct {
	Metric Metric
	Help   string // one sentence for people
	Title  string // a word or two for charts: "resident memory"
	Bytes  bool   // the unit is bytes
	Total  bool   // only counts up: its rate is what matters
	Part   string // the name of its own label: "kind", "state", "event", "template"; "" when it has none
	Slow   bool   // said at a slower pace than each tick
}

// Metrics are all of them, in the order in which they are shown.
var Metrics = []Info{
	{Metric: RSS, Title: "resident memory", Bytes: true, Help: "Resident memory."},
	{Metric: Anonymous, Title: "anonymous memory", Bytes: true, Help: "Resident memory that belongs to no file and is not shared."},
	{Metric: Virtual, Title: "address space", Bytes: true, Help: "Size of the address space."},
	{Metric: FDs, Title: "descriptors", Help: "Open descriptors."},
	{Metric: Threads, Title: "threads", Help: "Threads."},
	{Metric: CPU, Title: "CPU time", Total: true, Help: "CPU time used, user and system, in seconds."},
	{Metric: Minor, Title: "minor page faults", Total: true, Help: "Page faults that needed no reading from a disk."},
	{Metric: Major, Title: "major page faults", Total: true, Help: "Page faults that needed reading from a disk."},
	{Metric: Started, Title: "start", Help: "When the process started, Unix time in seconds."},
	{Metric: PID, Title: "PID", Help: "The PID of the process that is this worker now."},
	{Metric: Data, Title: "private writable memory", Bytes: true, Slow: true, Help: "Size of private writable mappings, VmData."},
	{Metric: Swap, Title: "swapped memory", Bytes: true, Slow: true, Help: "Memory in swap."},
	{Metric: PSS, Title: "proportional memory", Bytes: true, Slow: true, Help: "Resident memory, shared pages divided by who shares them."},
	{Metric: PrivateDirty, Title: "private dirty memory", Bytes: true, Slow: true, Help: "Resident memory written by this process alone."},
	{Metric: FDKinds, Title: "descriptors", Part: "kind", Slow: true, Help: "Open descriptors of a kind."},
	{Metric: Sockets, Title: "TCP sockets", Part: "state", Slow: true, Help: "TCP sockets in a state."},
	{Metric: Zombies, Title: "zombie children", Slow: true, Help: "Children that have ended and were not waited for."},
	{Metric: Received, Title: "bytes read", Bytes: true, Total: true, Slow: true, Help: "Bytes read by read(2) and its like, of files and sockets; recv(2) is not counted."},
	{Metric: Sent, Title: "bytes written", Bytes: true, Total: true, Slow: true, Help: "Bytes written by write(2) and its like, to files and sockets; send(2) is not counted."},
	{Metric: FDLimit, Title: "descriptor limit", Slow: true, Help: "Soft limit on open descriptors, RLIMIT_NOFILE."},
	{Metric: AddressLimit, Title: "address space limit", Bytes: true, Slow: true, Help: "Soft limit on the address space, RLIMIT_AS."},
	{Metric: CgroupMemory, Title: "cgroup memory", Bytes: true, Help: "Memory charged to the cgroup, without what can be reclaimed at once."},
	{Metric: CgroupLimit, Title: "cgroup memory limit", Bytes: true, Slow: true, Help: "The nearest memory limit of the cgroup and those above it."},
	{Metric: CgroupEvents, Title: "cgroup memory events", Total: true, Part: "event", Slow: true, Help: "Events of the cgroup's memory limit: low, high, max, oom, oom_kill."},
	{Metric: CgroupTasks, Title: "tasks", Help: "Processes and threads of the cgroup."},
	{Metric: CgroupTasksMax, Title: "task limit", Slow: true, Help: "The nearest limit on tasks, pids.max."},
	{Metric: HostMemory, Title: "host memory", Bytes: true, Slow: true, Help: "Memory of the host."},
	{Metric: HostAvailable, Title: "available memory", Bytes: true, Help: "Memory that programs can still get without swapping, MemAvailable."},
	{Metric: HostCommitted, Title: "committed memory", Bytes: true, Help: "Memory promised to programs, Committed_AS."},
	{Metric: HostCommitLimit, Title: "commit limit", Bytes: true, Slow: true, Help: "What may be promised when overcommit is off, CommitLimit."},
	{Metric: HostSwap, Title: "swap", Bytes: true, Slow: true, Help: "Swap space of the host."},
	{Metric: HostSwapFree, Title: "free swap", Bytes: true, Help: "Swap space that is free."},
	{Metric: HostSlab, Title: "slab", Bytes: true, Help: "Memory of the kernel's own objects that cannot be reclaimed, SUnreclaim."},
	{Metric: HostFiles, Title: "open files", Help: "Open files of all processes, fs.file-nr."},
	{Metric: HostFilesMax, Title: "open file limit", Slow: true, Help: "Limit of open files, fs.file-max."},
	{Metric: HostSockets, Title: "sockets", Part: "protocol", Help: "Sockets in use, from sockstat."},
	{Metric: HostConntrack, Title: "tracked connections", Help: "Entries of the connection tracking table."},
	{Metric: HostConntrackMax, Title: "tracked connection limit", Slow: true, Help: "Limit of the connection tracking table."},
	{Metric: HostOOMKills, Title: "OOM kills", Total: true, Help: "Processes that the kernel killed for lack of memory."},
	{Metric: HostAccepted, Title: "accepted connections", Total: true, Help: "TCP connections accepted in the host's network namespace."},
	{Metric: HostReceived, Title: "network bytes received", Bytes: true, Total: true, Help: "Bytes received by all interfaces but loopback."},
	{Metric: HostSent, Title: "network bytes sent", Bytes: true, Total: true, Help: "Bytes sent by all interfaces but loopback."},
	{Metric: HostProcesses, Title: "processes", Help: "Processes of the host."},
	{Metric: Log, Title: "log lines", Part: "template", Help: "Lines of a log template within 100 ms."},
	{Metric: ClockJumps, Title: "clock jumps", Help: "The wall clock was set, by so many seconds."},
	{Metric: Suspended, Title: "suspended", Help: "The host woke up after so many seconds."},
}

// Describe tells what a metric means; ok is false for one that is not ours.
func Describe(m Metric) (info Info, ok bool) {
	for _, info := range Metrics {
		if info.Metric == m {
			return info, true
		}
	}
	return Info{}, false
}
