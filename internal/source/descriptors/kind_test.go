package descriptors

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// self is the test itself as a target.
func self(t testing.TB) *proc.Target {
	t.Helper()
	target, err := proc.Default.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// opened closes num at the end of the test.
func opened(t *testing.T, num int, err error) int {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(num) }) // of this test alone
	return num
}

// TestKinds holds what is said of each sort of descriptor but sockets.
func TestKinds(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 4321), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(num int, err error) int { return opened(t, num, err) }
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[int]leak.Descriptor{}
	add := func(num int, d leak.Descriptor) {
		d.Num = num
		want[num] = d
	}

	plain := file("plain")
	add(must(unix.Open(plain, unix.O_RDONLY, 0)), leak.Descriptor{Kind: "file", Name: plain, Access: "r", Size: 4321})
	add(must(unix.Open(plain, unix.O_WRONLY|unix.O_CLOEXEC, 0)), leak.Descriptor{Kind: "file", Name: plain, Access: "w", Size: 4321, CloseOnExec: true})
	add(must(unix.Open(plain, unix.O_PATH|unix.O_CLOEXEC, 0)), leak.Descriptor{Kind: "file", Name: plain, Size: 4321, CloseOnExec: true})

	lost := file("lost")
	add(must(unix.Open(lost, unix.O_RDWR|unix.O_CLOEXEC, 0)), leak.Descriptor{Kind: "file", Name: lost, Access: "rw", Size: 4321, CloseOnExec: true, Deleted: true})
	check(os.Remove(lost))
	linked := file("linked")
	check(os.Link(linked, linked+" too"))
	add(must(unix.Open(linked, unix.O_RDONLY, 0)), leak.Descriptor{Kind: "file", Name: linked, Access: "r", Size: 4321, Deleted: true})
	check(os.Remove(linked))
	odd := file("odd (deleted)")
	add(must(unix.Open(odd, unix.O_RDONLY, 0)), leak.Descriptor{Kind: "file", Name: odd, Access: "r", Size: 4321})

	add(must(unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)), leak.Descriptor{Kind: "directory", Name: dir, Access: "r"})
	add(must(unix.Open("/dev/zero", unix.O_RDWR, 0)), leak.Descriptor{Kind: "device", Name: "/dev/zero", Access: "rw"})
	fifo := filepath.Join(dir, "fifo")
	check(unix.Mkfifo(fifo, 0o600))
	add(must(unix.Open(fifo, unix.O_RDWR|unix.O_NONBLOCK, 0)), leak.Descriptor{Kind: "fifo", Name: fifo, Access: "rw"})
	memory := must(unix.MemfdCreate("buffers", 0))
	check(unix.Ftruncate(memory, 1<<20))
	add(memory, leak.Descriptor{Kind: "memfd", Name: "/memfd:buffers", Access: "rw", Size: 1 << 20})

	anon := func(num int, err error, kind, link string) {
		add(must(num, err), leak.Descriptor{Kind: kind, Name: link, Access: "rw", CloseOnExec: true})
	}
	num, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	anon(num, err, "eventpoll", "anon_inode:[eventpoll]")
	num, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	anon(num, err, "eventfd", "anon_inode:[eventfd]")
	num, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	anon(num, err, "timerfd", "anon_inode:[timerfd]")
	num, err = unix.Signalfd(-1, &unix.Sigset_t{}, unix.SFD_CLOEXEC)
	anon(num, err, "signalfd", "anon_inode:[signalfd]")
	num, err = unix.PidfdOpen(os.Getpid(), 0)
	anon(num, err, "pidfd", "anon_inode:[pidfd]")
	add(must(unix.InotifyInit1(unix.IN_CLOEXEC)), leak.Descriptor{Kind: "inotify", Name: "anon_inode:inotify", Access: "r", CloseOnExec: true})
	namespace, err := os.Readlink("/proc/self/ns/uts")
	check(err)
	add(must(unix.Open("/proc/self/ns/uts", unix.O_RDONLY, 0)), leak.Descriptor{Kind: "uts", Name: namespace, Access: "r"})

	found := scan(t, self(t)).open()
	for num, d := range want {
		got := found[num]
		if (got.Inode == 0) != (d.Access == "rw" && d.CloseOnExec && d.Size == 0 || d.Kind == "inotify") {
			t.Errorf("%s: inode %d", d.Name, got.Inode)
		}
		var st unix.Stat_t
		if err := unix.Fstat(num, &st); err != nil || got.Dev != 0 && (got.Dev != st.Dev || got.Inode != st.Ino) {
			t.Errorf("%s: device %d, inode %d, want %d, %d", d.Name, got.Dev, got.Inode, st.Dev, st.Ino)
		}
		got.Inode, got.Dev = 0, 0
		if got != d {
			t.Errorf("%+v\nwant %+v", got, d)
		}
		if phrase := Source(self(t), num); d.Kind != "file" && phrase != d.Name && phrase != d.Kind && phrase != "memfd buffers" {
			t.Errorf("%s in a phrase is %q", d.Name, phrase)
		}
	}
}

