package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func openReader(t *testing.T, r Root) *Reader {
	t.Helper()
	reader, err := r.Reader()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	return reader
}

// TestReaderAgrees holds what is read without garbage against what is read
// otherwise, of all processes of the host.
func TestReaderAgrees(t *testing.T) {
	r := openReader(t, Default)
	pids, err := r.PIDs(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(pids, os.Getpid()) || !slices.IsSorted(pids) {
		t.Errorf("PIDs %v", pids)
	}
	compared := 0
	for _, pid := range pids {
		var p Pulse
		before, err1 := Default.stat(pid)
		err := r.Pulse(pid, &p)
		after, err2 := Default.stat(pid)
		if err1 != nil || err2 != nil || err != nil || before.Comm != after.Comm || before.PPID != after.PPID {
			continue // gone or changed meanwhile
		}
		comm, _, _ := strings.Cut(string(p.Comm[:]), "\x00")
		if p.Start != before.Start || p.PPID != before.PPID || !before.Kernel() && comm != before.Comm || p.Kernel() != before.Kernel() {
			t.Errorf("process %d: %+v, want %+v", pid, p, before)
		}
		if p.CPU < before.CPU() || p.CPU > after.CPU() {
			t.Errorf("process %d used %v, before %v, after %v", pid, p.CPU, before.CPU(), after.CPU())
		}
		compared++
	}
	if compared < 3 {
		t.Errorf("only %d processes were compared", compared)
	}
	h := startHolder(t)
	n, ok, err := r.Descriptors(h.ID.PID)
	listed := 0
	linked, err2 := r.Links(h.ID.PID, func(link []byte) {
		listed++
		if len(link) == 0 {
			t.Error("an empty link")
		}
	})
	if err != nil || err2 != nil || linked != listed || ok && n != linked || linked < 3 {
		t.Errorf("%d descriptors (known: %v, %v), %d linked, %d listed, %v", n, ok, err, linked, listed, err2)
	}
	if exe, err := r.Link(h.ID.PID, "exe"); err != nil || len(exe) == 0 {
		t.Errorf("exe %q, %v", exe, err)
	}
	var p Pulse
	status, err := h.Status()
	if err := errors.Join(err, r.Memory(h.ID.PID, &p)); err != nil || p.Virtual != status.VMSize || p.RSS == 0 || p.Anonymous > p.RSS {
		t.Errorf("%+v, %+v, %v", p, status, err)
	}
	pid := h.ID.PID
	h.kill()
	if err := r.Pulse(pid, &p); !errors.Is(err, ErrGone) {
		t.Errorf("of a process that is gone: %v", err)
	}
	if _, err := r.Links(pid, func([]byte) {}); !errors.Is(err, ErrGone) {
		t.Errorf("of a process that is gone: %v", err)
	}
}

func TestPulse(t *testing.T) {
	var p Pulse
	text := "4711 (a) (b c)) Z 17 4711 4711 0 -1 1077936384 100 5 9 6 77 23 1 2 20 0 1 0 123456 8192000 500\n"
	if err := p.parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	want := Pulse{State: 'Z', PPID: 17, Flags: 1077936384, Minor: 100, Major: 9, CPU: time.Second, Threads: 1, Start: 123456}
	copy(want.Comm[:], "a) (b c)")
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	if !p.Zombie() || p.Headless() || p.Kernel() {
		t.Error("a zombie is none")
	}
	p.Threads = 3
	if p.Zombie() || !p.Headless() {
		t.Error("a process whose first thread has ended is a zombie")
	}
	for _, text := range []string{"", "1 (x", "1 (x)", "1 (x) S", ") (", "1 (x) S 1 2 3"} {
		if err := p.parse([]byte(text)); err == nil {
			t.Errorf("%q is taken for a stat", text)
		}
	}
}

// TestReaderLongFiles reads what does not fit its buffer.
func TestReaderLongFiles(t *testing.T) {
	f := fakeProc{t, t.TempDir()}
	var want []string
	for i := range 5000 {
		want = append(want, fmt.Sprintf("%d %s", i, strings.Repeat("x", i%300)))
	}
	text := strings.Join(want, "\n")
	f.write("7/net/tcp", text) // the last line has no end
	f.write("7/empty", "")
	f.write("7/one", strings.Repeat("y", 100_000))
	r := openReader(t, Root(f.dir))
	var got []string
	if err := r.Lines(7, "net/tcp", func(line []byte) { got = append(got, string(line)) }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if b, err := r.File(7, "net/tcp"); err != nil || string(b) != text {
		t.Errorf("%d of %d bytes, %v", len(b), len(text), err)
	}
	if b, err := r.Host("7/one"); err != nil || len(bytes.Trim(b, "y")) != 0 || len(b) != 100_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	got = nil
	if err := r.Lines(7, "one", func(line []byte) { got = append(got, string(line)) }); err != nil || len(strings.Join(got, "")) != 100_000 {
		t.Errorf("a line of 100,000 bytes comes in %d pieces, %v", len(got), err)
	}
	if err := r.Lines(7, "empty", func([]byte) { t.Error("an empty file has a line") }); err != nil {
		t.Error(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}

// TestReaderLeavesNoGarbage reads a process again and again.
func TestReaderLeavesNoGarbage(t *testing.T) {
	r := openReader(t, Default)
	var p Pulse
	pid := os.Getpid()
	n := testing.AllocsPerRun(100, func() {
		if err := errors.Join(r.Pulse(pid, &p), r.Memory(pid, &p)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Descriptors(pid); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1 { // the one of errors.Join here
		t.Errorf("%v allocations", n)
	}
}

func FuzzPulse(f *testing.F) {
	f.Add([]byte("4711 (a) (b c)) S 1 4711 4711 0 -1 1077936384 100 0 0 0 77 23 0 0 20 0 5 0 123456 8192000 500\n"))
	f.Add([]byte("1 (x) "))
	f.Fuzz(func(_ *testing.T, text []byte) {
		var p Pulse
		if err := p.parse(text); err == nil {
			_ = p.Zombie()
		}
		pairs(text, func([]byte, uint64) {})
	})
}
