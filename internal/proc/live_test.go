package proc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
)

func TestHolderDescriptors(t *testing.T) {
	h := startHolder(t)
	fds, err := h.Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[int]FD{}
	for _, fd := range fds {
		kinds[fd.Num] = fd
	}
	classes := map[string]FDClass{"file": FDFile, "memfd": FDFile, "socket": FDSocket, "pipe": FDPipe, "net": FDOther}
	for name, num := range h.fd {
		want, listed := classes[name]
		if !listed {
			want = FDAnon
		}
		got := kinds[num]
		if name == "watching" {
			name = "eventpoll"
		}
		if got.Kind != name || got.Class != want {
			t.Errorf("descriptor %d is %v %q (%s), want %v %q", num, got.Class, got.Kind, got.Link, want, name)
		}
	}
	if kinds[h.fd["socket"]].Inode == 0 {
		t.Error("a socket has an inode number")
	}
	count, err := h.DescriptorCount()
	if err != nil || count != len(fds) {
		t.Errorf("DescriptorCount %d, %v; listed %d", count, err, len(fds))
	}
	c := CountFDs(fds)
	if c.Total != c.File+c.Socket+c.Pipe+c.Anon+c.Other || c.Socket != 2 || c.Kinds["eventpoll"] != 2 {
		t.Errorf("counts %+v", c)
	}
	watches, err := h.EpollWatches(fds)
	if err != nil || len(watches) != 1 {
		t.Fatalf("watches %+v, %v", watches, err)
	}
	if w := watches[0]; w.Data != 0x1234567890abcdef || w.FD != h.fd["eventfd"] || w.Epoll != h.fd["watching"] || w.Events&1 == 0 {
		t.Errorf("watch %+v", w)
	}
	if num, ok := h.fd["userfaultfd"]; ok {
		if info, err := h.FDInfo(num); err != nil || info.Userfaultfd&UFFDEventFork == 0 {
			t.Errorf("userfaultfd %+v, %v", info, err)
		}
	}
	if num, ok := h.fd["io_uring"]; ok {
		if info, err := h.FDInfo(num); err != nil || info.IOUring == nil || !info.IOUring.Known || info.IOUring.Queued != 0 {
			t.Errorf("io_uring %+v, %v", info, err)
		}
	}
	if _, err := h.FDInfo(9999); !errors.Is(err, ErrGone) {
		t.Errorf("a closed descriptor gives %v", err)
	}
}

func TestHolderTimers(t *testing.T) {
	h := startHolder(t)
	timers, err := h.Timers()
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil || len(timers) != 1 {
		t.Fatalf("%+v, %v", timers, err)
	}
	if x := timers[0]; leak.Addr(x.Value) != h.at["bss"] || x.Signal != 12 || x.Clock != 1 {
		t.Errorf("%+v, want a pointer to %v", x, h.at["bss"])
	}
}

func TestHolderStatus(t *testing.T) {
	h := startHolder(t)
	s, err := h.Status()
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "holder" || s.Tgid != h.ID.PID || s.PPID != os.Getpid() || s.Threads != 2 || s.TracerPID != 0 || s.UID[0] != os.Getuid() {
		t.Errorf("%+v", s)
	}
	if s.RSSAnon < 5<<20 || s.VMRSS < s.RSSAnon || s.VMSize < s.VMRSS || s.VMPTE == 0 || s.VMData < 5<<20 {
		t.Errorf("sizes %+v", s)
	}
	tids, err := h.Threads()
	if err != nil || len(tids) != 2 || tids[0] != h.ID.PID {
		t.Fatalf("threads %v, %v", tids, err)
	}
	if ts, err := h.ThreadStatus(tids[1]); err != nil || ts.PID != tids[1] || ts.Tgid != h.ID.PID {
		t.Errorf("%+v, %v", ts, err)
	}
	if up := h.Uptime(); up < 0 || up > time.Minute {
		t.Errorf("up %v", up)
	}
	self, err := Default.Self()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err1 := h.Namespaces()
	ours, err2 := self.Namespaces()
	if err1 != nil || err2 != nil || theirs != ours || ours.Mount == 0 || ours.Net == 0 {
		t.Errorf("namespaces %+v, %+v, %v, %v", theirs, ours, err1, err2)
	}
	l, err := h.Limits()
	if err != nil || l.NOFILE.Soft == 0 || l.NOFILE.Hard < l.NOFILE.Soft {
		t.Errorf("limits %+v, %v", l, err)
	}
}

func TestHolderUsage(t *testing.T) {
	h := startHolder(t)
	maps, err := h.Smaps()
	if err != nil {
		t.Fatal(err)
	}
	var sum uint64
	var dontFork bool
	for i := range maps {
		sum += maps[i].Anonymous
		if maps[i].Contains(h.at["big"]) {
			dontFork = maps[i].DontFork()
			if maps[i].RSS != maps[i].Size() {
				t.Errorf("%d of %d bytes resident", maps[i].RSS, maps[i].Size())
			}
		}
	}
	if !dontFork {
		t.Error("MADV_DONTFORK is not seen")
	}
	all, err := h.Rollup()
	if err != nil || all.Anonymous > sum+1<<20 || sum > all.Anonymous+1<<20 || all.RSS == 0 {
		t.Errorf("rollup %+v, %v; sum of smaps %d", all, err, sum)
	}
}

