package proc

import (
	"os"
	"strconv"
	"strings"
)

// Status is what stanch uses of /proc/PID/status, proc_pid_status(5). Sizes are
// bytes. What an older kernel does not print is zero but where said.
type Status struct {
	Name      string
	State     byte // as Stat.State
	Tgid      int  // the process this thread belongs to
	PID       int  // the thread
	PPID      int
	TracerPID int    // who traces it, 0 for nobody
	UID       [4]int // real, effective, saved, file system
	GID       [4]int
	NSPid     []int // its PIDs, from procfs' own namespace inwards (Linux 4.1)

	VMSize       uint64 // address space
	VMRSS        uint64
	RSSAnon      uint64 // Linux 4.5
	RSSFile      uint64
	RSSShmem     uint64
	VMData       uint64 // private writable memory without the stack
	VMSwap       uint64
	VMPTE        uint64 // page tables
	VMPin        uint64 // pages pinned for devices, which a fork copies at once
	HugetlbPages uint64

	Threads        int
	NoNewPrivs     bool
	Seccomp        int // 0 none, 1 strict, 2 filters
	SeccompFilters int // Linux 5.9; -1 when not said
	SigPending     uint64
	ShdPending     uint64 // of the whole process
	SigBlocked     uint64
	SigIgnored     uint64
	SigCaught      uint64
	CapPermitted   uint64
	CapEffective   uint64
}

// Status reads /proc/PID/status.
func (t *Target) Status() (*Status, error) { return t.readStatus(t.Path("status")) }

// ThreadStatus reads the status of one thread; ErrGone when it has ended.
func (t *Target) ThreadStatus(tid int) (*Status, error) {
	return t.readStatus(t.Path("task", strconv.Itoa(tid), "status"))
}

func (t *Target) readStatus(path string) (*Status, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	return parseStatus(string(b)), nil
}

// fields calls yield for every "Key:   value" line.
func fields(text string, yield func(key, value string)) {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			yield(key, strings.TrimSpace(value))
		}
	}
}

// kib reads "123 kB" as bytes; other text is zero.
func kib(s string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(s, "kB")), 10, 54)
	if err != nil {
		return 0
	}
	return n << 10
}

func hex64(s string) uint64 {
	n, _ := strconv.ParseUint(s, 16, 64)
	return n
}

func decimal(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func decimals(s string) []int {
	var list []int
	for _, f := range strings.Fields(s) {
		list = append(list, decimal(f))
	}
	return list
}

func parseStatus(text string) *Status {
	s := &Status{SeccompFilters: -1}
	fields(text, func(key, value string) {
		switch key {
		case "Name":
			s.Name = value
		case "State":
			if value != "" {
				s.State = value[0]
			}
		case "Tgid":
			s.Tgid = decimal(value)
		case "Pid":
			s.PID = decimal(value)
		case "PPid":
			s.PPID = decimal(value)
		case "TracerPid":
			s.TracerPID = decimal(value)
		case "Uid":
			copy(s.UID[:], decimals(value))
		case "Gid":
			copy(s.GID[:], decimals(value))
		case "NSpid":
			s.NSPid = decimals(value)
		case "Threads":
			s.Threads = decimal(value)
		case "NoNewPrivs":
			s.NoNewPrivs = value == "1"
		case "Seccomp":
			s.Seccomp = decimal(value)
		case "Seccomp_filters":
			s.SeccompFilters = decimal(value)
		default:
			s.setWord(key, value)
		}
	})
	return s
}

// setWord takes in the lines that are sizes or bit masks.
func (s *Status) setWord(key, value string) {
	switch key {
	case "VmSize":
		s.VMSize = kib(value)
	case "VmRSS":
		s.VMRSS = kib(value)
	case "RssAnon":
		s.RSSAnon = kib(value)
	case "RssFile":
		s.RSSFile = kib(value)
	case "RssShmem":
		s.RSSShmem = kib(value)
	case "VmData":
		s.VMData = kib(value)
	case "VmSwap":
		s.VMSwap = kib(value)
	case "VmPTE":
		s.VMPTE = kib(value)
	case "VmPin":
		s.VMPin = kib(value)
	case "HugetlbPages":
		s.HugetlbPages = kib(value)
	case "SigPnd":
		s.SigPending = hex64(value)
	case "ShdPnd":
		s.ShdPending = hex64(value)
	case "SigBlk":
		s.SigBlocked = hex64(value)
	case "SigIgn":
		s.SigIgnored = hex64(value)
	case "SigCgt":
		s.SigCaught = hex64(value)
	case "CapPrm":
		s.CapPermitted = hex64(value)
	case "CapEff":
		s.CapEffective = hex64(value)
	}
}
