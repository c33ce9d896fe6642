package symbol

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// waiter is a running testdata/waits.c.
type waiter struct {
	target                    *proc.Target
	initialised, hidden, wide leak.Addr
	exported                  leak.Addr
}

// start runs a program and waits until it has said where its things are. It
// ends with the test.
func start(t *testing.T, cmd *exec.Cmd) *waiter {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // that it has ended shows in Wait
		if err := cmd.Wait(); err != nil {
			t.Logf("%v: %v", cmd.Args, err)
		}
	})
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	w := &waiter{}
	if _, err := fmt.Sscanf(line, "ready %v %v %v %v", (*uint64)(&w.initialised), (*uint64)(&w.hidden), (*uint64)(&w.wide), (*uint64)(&w.exported)); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if w.target, err = proc.Default.Open(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return w
}

// place finds the mapping of an address.
func (w *waiter) place(t *testing.T, a leak.Addr) (leak.Mapping, leak.Frame) {
	t.Helper()
	maps, err := w.target.Maps()
	if err != nil {
		t.Fatal(err)
	}
	var said atlasMap
	atlas := leak.NewAtlas(&said, w.target.BuildID)
	atlas.Update(maps)
	f := atlas.Frame(a)
	if f.Map == 0 {
		t.Fatalf("nothing is mapped at %v", a)
	}
	return said.Mapping, f
}

// atlasMap keeps the mapping that an atlas names.
type atlasMap struct {
	leak.Ignore
	leak.Mapping
}

func (s *atlasMap) Map(m leak.Mapping) { s.Mapping = m }

// checkNames asks for the things of w.
func checkNames(t *testing.T, s *Symbolizer, w *waiter, lines bool) {
	t.Helper()
	m, f := w.place(t, w.exported)
	got := s.Frames(m, f)
	if len(got) != 1 || got[0].Function != "exported" || lines != strings.HasSuffix(got[0].File, "/testdata/waits.c") || lines && got[0].Line != 14 {
		t.Errorf("exported is named %v; notes %q", got, s.Notes())
	}
	for want, a := range map[string]leak.Addr{"initialised": w.initialised, "hidden_counter": w.hidden, "wide": w.wide} {
		m, f := w.place(t, a)
		name, delta, ok := s.Object(m, f.Off)
		if !ok || name != want || delta != map[string]uint64{"wide": 4096*8 + 5}[want] {
			t.Errorf("%s is named %s+%d %v", want, name, delta, ok)
		}
	}
}

func TestLive(t *testing.T) {
	for _, flags := range [][]string{{"-g"}, {"-g", "-no-pie"}, {"-g", "-static"}} {
		exe := compile(t, []string{"waits.c"}, flags...)
		w := start(t, exec.Command(exe))
		checkNames(t, symbolizer(t, Options{Target: w.target}), w, true)

		if os.Getuid() != 0 {
			continue // map_files needs CAP_CHECKPOINT_RESTORE
		}
		// Deleted while it runs, and another program in its place.
		if err := os.Remove(exe); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(exe, b, 0o755); err != nil {
			t.Fatal(err)
		}
		checkNames(t, symbolizer(t, Options{Target: w.target}), w, true)
	}
}

// TestChangedFile has names only for the file that was mapped.
func TestChangedFile(t *testing.T) {
	exe := compile(t, []string{"waits.c"}, "-g")
	w := start(t, exec.Command(exe))
	m, f := w.place(t, w.exported)

	other := compile(t, []string{"waits.c"}, "-g", "-O2")
	s := symbolizer(t, Options{Target: w.target, Open: func(*leak.Mapping) (*os.File, error) { return os.Open(other) }})
	if got := s.Frames(m, f); got[0].Function != "exported" {
		t.Errorf("the file itself was not found: %v", got)
	}

	moved := m
	moved.Path = other
	s = symbolizer(t, Options{Target: w.target, Open: func(*leak.Mapping) (*os.File, error) { return os.Open(other) }})
	got := s.Frames(moved, f)
	if len(got) != 1 || got[0].Function != "" || got[0].File != "" || got[0].Module != "prog" || got[0].Offset != f.Off || got[0].BuildID != m.BuildID {
		t.Errorf("a changed file gives names: %v", got)
	}
	if _, _, ok := s.Object(moved, f.Off); ok {
		t.Error("a changed file gives variables")
	}
	if notes := s.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "no names in prog: "+other+" changed since it was mapped") {
		t.Errorf("notes: %q", notes)
	}

	// Offline: by build-id, else by device and inode, else not at all.
	s = symbolizer(t, Options{})
	if got := s.Frames(m, f); got[0].Function != "exported" || got[0].Line != 14 {
		t.Errorf("offline: %v", got)
	}
	m.BuildID = ""
	if got := symbolizer(t, Options{}).Frames(m, f); got[0].Function != "exported" {
		t.Errorf("by inode: %v", got)
	}
	m.Inode++
	s = symbolizer(t, Options{})
	if got := s.Frames(m, f); got[0].Function != "" {
		t.Errorf("another inode gives names: %v", got)
	}
	if notes := s.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "cannot be told to be what was mapped") {
		t.Errorf("notes: %q", notes)
	}
}

