package fdtrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Tracer is a set of loaded programs. Start attaches them; Close removes them.
type Tracer struct {
	o       Options
	objects *ebpf.Collection
	reader  *ringbuf.Reader
	links   []link.Link
	hooks   []int
	raw     bool
	why     string
	zero    uint64 // of the clock, CLOCK_BOOTTIME in ns
	target  *proc.Target
	cgroup  string // path of the watched one in its hierarchy
	books   *books
	closed  bool
	settle  chan settling
	ended   chan struct{} // closed when Watch has said everything
}

// Load loads the programs; nothing is traced yet. The error is of kind
// proc.ErrUnsupported or proc.ErrDenied where kernel or rights are too small.
func Load(o Options) (*Tracer, error) {
	if o.StackBytes == 0 {
		o.StackBytes = defaultStack
	}
	if o.RingBytes == 0 {
		o.RingBytes = defaultRing
	}
	if o.Clock == nil {
		o.Clock = proc.NewClock()
	}
	if o.Atlas == nil {
		o.Atlas = leak.NewAtlas(leak.Ignore{}, nil)
	}
	t := &Tracer{o: o, settle: make(chan settling), ended: make(chan struct{})}
	t.zero = bootNow() - uint64(o.Clock.Now())
	fs, err := t.place()
	if fs != nil {
		defer fs.close()
	}
	if err != nil {
		return nil, err
	}
	if err := t.load(); err != nil {
		return nil, err
	}
	if err := t.attach(fs); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

// place decides between the tracepoints of single calls and raw ones.
func (t *Tracer) place() (*tracefs, error) {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return nil, fmt.Errorf("the kernel does not describe itself (/sys/kernel/btf/vmlinux is missing, CONFIG_DEBUG_INFO_BTF): %w", proc.ErrUnsupported)
	}
	if t.o.Raw {
		t.raw, t.why = true, "asked for"
		return nil, nil
	}
	fs, err := openTracefs()
	if err != nil {
		t.raw, t.why = true, err.Error()
		return nil, nil
	}
	return fs, nil
}

func (t *Tracer) load() error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	for name, raw := range map[string]bool{"enter_call": false, "exit_call": false, "enter_any": true, "exit_any": true} {
		if raw != t.raw {
			delete(spec.Programs, name)
		}
	}
	spec.Maps["ring"].MaxEntries = uint32(t.o.RingBytes)
	for name, value := range map[string]any{
		"class_of":     classes(!t.o.NoUses),
		"by_cgroup":    flag(t.o.Scope == Cgroup),
		"family":       flag(t.o.Scope != OneProcess),
		"uses_too":     flag(!t.o.NoUses),
		"all_wide":     flag(t.o.StackBytes > defaultStack),
		"ring_quarter": uint32(t.o.RingBytes / 4),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	t.objects, err = ebpf.NewCollection(spec)
	if err != nil {
		return refused(err)
	}
	t.reader, err = ringbuf.NewReader(t.objects.Maps["ring"])
	if err != nil {
		return errors.Join(fmt.Errorf("open the ring buffer: %w", err), t.Close())
	}
	return nil
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// refused says what a failure to load means.
func refused(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the kernel has no BPF (CONFIG_BPF_SYSCALL): %w: %w", err, proc.ErrUnsupported)
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || !permitted():
		return fmt.Errorf("tracing descriptors needs CAP_BPF and CAP_PERFMON (Linux 5.8), or root, and a system call filter that lets bpf() through: %w: %w", err, proc.ErrDenied)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("load the programs: %w", err)
	}
	return fmt.Errorf("tracing descriptors needs Linux 5.15 with BTF: %w: %w", err, proc.ErrUnsupported)
}

