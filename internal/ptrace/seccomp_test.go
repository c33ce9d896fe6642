package ptrace

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// TestSeccomp gives a target filters and looks at what is refused. A call that
// was wrongly allowed would kill it.
func TestSeccomp(t *testing.T) {
	const errnoPerm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, c := range []struct {
		name   string
		nr     int
		action uint32
		fork   bool // a snapshot is possible
	}{
		{"other call", unix.SYS_PTRACE, unix.SECCOMP_RET_KILL_PROCESS, true},
		{"clone kills", unix.SYS_CLONE, unix.SECCOMP_RET_KILL_PROCESS, false},
		{"clone fails", unix.SYS_CLONE, errnoPerm, false},
		{"clone traps", unix.SYS_CLONE, unix.SECCOMP_RET_TRAP, false},
		{"clone traced", unix.SYS_CLONE, unix.SECCOMP_RET_TRACE, false},
		{"clone logged", unix.SYS_CLONE, unix.SECCOMP_RET_LOG, true},
		{"wait4 kills", unix.SYS_WAIT4, unix.SECCOMP_RET_KILL_THREAD, false},
		{"sigprocmask kills", unix.SYS_RT_SIGPROCMASK, unix.SECCOMP_RET_KILL_PROCESS, false},
		{"sigpending kills", unix.SYS_RT_SIGPENDING, unix.SECCOMP_RET_KILL_PROCESS, true},
		{"exit_group kills", unix.SYS_EXIT_GROUP, unix.SECCOMP_RET_KILL_PROCESS, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launch(t, build(t, "deeds"))
			tid := number(t, s.ask("epoll"))
			s.fds = s.count(t)
			if got := s.ask(fmt.Sprintf("filter %d %d", c.nr, c.action)); got != "filter 0" {
				t.Fatal(got)
			}
			if got := s.ask(fmt.Sprintf("filter %d %d", unix.SYS_REBOOT, unix.SECCOMP_RET_KILL_PROCESS)); got != "filter 0" {
				t.Fatal(got)
			}
			stop := s.hold()
			stop.prefer = tid
			allowed := stop.Allowed(Syscall{Nr: unix.SYS_GETPID}, Syscall{Nr: uint64(c.nr)})
			if needed := c.nr == unix.SYS_RT_SIGPENDING; (allowed == nil) != (c.action == unix.SECCOMP_RET_LOG) && !needed {
				t.Errorf("allowed: %v", allowed)
			}
			if _, err := stop.Call(uint64(c.nr), 1<<62, 1<<62, 1<<62, 1<<62); !errors.Is(err, proc.ErrUnsupported) {
				t.Errorf("call: %v", err)
			}
			snap, err := stop.Snapshot(SnapshotOptions{})
			if (err == nil) != c.fork || err != nil && !errors.Is(err, ErrNoFork) {
				t.Errorf("snapshot: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "seccomp") {
				t.Errorf("snapshot is refused for another reason: %v", err)
			}
			if snap != nil {
				if err := snap.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := stop.Release(); err != nil {
				t.Error(err)
			}
			if c.nr != unix.SYS_EXIT_GROUP {
				s.check()
			}
		})
	}
}

// TestStrictSeccomp leaves a target in strict mode alone.
func TestStrictSeccomp(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	s.ask("strict")
	eventually(t, "strict mode", func() bool { st, err := s.Status(); return err == nil && st.Seccomp == 1 })
	p, err := Preflight(s.Target, Options{})
	if err != nil || p.Fork || len(p.Refusals) == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	stop := s.hold()
	if _, err := stop.Snapshot(SnapshotOptions{}); !errors.Is(err, ErrNoFork) || !strings.Contains(err.Error(), "strict") {
		t.Errorf("snapshot: %v", err)
	}
	if err := stop.Release(); err != nil {
		t.Error(err)
	}
	s.clean()
}

// TestNoFork has targets that a fork would disturb for other reasons.
func TestNoFork(t *testing.T) {
	for _, c := range []struct{ deed, word string }{
		{"uffd", "userfaultfd"}, {"waitall", "waits for children"}, {"newpidns", "PID namespace"},
	} {
		s := launch(t, build(t, "deeds"))
		if got := s.ask(c.deed); strings.HasPrefix(got, "errno") {
			t.Logf("%s: %s", c.deed, got)
			continue
		}
		s.fds = s.count(t)
		eventually(t, "all threads wait", func() bool { return s.allIn("S") })
		stop := s.hold()
		if _, err := stop.Snapshot(SnapshotOptions{}); !errors.Is(err, ErrNoFork) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", c.deed, err)
		}
		if err := stop.Release(); err != nil {
			t.Error(err)
		}
		s.check()
	}
}

// TestForkThatWaits has a fork that does not return while all threads stand
// still, which outlook would have refused: the target gets away unharmed.
func TestForkThatWaits(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	if got := s.ask("uffd"); strings.HasPrefix(got, "errno") {
		t.Skip("userfaultfd with fork events: ", got)
	}
	s.fds = s.count(t)
	eventually(t, "all threads wait", func() bool { return s.allIn("S") })
	stop, err := Start(context.Background(), s.Target, Options{MaxPause: 100e6, StopWait: 5e9})
	if err != nil {
		t.Fatal(err)
	}
	stop.outlook.handler = nil
	if _, err := stop.Snapshot(SnapshotOptions{}); !errors.Is(err, ErrStuck) {
		t.Errorf("snapshot: %v", err)
	}
	if err := stop.Release(); err != nil {
		t.Error(err)
	}
	// Its reader has taken note of the fork, the fork has come to its end, and
	// the child that nobody holds has ended.
	if got := s.check(); got != "ok 0 0 1" {
		t.Error(got)
	}
}

