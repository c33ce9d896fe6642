package fdtrace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tracefs is the kernel's directory of tracepoints.
type tracefs struct{ dir int }

// tracefsPlaces are where it is mounted, Documentation/trace/ftrace.rst.
var tracefsPlaces = []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}

// openTracefs finds the tracepoints. Where nobody has mounted them it makes a
// mount that has no place in the file system and ends with its descriptor.
func openTracefs() (*tracefs, error) {
	var first error
	for _, place := range tracefsPlaces {
		dir, err := unix.Open(place+"/events/syscalls", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			return &tracefs{dir}, nil
		}
		if first == nil || errors.Is(err, unix.EACCES) {
			first = fmt.Errorf("%s: %w", place, err)
		}
	}
	context, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("tracefs is not to be had: %w", first)
	}
	defer func() { _ = unix.Close(context) }()
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("tracefs is not to be had: %w", first)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("tracefs is not to be had: %w", first)
	}
	defer func() { _ = unix.Close(mount) }()
	dir, err := unix.Openat(mount, "events/syscalls", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the kernel has no tracepoints for system calls (CONFIG_FTRACE_SYSCALLS): %w", err)
	}
	return &tracefs{dir}, nil
}

// id is the number of a tracepoint, such as sys_exit_openat.
func (t *tracefs) id(name string) (uint64, error) {
	fd, err := unix.Openat(t.dir, name+"/id", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

func (t *tracefs) close() { _ = unix.Close(t.dir) }

// hook runs a program at a tracepoint until the descriptor is closed. The
// event is opened for one processor: its program runs on all of them.
func hook(id uint64, program int) (int, error) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample_type: unix.PERF_SAMPLE_RAW, Sample: 1, Wakeup: 1}
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("perf_event_open: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, program); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("PERF_EVENT_IOC_SET_BPF: %w", err)
	}
	return fd, nil
}
