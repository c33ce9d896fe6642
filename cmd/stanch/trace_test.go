package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/proc"
)

// traces are what anyone can see of a process from outside and what stanch
// must leave as it was.
type traces struct {
	descriptors map[string]int // how many of each class
	children    int
	maps        []string          // but for private anonymous memory, which the program itself maps and unmaps
	text        map[string][]byte // the machine code of each file, its padding included
	unsafe      int               // mappings that are writable and executable at once
	code        int               // anonymous executable mappings
	anonymous   uint64            // bytes of private anonymous memory that can be written
}

// look takes the traces of a process, and fails the test when it is traced or
// has a zombie.
func look(tb testing.TB, pid int) traces {
	tb.Helper()
	t := traces{descriptors: map[string]int{}, text: map[string][]byte{}}
	target, err := proc.Default.Open(pid)
	if err != nil {
		tb.Fatal(err)
	}
	fds, err := os.ReadDir(target.Path("fd"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink(target.Path("fd", fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		class, _, _ := strings.Cut(to, ":[") // the inodes of sockets and pipes may change
		t.descriptors[class]++
	}
	t.family(tb, target)
	t.memory(tb, target)
	return t
}

// settled takes the traces of a process that has just come to rest, once its
// descriptors do not change any more.
func settled(tb testing.TB, pid int) traces {
	tb.Helper()
	t := look(tb, pid)
	same := 0
	for deadline := time.Now().Add(limit); same < 5 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond) // between two looks, with a deadline
		next := look(tb, pid)
		if maps.Equal(t.descriptors, next.descriptors) {
			same++
		} else {
			same = 0
		}
		t = next
	}
	return t
}

// family looks at threads and children.
func (t *traces) family(tb testing.TB, target *proc.Target) {
	tb.Helper()
	tids, err := target.Threads()
	if err != nil {
		tb.Fatal(err)
	}
	for _, tid := range tids {
		task := target.Path("task", strconv.Itoa(tid))
		status, err := os.ReadFile(filepath.Join(task, "status"))
		if err != nil {
			continue // ended
		}
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, "TracerPid:"); ok && strings.TrimSpace(value) != "0" {
				tb.Errorf("thread %d of %d is traced by %s", tid, target.ID.PID, strings.TrimSpace(value))
			}
			if value, ok := strings.CutPrefix(line, "State:"); ok && strings.Contains(value, "tracing") {
				tb.Errorf("thread %d of %d stands still: %s", tid, target.ID.PID, strings.TrimSpace(value))
			}
		}
		children, err := os.ReadFile(filepath.Join(task, "children"))
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(children)) {
			t.children++
			stat, err := os.ReadFile(filepath.Join("/proc", word, "stat"))
			if err == nil && strings.Contains(string(stat), ") Z ") {
				tb.Errorf("%d has a zombie child: %s", target.ID.PID, stat)
			}
		}
	}
}

// memory looks at the map and at the code.
func (t *traces) memory(tb testing.TB, target *proc.Target) {
	tb.Helper()
	list, err := target.Maps()
	if err != nil {
		tb.Fatal(err)
	}
	mem, err := target.Mem()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = mem.Close() }() // it was only read
	for i := range list {
		m := &list[i]
		anonymous := m.Inode == 0 && !m.Shared && (m.Path == "" || m.Path == "[heap]" || strings.HasPrefix(m.Path, "[anon:"))
		switch {
		case m.Exec && m.Write:
			t.unsafe++
		case anonymous && m.Exec:
			t.code++
			continue
		case anonymous:
			if m.Write {
				t.anonymous += m.Size()
			}
			continue
		}
		t.maps = append(t.maps, fmt.Sprintf("%v-%v r=%v w=%v x=%v s=%v %s", m.Start, m.End, m.Read, m.Write, m.Exec, m.Shared, m.Path))
		if !m.Exec || m.Path == "[vsyscall]" {
			continue
		}
		b := make([]byte, m.Size())
		if n, err := mem.ReadAt(b, m.Start); err != nil {
			tb.Fatalf("read %s: %d of %d bytes: %v", m.Path, n, len(b), err)
		}
		t.text[fmt.Sprintf("%s at %v", m.Path, m.Start)] = b
	}
	slices.Sort(t.maps)
}

// untouched fails the test unless the process is as it was before: same
// descriptors, children, maps, machine code; at most one anonymous executable
// mapping more, the probe's quiet text; and no more memory than the program
// itself may have come to use.
func untouched(tb testing.TB, pid int, before traces) {
	tb.Helper()
	after := look(tb, pid)
	// Connections of the program's own may still be closing on a busy machine.
	for deadline := time.Now().Add(5 * time.Second); !maps.Equal(before.descriptors, after.descriptors) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond) // between two looks, with a deadline
		after = look(tb, pid)
	}
	if d := cmp.Diff(before.descriptors, after.descriptors); d != "" {
		tb.Errorf("descriptors of %d (-before +after):\n%s", pid, d)
	}
	if before.children != after.children {
		tb.Errorf("%d has %d children instead of %d", pid, after.children, before.children)
	}
	if d := cmp.Diff(before.maps, after.maps); d != "" {
		tb.Errorf("maps of %d (-before +after):\n%s", pid, d)
	}
	sameCode(tb, pid, before, after)
	const growth = 48 << 20 // arenas come and go; the probe's books are up to 64 MiB
	if after.anonymous > before.anonymous+growth {
		tb.Errorf("%d has %d MiB of anonymous memory, before %d MiB", pid, after.anonymous>>20, before.anonymous>>20)
	}
}

// sameCode fails the test unless the machine code is as it was, but for the
// quiet text that the probe may leave.
func sameCode(tb testing.TB, pid int, before, after traces) {
	tb.Helper()
	for _, where := range slices.Sorted(maps.Keys(before.text)) {
		was, is := before.text[where], after.text[where]
		if at := firstDifference(was, is); at >= 0 {
			end := min(at+32, len(was), len(is))
			tb.Errorf("the code of %d differs: %s, +%#x: % x, before % x", pid, where, at, is[min(at, end):end], was[min(at, end):end])
		}
	}
	if after.code > before.code+1 {
		tb.Errorf("%d has %d anonymous executable mappings, before %d; the probe may leave one", pid, after.code, before.code)
	}
	if after.unsafe > before.unsafe {
		tb.Errorf("%d has %d mappings that are writable and executable, before %d", pid, after.unsafe, before.unsafe)
	}
}

// firstDifference is the index at which two slices begin to differ, -1 when
// they do not.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