func TestOpenFileAndBuildID(t *testing.T) {
	dir := t.TempDir()
	exe := filepath.Join(dir, "program")
	copyFile(t, build(t, "holder.c"), exe)
	h := startProgram(t, dir, exe)
	find := func() *leak.Mapping {
		maps, err := h.Maps()
		if err != nil {
			t.Fatal(err)
		}
		return Find(maps, h.at["main"])
	}
	m := find()
	if m == nil || m.Path != exe || !m.Exec {
		t.Fatalf("main is in %+v", m)
	}
	id := h.BuildID(m)
	if len(id) != 40 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("build-id %q", id)
	}
	// Another file takes the name: the old one is still to be had.
	if err := os.Rename(exe, exe+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, []byte("something else"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := h.OpenFile(m)
	if errors.Is(err, ErrDenied) {
		wantRefusal(t, err, ErrDenied, "CAP_CHECKPOINT_RESTORE")
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := h.BuildID(m); got != id {
		t.Errorf("renamed: %q", got)
	}
	if err := os.Remove(exe + ".old"); err != nil {
		t.Fatal(err)
	}
	m = find()
	if !m.Deleted || m.Path != exe+".old" {
		t.Errorf("after the unlink: %+v", m)
	}
	if got := h.BuildID(m); got != id {
		t.Errorf("deleted: %q", got)
	}
	if _, deleted, err := h.Exe(); err != nil || !deleted {
		t.Errorf("Exe: deleted %v, %v", deleted, err)
	}
	if _, err := h.OpenFile(&leak.Mapping{Path: "[heap]"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("[heap]: %v", err)
	}
	h.kill()
	if _, err := h.OpenFile(m); !errors.Is(err, ErrGone) {
		t.Errorf("after its end: %v", err)
	}
}

func TestVDSOBuildID(t *testing.T) {
	h := startHolder(t)
	maps, err := h.Maps()
	if err != nil {
		t.Fatal(err)
	}
	for i := range maps {
		if maps[i].Path == "[vdso]" {
			if id := h.BuildID(&maps[i]); len(id) != 40 {
				t.Errorf("build-id of the vdso: %q", id)
			}
			return
		}
	}
	t.Skip("no vdso")
}

func TestExecID(t *testing.T) {
	exe := build(t, "holder.c")
	// The shell waits for a line, then turns into the program.
	h := startProgram(t, t.TempDir(), "/bin/sh", "-c", "echo ready; exec "+exe)
	eventually(t, "the shell executes the program", func() bool {
		id, err := h.ExecID()
		if err != nil {
			t.Fatal(err)
		}
		path, _, err := h.Exe()
		return err == nil && path == exe && id.Stack != 0
	})
	a, err := h.ExecID()
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.ExecID()
	if err != nil || a != b {
		t.Errorf("%+v then %+v, %v", a, b, err)
	}
	other := startHolder(t)
	c, err := other.ExecID()
	if err != nil || a == c || a.Inode != c.Inode {
		t.Errorf("two runs of one program: %+v, %+v, %v", a, c, err)
	}
}

func TestGone(t *testing.T) {
	h := startHolder(t)
	h.kill()
	for name, call := range map[string]func() error{
		"Check":       h.Check,
		"Usable":      h.Usable,
		"Maps":        func() error { _, err := h.Maps(); return err },
		"Status":      func() error { _, err := h.Status(); return err },
		"Limits":      func() error { _, err := h.Limits(); return err },
		"Descriptors": func() error { _, err := h.Descriptors(); return err },
		"Count":       func() error { _, err := h.DescriptorCount(); return err },
		"Timers":      func() error { _, err := h.Timers(); return err },
		"Smaps":       func() error { _, err := h.Smaps(); return err },
		"Rollup":      func() error { _, err := h.Rollup(); return err },
		"Namespaces":  func() error { _, err := h.Namespaces(); return err },
		"Cgroup":      func() error { _, err := h.Cgroup(); return err },
		"Headroom":    func() error { _, err := h.Headroom(); return err },
		"ExecID":      func() error { _, err := h.ExecID(); return err },
		"Args":        func() error { _, err := h.Args(); return err },
		"Mem":         func() error { _, err := h.Mem(); return err },
		"Threads":     func() error { _, err := h.Threads(); return err },
	} {
		if err := call(); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMemoryHoles(t *testing.T) {
	h := startHolder(t)
	mem, err := h.Mem()
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, mem)
	buf := make([]byte, 22)
	if n, err := mem.ReadAt(buf, h.at["heap"]); err != nil || string(buf[:n]) != "a heap block of holder" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	maps, err := h.Maps()
	if err != nil {
		t.Fatal(err)
	}
	var last *leak.Mapping
	for i := range maps {
		if maps[i].Path == "[stack]" {
			last = &maps[i]
		}
	}
	big := make([]byte, 2*pageSize)
	if n, err := mem.ReadAt(big, last.End-pageSize); n != pageSize || err == nil {
		t.Errorf("a read across the end of the stack gives %d bytes, %v", n, err)
	}
	if n, err := mem.ReadAt(buf, vsyscall); n != 0 || err == nil {
		t.Errorf("vsyscall: %d, %v", n, err)
	}
}