// permitted reports whether this process may use BPF at all: the loader takes
// some refusals for missing features.
func permitted() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if unix.Capget(&head, &caps[0]) == nil {
		has := func(c int) bool { return caps[c/32].Effective>>(c%32)&1 != 0 }
		if !has(unix.CAP_SYS_ADMIN) && (!has(unix.CAP_BPF) || !has(unix.CAP_PERFMON)) {
			return false
		}
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return !errors.Is(err, unix.EPERM)
	}
	_ = m.Close()
	return true
}

// tasks are what is attached besides the system calls: they come first, so
// that no process escapes.
var tasks = map[string]string{"on_fork": "sched_process_fork", "on_exec": "sched_process_exec", "on_exit": "sched_process_exit"}

func (t *Tracer) attach(fs *tracefs) error {
	points := map[string]string{}
	for program, point := range tasks {
		points[program] = point
	}
	if t.raw {
		points["enter_any"], points["exit_any"] = "sys_enter", "sys_exit"
	}
	for program, point := range points {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: point, Program: t.objects.Programs[program]})
		if err != nil {
			return fmt.Errorf("attach to %s: %w", point, refused(err))
		}
		t.links = append(t.links, l)
	}
	if t.raw {
		return nil
	}
	for i := range calls {
		c := &calls[i]
		if c.uses() && t.o.NoUses {
			continue
		}
		if err := t.hook(fs, "sys_exit_"+c.name, "exit_call"); err != nil {
			return err
		}
		if c.entered() {
			if err := t.hook(fs, "sys_enter_"+c.name, "enter_call"); err != nil {
				return err
			}
		}
	}
	return nil
}

// hook attaches to the tracepoint of a call, if the kernel has that call.
func (t *Tracer) hook(fs *tracefs, point, program string) error {
	id, err := fs.id(point)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tracepoint %s: %w", point, err)
	}
	fd, err := hook(id, t.objects.Programs[program].FD())
	if err != nil {
		return fmt.Errorf("attach to %s: %w", point, refused(err))
	}
	t.hooks = append(t.hooks, fd)
	return nil
}

// Start begins to see everything that the target does from now on. Watch says
// it.
func (t *Tracer) Start(target *proc.Target) error {
	t.target = target
	if err := t.iterate("own_level", func([]byte) error { return nil }); err != nil {
		return err
	}
	if t.o.Scope == Cgroup {
		if err := t.enterCgroup(target); err != nil {
			return err
		}
	}
	t.books = newBooks(t, target)
	return t.begin()
}

// Stats tells what tracing has seen and cost so far.
func (t *Tracer) Stats() Stats {
	s := Stats{Raw: t.raw, Why: t.why}
	if t.closed {
		return s
	}
	_ = t.objects.Variables["noted"].Get(&s.Events)
	_ = t.objects.Variables["dropped"].Get(&s.Dropped)
	if t.books != nil {
		s.Processes = int(t.books.seen.Load())
		s.CPU = time.Duration(t.books.cpu.Load())
	}
	return s
}

// Close detaches from the kernel. It may be called twice. With raw tracepoints
// it takes 2 ms; without, seconds, since the kernel waits 20 to 60 ms for each
// of some 115 tracepoints of single calls. The target does not wait.
func (t *Tracer) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	var errs []error
	for _, l := range t.links {
		errs = append(errs, l.Close())
	}
	for _, fd := range t.hooks {
		errs = append(errs, unix.Close(fd))
	}
	if t.reader != nil {
		errs = append(errs, t.reader.Close())
	}
	if t.objects != nil {
		t.objects.Close()
	}
	return errors.Join(errs...)
}

// Available reports whether Load would do, without leaving anything behind.
func Available() error {
	t, err := Load(Options{RingBytes: 1 << 16, Raw: true})
	if err != nil {
		return err
	}
	return t.Close()
}

func bootNow() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail with a valid pointer
	return uint64(ts.Nano())
}

// clockTicks is USER_HZ, in which /proc tells when a process began: 100 on
// x86-64.
const clockTicks = 100

func startTicks(ns uint64) uint64 { return ns / (1e9 / clockTicks) }
