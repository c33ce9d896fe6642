package proc

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// FDInfo is what stanch uses of /proc/PID/fdinfo/N, proc_pid_fdinfo(5).
type FDInfo struct {
	Pos         int64
	Flags       uint64       // open flags and O_CLOEXEC
	Epoll       []EpollWatch // of an epoll descriptor
	Userfaultfd uint64       // features of a userfaultfd, 0 for others; see UFFDEventFork
	IOUring     *IOUring     // of an io_uring descriptor
}

// UFFDEventFork is UFFD_FEATURE_EVENT_FORK: a fork of this process waits until
// the reader of the userfaultfd has taken note.
const UFFDEventFork = 1 << 1

// EpollWatch is one descriptor that an epoll instance watches.
type EpollWatch struct {
	Epoll  int    // the epoll descriptor; set by EpollWatches
	FD     int    // the number it had when it was added
	Events uint32 // EPOLLIN, ...
	Data   uint64 // epoll_event.data: most servers keep a pointer there
}

// IOUring is the state of an io_uring as its descriptor tells it. Requests that
// were submitted and not completed are not counted by the kernel: an empty pair
// of queues does not mean that none is in flight.
type IOUring struct {
	Queued    uint32   // submissions the kernel has not taken yet
	Completed uint32   // completions the program has not taken yet
	Polls     int      // poll requests waiting
	InFlight  int32    // submissions the kernel took minus completions it posted: not 0 while requests are in flight, or when some gave no completion or several
	Known     bool     // the counters were there
	Words     []uint64 // user_data and addresses in both queues, and registered buffers (Linux 5.16; not while the ring is busy)
}

// FDInfo reads /proc/PID/fdinfo/num; ErrGone when it is closed.
func (t *Target) FDInfo(num int) (*FDInfo, error) {
	b, err := os.ReadFile(t.Path("fdinfo", strconv.Itoa(num)))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	return parseFDInfo(string(b)), nil
}

func parseFDInfo(text string) *FDInfo {
	info := &FDInfo{}
	fields(text, func(key, value string) {
		switch key {
		case "pos":
			info.Pos, _ = strconv.ParseInt(value, 10, 64)
		case "flags":
			info.Flags, _ = strconv.ParseUint(value, 8, 64)
		case "tfd":
			if w, ok := parseWatch(value); ok {
				info.Epoll = append(info.Epoll, w)
			}
		case "API": // userfaultfd: version:features:known features
			if parts := strings.Split(value, ":"); len(parts) == 3 {
				info.Userfaultfd = hex64(parts[1])
			}
		}
	})
	if strings.Contains(text, "SqHead:") {
		info.IOUring = parseRing(text)
	}
	return info
}

// parseRing reads what io_uring/fdinfo.c of the kernel prints. Words stand
// after "user_data:", "user_data=" and "addr:0x", and registered buffers as
// "0: 0x7f12/4096" below UserBufs.
func parseRing(text string) *IOUring {
	counters := map[string]uint32{}
	r := &IOUring{Polls: strings.Count(text, " op=")}
	inBuffers := false
	fields(text, func(key, value string) {
		switch key {
		case "SqHead", "SqTail", "CqHead", "CqTail":
			if n, err := strconv.ParseUint(value, 10, 32); err == nil {
				counters[key] = uint32(n)
			}
		case "UserBufs":
			inBuffers = true
			return
		}
		if address, _, ok := strings.Cut(value, "/"); ok && inBuffers && strings.HasPrefix(address, "0x") {
			r.Words = append(r.Words, hex64(address[2:]))
		} else {
			inBuffers = false
		}
	})
	for _, w := range ringWord.FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseUint(w[1], 0, 64)
		if err == nil && n != 0 {
			r.Words = append(r.Words, n)
		}
	}
	// The counters are 32 bits wide and wrap.
	r.Queued, r.Completed = counters["SqTail"]-counters["SqHead"], counters["CqTail"]-counters["CqHead"]
	r.InFlight = int32(counters["SqHead"] - counters["CqTail"])
	r.Known = len(counters) == 4
	return r
}

var ringWord = regexp.MustCompile(`(?:user_data[:=]|addr:)(0x[0-9a-f]+|[0-9]+)`)

// parseWatch reads what follows "tfd:", as in
// "       6 events:       19 data: 1234567890abcdef  pos:0 ino:40e sdev:10".
func parseWatch(value string) (EpollWatch, bool) {
	f := strings.Fields(value)
	if len(f) < 5 || f[1] != "events:" || f[3] != "data:" {
		return EpollWatch{}, false
	}
	fd, err1 := strconv.Atoi(f[0])
	events, err2 := strconv.ParseUint(f[2], 16, 32)
	data, err3 := strconv.ParseUint(f[4], 16, 64)
	return EpollWatch{FD: fd, Events: uint32(events), Data: data}, err1 == nil && err2 == nil && err3 == nil
}

// EpollWatches lists what all epoll descriptors among fds watch: each Data is a
// word the kernel holds for the process.
func (t *Target) EpollWatches(fds []FD) ([]EpollWatch, error) {
	var all []EpollWatch
	for i := range fds {
		if fds[i].Kind != "eventpoll" {
			continue
		}
		info, err := t.FDInfo(fds[i].Num)
		if errors.Is(err, ErrGone) && t.Check() == nil {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		for _, w := range info.Epoll {
			w.Epoll = fds[i].Num
			all = append(all, w)
		}
	}
	return all, nil
}

// Timer is a POSIX timer of the process, timer_create(2).
type Timer struct {
	ID     int
	Signal int    // what it sends
	Value  uint64 // sigev_value: a number or a pointer
	Notify string // "signal/pid.123", "thread/tid.124", "none/pid.123"
	Clock  int    // clockid_t
}

// Timers reads /proc/PID/timers, proc_pid_timers(5): Linux 3.10 with
// CONFIG_CHECKPOINT_RESTORE; without it ErrUnsupported.
func (t *Target) Timers() ([]Timer, error) {
	b, err := os.ReadFile(t.Path("timers"))
	if errors.Is(err, os.ErrNotExist) {
		if err := t.Check(); err != nil {
			return nil, err
		}
		return nil, refuse(ErrUnsupported, "this kernel does not list POSIX timers (built without CONFIG_CHECKPOINT_RESTORE)")
	}
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	return parseTimers(string(b)), nil
}

func parseTimers(text string) []Timer {
	var timers []Timer
	fields(text, func(key, value string) {
		if key == "ID" {
			timers = append(timers, Timer{ID: decimal(value)})
			return
		}
		if len(timers) == 0 {
			return
		}
		t := &timers[len(timers)-1]
		switch key {
		case "signal": // 12/0000deadbeef1234
			signal, word, _ := strings.Cut(value, "/")
			t.Signal, t.Value = decimal(signal), hex64(word)
		case "notify":
			t.Notify = value
		case "ClockID":
			t.Clock = decimal(value)
		}
	})
	return timers
}
