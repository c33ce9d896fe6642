package probe

import (
	"debug/elf"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"stanch/internal/unwind"
)

// TestSites: of glibc, each system call that opens or closes descriptors is found
// wherever it stands, with the way to its caller.
func TestSites(t *testing.T) {
	f, err := os.Open("/lib/x86_64-linux-gnu/libc.so.6")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	table, err := unwind.Compile(f)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newSiteList(f, table)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range l.missed {
		t.Errorf("%s stands somewhere where it cannot be hooked", name)
	}
	file, err := elf.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	after, before := map[uint64]int{}, map[uint64]int{}
	for i := range l.sites {
		s := &l.sites[i]
		if s.after() {
			after[s.nr()]++
			if s.info>>wSiteCfaShift&(1<<wSiteCfaBits-1) == 0 && callName(s.nr()) != "" && doesOf(s.nr()) != wDoesBear {
				t.Errorf("%s at %#x: its caller is not known", callName(s.nr()), s.moved.at)
			}
		} else {
			before[s.nr()]++
		}
		b := make([]byte, 2)
		at := s.moved.end()
		if s.after() {
			at = s.moved.at - 2
		}
		if err := readVirtual(file, b, at); err != nil || b[0] != 0x0f || b[1] != 0x05 {
			t.Errorf("%s: no system call beside %#x", callName(s.nr()), s.moved.at)
		}
	}
	for _, nr := range []uint64{
		unix.SYS_OPENAT, unix.SYS_CREAT, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_PIPE2, unix.SYS_DUP,
		unix.SYS_DUP2, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_EPOLL_CREATE, unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2, unix.SYS_TIMERFD_CREATE,
		unix.SYS_SIGNALFD4, unix.SYS_INOTIFY_INIT, unix.SYS_INOTIFY_INIT1, unix.SYS_FANOTIFY_INIT, unix.SYS_MEMFD_CREATE, unix.SYS_PIDFD_OPEN,
		unix.SYS_PIDFD_GETFD, unix.SYS_RECVMSG, unix.SYS_RECVMMSG, unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_READV, unix.SYS_RECVFROM, wSiteAny,
	} {
		if after[nr] == 0 {
			t.Errorf("no place after call %d", nr)
		}
	}
	for _, nr := range []uint64{unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_DUP2, unix.SYS_DUP3, unix.SYS_CLONE, unix.SYS_CLONE3, unix.SYS_VFORK, wSiteAny} {
		if before[nr] == 0 {
			t.Errorf("no place before call %d", nr)
		}
	}
	t.Logf("%d places", len(l.sites))
}
