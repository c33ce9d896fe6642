package proc

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// gcore lets gdb write a core of a live process.
func gcore(t *testing.T, h *holder) string {
	t.Helper()
	tool, err := exec.LookPath("gcore")
	if err != nil {
		t.Skip("needs gcore: apt-get install gdb")
	}
	prefix := filepath.Join(t.TempDir(), "core")
	if out, err := exec.Command(tool, "-o", prefix, fmt.Sprint(h.ID.PID)).CombinedOutput(); err != nil {
		t.Fatalf("gcore: %v\n%s", err, out)
	}
	return fmt.Sprintf("%s.%d", prefix, h.ID.PID)
}

// kernelCore starts a program that may dump, gives it to look at, and lets the
// kernel dump it.
func kernelCore(t *testing.T, dir, exe string, look func(*holder)) string {
	t.Helper()
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || strings.TrimSpace(string(pattern)) != "core" {
		t.Skipf("kernel.core_pattern is %q: cores do not come to a file here", bytes.TrimSpace(pattern))
	}
	h := startProgram(t, dir, "/bin/sh", "-c", "ulimit -c unlimited && exec "+exe)
	look(h)
	if err := unix.Kill(h.ID.PID, unix.SIGABRT); err != nil {
		t.Fatal(err)
	}
	h.wait()
	for _, name := range []string{"core", fmt.Sprintf("core.%d", h.ID.PID)} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	t.Skip("the kernel wrote no core (a hard limit?)")
	return ""
}

func openCore(t *testing.T, path string) *Core {
	t.Helper()
	c, err := OpenCore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closing(t, c)
		closing(t, c) // twice does no harm
	})
	return c
}

// readString reads the bytes of want's length at a.
func readString(mem leak.Memory, a leak.Addr, want string) string {
	b := make([]byte, len(want))
	n, _ := mem.ReadAt(b, a)
	return string(b[:n])
}

// checkCore holds a core against what was known of the process.
func checkCore(t *testing.T, c *Core, at map[string]leak.Addr, live []leak.Mapping, pid int) {
	t.Helper()
	for what, want := range map[string]string{
		"data": "initialized data of holder", "text": "read-only data of holder", "bss": "zeroed data of holder",
		"heap": "a heap block of holder", "big": strings.Repeat("Z", 8192), "stack": "a stack variable of holder",
	} {
		if got := readString(c, at[what], want); got != want {
			t.Errorf("%s at %v is %q", what, at[what], got)
		}
	}
	// Machine code is in the file, not in the core.
	if code := readString(c, at["main"], "0123456789abcdef"); len(code) != 16 {
		t.Errorf("code of main: %x", code)
	}
	if c.PID != pid || c.Comm != "holder" || !strings.HasSuffix(c.Args, "holder") || c.PPID == 0 {
		t.Errorf("pid %d, ppid %d, comm %q, args %q", c.PID, c.PPID, c.Comm, c.Args)
	}
	threads := c.Threads()
	if len(threads) != 2 || !slices.ContainsFunc(threads, func(x CoreThread) bool { return x.TID == pid }) {
		t.Fatalf("threads %+v", threads)
	}
	for _, x := range threads {
		m := Find(c.Maps(), leak.Addr(x.Regs.Rip))
		if m == nil || !m.Exec || !strings.Contains(m.Path, "libc") || x.Regs.Fs_base == 0 || Find(c.Maps(), leak.Addr(x.Regs.Rsp)) == nil {
			t.Errorf("thread %d at %#x in %+v, stack %#x, fs %#x", x.TID, x.Regs.Rip, m, x.Regs.Rsp, x.Regs.Fs_base)
		}
	}
	if random, ok := c.Aux(AuxRandom); !ok || Find(c.Maps(), leak.Addr(random)).Path != "[stack]" {
		t.Error("AT_RANDOM is not on the stack")
	}
	compareMaps(t, c, live, at["hidden"])
}

// compareMaps holds the core's mappings against those of the live process.
func compareMaps(t *testing.T, c *Core, live []leak.Mapping, hidden leak.Addr) {
	t.Helper()
	for _, want := range live {
		got := Find(c.Maps(), want.Start)
		switch {
		case strings.HasPrefix(want.Path, "[vvar") || want.Path == "[vsyscall]":
			continue // the kernel's own; dumped without a name, or not at all
		case want.Path == "[heap]":
			want.Path = ""
		case !want.Read && !want.Write:
			continue // guard pages: gcore leaves them out
		case want.Contains(hidden):
			continue // and what asked not to be dumped
		}
		if got == nil {
			if want.Path == "" || want.File() && !want.Shared {
				t.Errorf("%v-%v %s is missing", want.Start, want.End, want.Path)
			}
			continue
		}
		// The kernel may split or gcore join anonymous mappings; files must agree.
		if !want.File() {
			if got.Path != want.Path {
				t.Errorf("%v is %q, want %q", want.Start, got.Path, want.Path)
			}
			continue
		}
		if got.Start != want.Start || got.End != want.End || got.Path != want.Path || got.Offset != want.Offset ||
			got.Read != want.Read || got.Write != want.Write || got.Exec != want.Exec || got.Inode == 0 {
			t.Errorf("mapping\n got %+v\nwant %+v", *got, want)
		}
	}
	if !slices.IsSortedFunc(c.Maps(), func(a, b leak.Mapping) int { return cmp.Compare(a.Start, b.Start) }) {
		t.Error("the mappings are not sorted")
	}
}