// TestNothingStays holds that a look leaves no descriptor behind in stanch, and
// changes none of the target's.
func TestNothingStays(t *testing.T) {
	scan(t, self(t)) // the runtime's own
	count := func() int {
		n, err := self(t).DescriptorCount()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	for range 5 {
		scan(t, self(t))
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

// TestEpollIsLeftAlone holds that a program that watches thousands of
// descriptors is not kept from its work to learn one flag, and that this is
// said.
func TestEpollIsLeftAlone(t *testing.T) {
	num, err := unix.EpollCreate1(0)
	epoll := opened(t, num, err)
	for range 1100 {
		num, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		opened(t, num, err)
	}
	s := scan(t, self(t))
	want := leak.Descriptor{Num: epoll, Kind: "eventpoll", Name: "anon_inode:[eventpoll]", Access: "rw", CloseOnExec: true}
	if got := s.open()[epoll]; got != want || len(s.Gaps) != 1 {
		t.Errorf("%+v, gaps %+v", got, s.Gaps)
	}
}

// TestMany holds that each of 100,000 descriptors is listed, as far as the
// machine allows so many.
func TestMany(t *testing.T) {
	var made int
	target := play(t, &made, nil, "many", "100000", "mixed")
	start := time.Now()
	s := scan(t, target)
	t.Logf("%d descriptors in %v", made, time.Since(start).Round(time.Millisecond))
	kinds := map[string]int{}
	for _, d := range s.open() {
		kinds[d.Kind]++
		if d.Kind == "socket" && (d.Socket == nil || d.Socket.Protocol != "unix stream" || d.Socket.State != "CLOSE") {
			t.Fatalf("%+v", d)
		}
	}
	if kinds["socket"] != (made+2)/3 || kinds["file"] < (made+1)/3 || kinds["eventfd"] < made/3 {
		t.Errorf("of %d: %v", made, kinds)
	}
	if u := s.usage(leak.UsageDescriptors, ""); u.Used < uint64(made) || u.Max < u.Used || u.Hard != u.Max {
		t.Errorf("%+v", u)
	}
}

// BenchmarkScan looks at a process with as many descriptors as the machine
// allows, 100,000 at most.
func BenchmarkScan(b *testing.B) {
	for _, kind := range []string{"mixed", "tcp"} {
		b.Run(kind, func(b *testing.B) {
			var made int
			target := play(b, &made, apart, "many", "100000", kind)
			before := cpu(b)
			for b.Loop() {
				if err := (&Lister{Clock: proc.NewClock()}).Scan(context.Background(), target, leak.Ignore{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(made), "ns/descriptor")
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N)/float64(made), "cpu-ns/descriptor")
		})
	}
}

// cpu is the processor time this process has used.
func cpu(t testing.TB) time.Duration {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