// TestOtherRoot looks at a process whose files stanch does not see.
func TestOtherRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	exe := compile(t, []string{"waits.c"}, "-g", "-static")
	debug := strip(t, exe)
	dir := t.TempDir()
	var inside string
	{
		o, err := openObject(hostTree{}, exe, newBlockCache(1))
		if err != nil {
			t.Fatal(err)
		}
		inside = byBuildID(filepath.Join(dir, "usr/lib/debug"), o.buildID)
		o.close()
	}
	// The tmpfs is mounted in the child's namespace only.
	script := `mount -t tmpfs none "$1" && mkdir -p "$1/bin" "$(dirname "$4")" && cp "$2" "$1/bin/prog" && cp "$3" "$4" && exec chroot "$1" /bin/prog`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", dir, exe, debug, inside)
	if err := exec.Command("unshare", "-m", "true").Run(); err != nil {
		t.Skipf("no mount namespaces here: %v", err)
	}
	w := start(t, cmd)
	if _, err := os.Stat(filepath.Join(dir, "bin/prog")); err == nil {
		t.Fatal("the program can be seen from here")
	}
	checkNames(t, symbolizer(t, Options{Target: w.target}), w, true)
}

func TestVDSO(t *testing.T) {
	self, err := proc.Default.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	maps, err := self.Maps()
	if err != nil {
		t.Fatal(err)
	}
	s := symbolizer(t, Options{Target: self})
	for i := range maps {
		if maps[i].Path != "[vdso]" {
			continue
		}
		for a := maps[i].Start; a < maps[i].End; a += 4 {
			if got := s.Frames(maps[i], maps[i].Frame(a)); got[0].Function == "clock_gettime" && got[0].Module == "[vdso]" {
				if notes := s.Notes(); len(notes) > 0 {
					t.Errorf("notes: %q", notes)
				}
				return
			}
		}
		t.Fatal("no clock_gettime in [vdso]")
	}
	t.Skip("no [vdso] here")
}

func TestPerfMap(t *testing.T) {
	self, err := proc.Default.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	code, err := syscall.Mmap(-1, 0, 8192, syscall.PROT_READ|syscall.PROT_EXEC, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skipf("no executable memory: %v", err)
	}
	defer func() { _ = syscall.Munmap(code) }()
	_, inner, err := idents(self)
	if err != nil {
		t.Fatal(err)
	}
	at := addressOf(code)
	maps, err := self.Maps()
	if err != nil {
		t.Fatal(err)
	}
	m := *proc.Find(maps, at+0x20)
	ask := func(s *Symbolizer) leak.StackFrame { return s.Frames(m, m.Frame(at+0x20))[0] }

	s := symbolizer(t, Options{Target: self})
	if got := ask(s); got.Function != "" || got.Module != "[anonymous]" {
		t.Errorf("without a map: %v", got)
	}
	p := fmt.Sprintf("/tmp/perf-%d.map", inner)
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(p, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = io.WriteString(f, text)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Remove(p) })
	write(fmt.Sprintf("%x 10 LazyCompile:*before /a.js:1\n", uint64(at)))
	if got := ask(s); got.Function != "" {
		t.Errorf("beside a function: %v", got)
	}
	write(fmt.Sprintf("not a line\n0x%x 0x30 LazyCompile:*get /a.js:7\n", uint64(at+0x10)))
	if got := ask(s); got.Function != "LazyCompile:*get /a.js:7" {
		t.Errorf("with a map: %v", got)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(p, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if got := ask(symbolizer(t, Options{Target: self})); got.Function != "" {
			t.Errorf("a map of another user: %v", got)
		}
	}
	if err := os.Rename(p, p+".real"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(p + ".real") })
	if err := os.Chown(p+".real", os.Getuid(), -1); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p+".real", p); err != nil {
		t.Fatal(err)
	}
	if got := ask(symbolizer(t, Options{Target: self})); got.Function != "" {
		t.Errorf("a map behind a link: %v", got)
	}
}