func TestGcore(t *testing.T) {
	h := startHolder(t)
	live, err := h.Maps()
	if err != nil {
		t.Fatal(err)
	}
	id := h.BuildID(Find(live, h.at["main"]))
	c := openCore(t, gcore(t, h))
	checkCore(t, c, h.at, live, h.ID.PID)
	if got := c.BuildID(Find(c.Maps(), h.at["main"])); got != id || id == "" {
		t.Errorf("build-id %q, want %q", got, id)
	}
	if notes := c.Notes(); len(notes) != 0 {
		t.Errorf("notes %q", notes)
	}
	// All of libc's text, compared with the live one's.
	mem, err := h.Mem()
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, mem)
	for _, m := range live {
		if !m.File() || m.Write || m.Shared {
			continue
		}
		want, got := make([]byte, m.Size()), make([]byte, m.Size())
		n, _ := mem.ReadAt(want, m.Start)
		k, err := c.ReadAt(got, m.Start)
		if k < n || !bytes.Equal(want[:n], got[:n]) {
			t.Errorf("%s at %v: %d of %d bytes, %v", m.Path, m.Start, k, n, err)
		}
	}
}

func TestKernelCore(t *testing.T) {
	dir := t.TempDir()
	var h *holder
	var live []leak.Mapping
	path := kernelCore(t, dir, build(t, "holder.c"), func(running *holder) {
		h = running
		var err error
		if live, err = h.Maps(); err != nil {
			t.Fatal(err)
		}
	})
	c := openCore(t, path)
	checkCore(t, c, h.at, live, h.ID.PID)
	if c.Signal != int(unix.SIGABRT) || c.Threads()[0].TID != h.ID.PID {
		t.Errorf("signal %d, first thread %d", c.Signal, c.Threads()[0].TID)
	}
	if got := readString(c, h.at["hidden"], "[["); got != "" {
		t.Errorf("MADV_DONTDUMP memory is there: %q", got)
	}
	// A read that runs from dumped memory into a hole stops at the hole.
	end := Find(c.Maps(), h.at["hidden"])
	buf := make([]byte, 3*pageSize)
	if n, err := c.ReadAt(buf, end.Start-pageSize); n > pageSize || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	whole := make([]byte, Find(c.Maps(), h.at["big"]).Size())
	if n, err := c.ReadAt(whole, Find(c.Maps(), h.at["big"]).Start); n != len(whole) || err != nil {
		t.Errorf("%d of %d bytes, %v", n, len(whole), err)
	}
}

// TestCoreChangedFile replaces the program after the dump: its text must not
// be taken from the new file.
func TestCoreChangedFile(t *testing.T) {
	dir := t.TempDir()
	exe := filepath.Join(dir, "program")
	copyFile(t, build(t, "holder.c"), exe)
	var at map[string]leak.Addr
	path := kernelCore(t, dir, exe, func(h *holder) { at = h.at })
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "/bin/true", exe)
	c := openCore(t, path)
	buf := make([]byte, 16)
	n, err := c.ReadAt(buf, at["main"])
	if n != 0 || err == nil || !strings.Contains(err.Error(), "build-id") {
		t.Errorf("%d bytes, %v", n, err)
	}
	notes := c.Notes()
	if len(notes) != 1 || !strings.Contains(notes[0], exe+" is not the file") {
		t.Errorf("notes %q", notes)
	}
	if f, err := c.OpenFile(Find(c.Maps(), at["main"])); err == nil {
		f.Close()
		t.Error("OpenFile gives the wrong file")
	}
	if got := readString(c, at["heap"], "a heap block of holder"); got != "a heap block of holder" {
		t.Errorf("heap %q", got)
	}
}

func TestOpenCoreRefusals(t *testing.T) {
	h := startHolder(t)
	good, err := os.ReadFile(gcore(t, h))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	le := binary.LittleEndian
	change := func(edit func([]byte)) []byte {
		b := slices.Clone(good)
		edit(b)
		return b
	}
	exe, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		words   string
	}{
		"cut":        {good[:len(good)*2/3], "truncated"},
		"cut early":  {good[:100], "truncated"},
		"cut header": {good[:30], "truncated"},
		"empty":      {nil, "empty"},
		"text":       {[]byte("this is not a core file, it is a line of text\n"), "not an ELF file"},
		"zstd":       {[]byte("\x28\xb5\x2f\xfd1234567890123456789012345"), "compressed"},
		"program":    {exe, "not a core file"},
		"aarch64":    {change(func(b []byte) { le.PutUint16(b[18:], 183) }), "aarch64"},
		"s390": {change(func(b []byte) {
			b[5] = 2
			binary.BigEndian.PutUint16(b[16:], 4)
			binary.BigEndian.PutUint16(b[18:], 22)
		}), "s390"},
		"i386":     {change(func(b []byte) { b[4] = 1; le.PutUint16(b[18:], 3) }), "386"},
		"x32":      {change(func(b []byte) { b[4] = 1 }), "32-bit"},
		"no notes": {change(func(b []byte) { noNotes(b) }), "no thread"},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		core, err := OpenCore(path)
		if err == nil {
			closing(t, core)
			t.Errorf("%s: accepted", name)
			continue
		}
		wantRefusal(t, err, ErrUnsupported, c.words, path)
	}
	if _, err := OpenCore(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := OpenCore(dir); !errors.Is(err, ErrUnsupported) {
		t.Errorf("directory: %v", err)
	}
}

// noNotes turns the note segments of a core into empty ones of no type.
func noNotes(b []byte) {
	le := binary.LittleEndian
	at := le.Uint64(b[32:])
	for i := range int(le.Uint16(b[56:])) {
		p := b[at+uint64(i)*elfPhdrSize:]
		if le.Uint32(p) == ptNote {
			le.PutUint32(p, 0)
		}
	}
}