// FuzzFilter runs filters that no kernel would have accepted, too.
func FuzzFilter(f *testing.F) {
	f.Add([]byte{0x20, 0, 0, 0, 4, 0, 0, 0, 0x15, 0, 1, 0, 0x3e, 0, 0, 0xc0, 6, 0, 0, 0, 0, 0, 0, 0x80, 6, 0, 0, 0, 0, 0, 0xff, 0x7f})
	f.Add([]byte{0x05, 0, 0, 0, 0xff, 0xff, 0, 0})
	f.Add([]byte{0x60, 0, 0, 0, 99, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var prog []instruction
		for ; len(b) >= 8; b = b[8:] {
			prog = append(prog, instruction{order.Uint16(b), b[2], b[3], order.Uint32(b[4:])})
		}
		v, err := verdict([][]instruction{prog}, &seccompData{nr: 1, arch: auditArch})
		if err == nil {
			_ = actionName(v)
		}
	})
}

// TestFilter evaluates programs with each kind of instruction.
func TestFilter(t *testing.T) {
	const allow, kill = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_KILL_PROCESS
	d := &seccompData{nr: 56, arch: auditArch, ip: 0x1122334455667788, args: [6]uint64{0xaabbccdd_00000011, 2, 3, 4, 5, 6}}
	ld := func(off uint32) instruction { return instruction{0x20, 0, 0, off} }
	ret := instruction{0x16, 0, 0, 0} // the accumulator
	for _, c := range []struct {
		name string
		prog []instruction
		want uint32
		bad  bool
	}{
		{"number", []instruction{ld(0), ret}, 56, false},
		{"architecture", []instruction{ld(4), ret}, auditArch, false},
		{"pointer low", []instruction{ld(8), ret}, 0x55667788, false},
		{"pointer high", []instruction{ld(12), ret}, 0x11223344, false},
		{"argument low", []instruction{ld(16), ret}, 0x11, false},
		{"argument high", []instruction{ld(20), ret}, 0xaabbccdd, false},
		{"last argument", []instruction{ld(56), ret}, 6, false},
		{"behind", []instruction{ld(64), ret}, 0, true},
		{"misaligned", []instruction{ld(2), ret}, 0, true},
		{"length", []instruction{{0x80, 0, 0, 0}, ret}, 64, false},
		{"scratch", []instruction{ld(0), {0x02, 0, 0, 3}, {0x00, 0, 0, 9}, {0x60, 0, 0, 3}, ret}, 56, false},
		{"index", []instruction{{0x01, 0, 0, 5}, {0x00, 0, 0, 7}, {0x0c, 0, 0, 0}, ret}, 12, false},
		{"swap", []instruction{{0x00, 0, 0, 7}, {0x07, 0, 0, 0}, {0x00, 0, 0, 1}, {0x87, 0, 0, 0}, ret}, 7, false},
		{"arithmetic", []instruction{{0x00, 0, 0, 100}, {0x14, 0, 0, 1}, {0x24, 0, 0, 3}, {0x34, 0, 0, 2}, {0x44, 0, 0, 1}, {0x54, 0, 0, 0xff}, {0xa4, 0, 0, 3}, {0x64, 0, 0, 4}, {0x74, 0, 0, 2}, ret}, ((((297/2)|1)&0xff ^ 3) << 4) >> 2, false},
		{"division by zero", []instruction{{0x34, 0, 0, 0}, ret}, 0, true},
		{"jumps", []instruction{ld(0), {0x15, 0, 3, 56}, {0x25, 2, 0, 56}, {0x35, 0, 1, 56}, {0x45, 1, 0, 8}, {0x06, 0, 0, kill}, {0x05, 0, 0, 1}, {0x06, 0, 0, kill}, {0x06, 0, 0, allow}}, allow, false},
		{"no end", []instruction{ld(0)}, 0, true},
	} {
		got, err := run(c.prog, d)
		if (err != nil) != c.bad || err == nil && got != c.want {
			t.Errorf("%s: %#x, %v; want %#x", c.name, got, err, c.want)
		}
	}
	one := func(v uint32) []instruction { return []instruction{{0x06, 0, 0, v}} }
	if v, _ := verdict([][]instruction{one(allow), one(unix.SECCOMP_RET_ERRNO | 1), one(unix.SECCOMP_RET_LOG)}, d); v != unix.SECCOMP_RET_ERRNO|1 {
		t.Errorf("most restrictive: %#x", v)
	}
	if v, _ := verdict([][]instruction{one(unix.SECCOMP_RET_ERRNO), one(kill), one(unix.SECCOMP_RET_TRAP)}, d); v != kill {
		t.Errorf("most restrictive: %#x", v)
	}
}

// FuzzPadding reads program headers of files that are none.
func FuzzPadding(f *testing.F) {
	f.Add([]byte("\x7fELF\x02"), uint64(4096))
	f.Fuzz(func(t *testing.T, b []byte, size uint64) {
		m := leak.Mapping{Start: 1 << 20, End: 1<<20 + leak.Addr(size%(1<<30))&^4095 + 4096, Read: true, Exec: true, Inode: 1, Path: "/x"}
		for _, p := range paddings([]leak.Mapping{m}, flat(b)) {
			if p.Start < m.Start || p.End > m.End || p.Start >= p.End {
				t.Errorf("padding %v outside of %v-%v", p, m.Start, m.End)
			}
		}
		_, _ = parseThreadStat(b)
	})
}

// flat is memory from 1 MiB on.
type flat []byte

func (m flat) ReadAt(p []byte, a leak.Addr) (int, error) {
	off := int64(a) - 1<<20
	if off < 0 || off >= int64(len(m)) {
		return 0, unix.EIO
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, unix.EIO
	}
	return n, nil
}
