package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/record"
	"stanch/internal/render"
)

// profile reads what stanch record wrote with --format json.
func (o outcome) profile(tb testing.TB) *leak.Profile {
	tb.Helper()
	o.wantCode(tb, 0)
	p, err := render.ReadProfile(strings.NewReader(o.out))
	if err != nil {
		tb.Fatalf("no profile: %v\nstderr:\n%s\nstdout:\n%s", err, o.err, o.out)
	}
	return p
}

// recordWhile runs stanch record on p, without a limit on its cost, while p
// obeys the commands.
func recordWhile(t *testing.T, p *fixture.Proc, commands []string, args ...string) outcome {
	t.Helper()
	s := begin(t, append(append([]string{"record", roomy, "--max-overhead=100"}, args...), pid(p))...)
	s.await("recording ")
	for _, c := range commands {
		p.Ask(c, "ok")
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	return s.wait()
}

// sites gives a profile's sites by the functions that their stacks name first.
// A function that is a site from two callers is the sum of both.
func sites(p *leak.Profile) map[string]leak.ProfileCounts {
	out := map[string]leak.ProfileCounts{}
	plus := func(a, b leak.Amount) leak.Amount {
		return leak.Amount{Count: a.Count + b.Count, Bytes: a.Bytes + b.Bytes}
	}
	for i := range p.Sites {
		s := &p.Sites[i]
		name := s.Stack[s.Site].Function
		c := out[name]
		c.Held, c.Acquired, c.Released = plus(c.Held, s.Held), plus(c.Acquired, s.Acquired), plus(c.Released, s.Released)
		c.Estimated = c.Estimated || s.Estimated
		out[name] = c
	}
	return out
}

// wantSite fails the test unless the site acquired n blocks of size bytes, and
// gave back so many of them.
func wantSite(t *testing.T, got map[string]leak.ProfileCounts, name string, n, freed, size uint64) {
	t.Helper()
	want := leak.ProfileCounts{
		Held:     leak.Amount{Count: n - freed, Bytes: (n - freed) * size},
		Acquired: leak.Amount{Count: n, Bytes: n * size}, Released: leak.Amount{Count: freed, Bytes: freed * size},
	}
	if got[name] != want {
		t.Errorf("%s: %+v, want %+v", name, got[name], want)
	}
}

// TestRecordExact: every block counts, at its line, and the probe is gone
// after Ctrl-C.
func TestRecordExact(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "direct"))
	p.Ask("leak 16", "ok") // before the recording: unknown
	before := look(t, p.PID())
	o := recordWhile(t, p, []string{"leak 40", "leak 40", "keep 30", "free 20"}, "--mode", "exact", "--format", "json")
	profile := o.profile(t)
	got := sites(profile)
	wantSite(t, got, "lose_small", 20, 0, 64)
	wantSite(t, got, "lose_request", 20, 0, 400)
	wantSite(t, got, "lose_page", 20, 0, 5000)
	wantSite(t, got, "lose_name", 20, 0, 31)
	// 80 blocks make 10 neighbours of 64 bytes, and 5 times 3 of 200 that are
	// freed again; then 30 more are kept and 20 of them freed.
	want := leak.ProfileCounts{
		Held: leak.Amount{Count: 20, Bytes: 20 * 64}, Acquired: leak.Amount{Count: 55, Bytes: 40*64 + 15*200},
		Released: leak.Amount{Count: 35, Bytes: 20*64 + 15*200},
	}
	if got["keep_blocks"] != want {
		t.Errorf("keep_blocks: %+v, want %+v", got["keep_blocks"], want)
	}
	if len(got) != 5 || profile.Count != len(profile.Sites) || profile.Total.BeforeAttach != nil || profile.Total.Acquired.Count != 135 {
		t.Errorf("%d sites, total %+v", profile.Count, profile.Total)
	}
	for i := range profile.Sites {
		s := &profile.Sites[i]
		f := s.Stack[s.Site]
		if name := filepath.Base(f.File); name != "direct.c" && name != "fixture.h" || f.Line == 0 || (s.OldestS == nil) != (s.Held.Count == 0) {
			t.Errorf("%+v: oldest %v, held %d", f, s.OldestS, s.Held.Count)
		}
	}
	if c := profile.Observed; c.ProbeRemoved == nil || !*c.ProbeRemoved || len(c.PauseMS) < 3 || c.PeakMemoryBytes == nil {
		t.Errorf("the cost: %+v", c)
	}
	untouched(t, p.PID(), before)
	p.Quit()
}

// TestRecordSizes: the sizes that are asked for are counted exactly, and next
// to nothing else is recorded.
func TestRecordSizes(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "direct"))
	o := recordWhile(t, p, []string{"leak 400", "keep 100"}, "--size", "400", "--size", "4K-6000", "--format", "json")
	profile := o.profile(t)
	got := sites(profile)
	wantSite(t, got, "lose_request", 100, 0, 400)
	wantSite(t, got, "lose_page", 100, 0, 5000)
	if len(got) != 2 || profile.Recorded.Mode != leak.RecordSizes || len(profile.Recorded.Sizes) != 2 {
		t.Errorf("%v of %+v", got, profile.Recorded)
	}
	p.Quit()
}

// TestRecordSite: only stacks through a function are shown.
func TestRecordSite(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "objects"))
	o := recordWhile(t, p, []string{"leak 60", "keep 10"}, "--mode", "exact", "--site", "lose_conn", "--site", "lose_array", "--format", "json")
	for name, c := range sites(o.profile(t)) {
		if c.Acquired.Count%10 != 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	profile := o.profile(t)
	for i := range profile.Sites {
		through := false
		for _, f := range profile.Sites[i].Stack {
			through = through || strings.Contains(f.Function, "lose_conn") || strings.Contains(f.Function, "lose_array")
		}
		if !through {
			t.Errorf("a stack through neither: %+v", profile.Sites[i].Stack)
		}
	}
	// A connection is its block, a name and a vector.
	if n := profile.Total.Acquired.Count; n < 10*(3+1) || n > 10*(5+1) {
		t.Errorf("%d blocks were acquired for 10 connections and 10 arrays", n)
	}
	o = recordWhile(t, p, []string{"leak 6"}, "--mode", "exact", "--site", "no_such_function")
	o.wantCode(t, 0)
	if !strings.Contains(o.out, "nothing was recorded") || !strings.Contains(o.out, "no recorded stack goes through no_such_function") {
		t.Errorf("%s", o.out)
	}
	p.Quit()
}

// lineOf finds the line of a program's source that holds the words.
func lineOf(t *testing.T, name, words string) string {
	t.Helper()
	text, err := os.ReadFile(fixture.Source(t, name))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.Contains(line, words) {
			return fmt.Sprintf("%s:%d", filepath.Base(fixture.Source(t, name)), i+1)
		}
	}
	t.Fatalf("%s has no line with %q", name, words)
	return ""
}

// pprof runs go tool pprof on a file and gives its list.
func pprof(t *testing.T, file string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"tool", "pprof"}, args...), "-top", "-nodecount=100", file)...)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go tool pprof: %v\n%s", err, complaints.String())
	}
	return string(out)
}

// wantRow fails the test unless a line of the list begins with the number and
// ends with the name.
func wantRow(t *testing.T, list, number, name string) {
	t.Helper()
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == number && strings.HasSuffix(strings.TrimSuffix(line, " (inline)\n"), name) ||
			len(f) > 1 && f[0] == number && strings.HasSuffix(line, name+"\n") {
			return
		}
	}
	t.Errorf("no line has %s at %s:\n%s", number, name, list)
}

// TestRecordPprof: go tool pprof shows the functions, the lines and what was
// inlined.
func TestRecordPprof(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "direct"))
	file := filepath.Join(t.TempDir(), "x.pb.gz")
	recordWhile(t, p, []string{"leak 40", "keep 20", "free 10"}, "--mode", "exact", "-o", file).wantCode(t, 0)
	top := pprof(t, file, "-sample_index=inuse_objects")
	wantRow(t, top, "10", "lose_page")
	wantRow(t, top, "15", "keep_blocks") // 5 neighbours, 20 kept, 10 freed
	if !strings.Contains(top, "Duration: ") || !strings.Contains(top, "stanch record of direct["+pid(p)+"]") {
		t.Errorf("no duration, or no comment:\n%s", top)
	}
	wantRow(t, pprof(t, file, "-sample_index=alloc_objects"), "34", "keep_blocks")
	lines := pprof(t, file, "-lines", "-unit=B")
	wantRow(t, lines, "50000B", lineOf(t, "direct", "want memory 5000"))
	wantRow(t, lines, "4000B", lineOf(t, "direct", "want memory 400"))
	p.Quit()

	q := fixture.Start(t, fixture.Build(t, "objects", "-O2"))
	file = filepath.Join(t.TempDir(), "y.pb.gz")
	recordWhile(t, q, []string{"leak 60"}, "--mode", "exact", "-o", file).wantCode(t, 0)
	lines = pprof(t, file, "-lines", "-unit=B")
	wantRow(t, lines, "720B", lineOf(t, "objects", "want memory 72 "))
	wantRow(t, lines, "2000B", lineOf(t, "objects", "want memory 200"))
	if !strings.Contains(lines, "(inline)") {
		t.Errorf("nothing is inlined at -O2:\n%s", lines)
	}
	q.Quit()
}

// TestRecordElsewhere: the recording shows the same table where neither the
// process nor its program is.
func TestRecordElsewhere(t *testing.T) {
	privileged(t)
	t.Parallel()
	dir := t.TempDir()
	exe := filepath.Join(dir, "elsewhere")
	copyFile(t, fixture.Build(t, "direct"), exe)
	p := fixture.Start(t, exe)
	file := filepath.Join(dir, "x.rec")
	o := recordWhile(t, p, []string{"leak 100", "keep 30", "free 20"}, "--mode", "exact", "-o", file)
	o.wantCode(t, 0)
	if want := "saved; send " + file + ", and on any machine: stanch report x.rec\n"; !strings.HasSuffix(o.err, want) {
		t.Errorf("stderr does not end with %q:\n%s", want, o.err)
	}
	p.Quit()
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	again := stanch(t, "report", file)
	again.wantCode(t, 0)
	// How long it was up is read anew for each.
	_, first, _ := strings.Cut(o.out, "glibc")
	_, second, _ := strings.Cut(again.out, "glibc")
	if first != second {
		t.Errorf("the report of the recording is not what was shown:\n%s\n%s", o.out, again.out)
	}
	// In the other formats too.
	if p := stanch(t, "report", "--format", "json", file).profile(t); p.Total.Acquired.Count != 100+13+18+30 {
		t.Errorf("the total is %+v", p.Total)
	}
	converted := filepath.Join(dir, "y.pb.gz")
	stanch(t, "report", file, "-o", converted).wantCode(t, 0)
	wantRow(t, pprof(t, converted, "-lines", "-unit=B"), "10000B", lineOf(t, "direct", "want memory 400"))
	only := stanch(t, "report", "--site", "lose_name", "--sort", "count", file)
	only.wantCode(t, 0)
	if !strings.Contains(only.out, "lose_name") || strings.Contains(only.out, "lose_small") || !strings.Contains(only.out, "1 site holds 775 bytes in 25 blocks") {
		t.Errorf("--site: %s", only.out)
	}
}

// TestScanElsewhere: a saved scan names types and variables without the
// program.
func TestScanElsewhere(t *testing.T) {
	privileged(t)
	t.Parallel()
	dir := t.TempDir()
	exe, file := filepath.Join(dir, "elsewhere"), filepath.Join(dir, "x.rec")
	copyFile(t, fixture.Build(t, "objects"), exe)
	p := fixture.Start(t, exe)
	p.Ask("leak 60", "ok")
	p.Ask("keep 60", "ok")
	o := stanch(t, "scan", roomy, "--save", file, pid(p))
	o.wantCode(t, 3)
	p.Quit()
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	again := stanch(t, "report", file)
	again.wantCode(t, 3)
	for _, words := range []string{"TlsConn", "kept"} {
		if !strings.Contains(o.out, words) || !strings.Contains(again.out, words) {
			t.Errorf("no %s:\n%s\n%s", words, o.out, again.out)
		}
	}
}

// TestRecordBetterNames: where the receiver has better debug files with the
// same build-id, those win.
func TestRecordBetterNames(t *testing.T) {
	privileged(t)
	t.Parallel()
	whole := fixture.Build(t, "direct")
	exe := filepath.Join(t.TempDir(), "direct")
	copyFile(t, fixture.Strip(t, whole), exe)
	p := fixture.Start(t, exe)
	file := filepath.Join(t.TempDir(), "x.rec")
	o := recordWhile(t, p, []string{"leak 40"}, "--mode", "exact", "-o", file)
	o.wantCode(t, 0)
	if strings.Contains(o.out, "lose_page") {
		t.Errorf("a stripped program has names:\n%s", o.out)
	}
	p.Quit()
	copyFile(t, whole, exe)
	o = stanch(t, "report", file)
	o.wantCode(t, 0)
	if at := "lose_page leaky/" + lineOf(t, "direct", "want memory 5000"); !strings.Contains(o.out, at) {
		t.Errorf("the report lacks %q:\n%s", at, o.out)
	}
}

// TestRecordEnds: the target's end is an ending, no fault.
func TestRecordEnds(t *testing.T) {
	privileged(t)
	t.Parallel()
	for _, way := range []string{"exit", "exec"} {
		p := fixture.Start(t, compile(t, "shifty.c"))
		s := begin(t, "record", roomy, "--mode", "exact", pid(p))
		s.await("recording shifty")
		p.Ask("leak 100", "ok")
		if way == "exit" {
			p.Say("exit")
			if err := p.Wait(); err != nil {
				t.Error(err)
			}
		} else {
			p.Ask("exec", "ready")
		}
		o := s.wait()
		o.wantCode(t, 0)
		want := "ended while it was watched"
		if way == "exec" {
			want = "another program"
		}
		if !strings.Contains(o.out, want) || !strings.Contains(o.out, "probe removed") {
			t.Errorf("%s:\n%s%s", way, o.out, o.err)
		}
		if way == "exec" {
			p.Quit()
		}
	}
}

// TestRecordKilled: what a killed stanch recorded can be read, and its probe
// can be removed.
func TestRecordKilled(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "direct"))
	file := filepath.Join(t.TempDir(), "x.rec")
	s := begin(t, "record", roomy, "--mode", "exact", "--max-overhead=100", "-o", file, pid(p))
	s.await("recording direct")
	p.Ask("leak 400", "ok")
	size := func() int64 {
		st, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	// What is pending is written every five seconds.
	for deadline := time.Now().Add(limit); !strings.Contains(stanch(t, "report", file).out, "lose_page"); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is written: %d bytes", size())
		}
	}
	s.kill()
	stanch(t, "detach", pid(p)).wantCode(t, 0)
	o := stanch(t, "report", file)
	o.wantCode(t, 0)
	if !strings.Contains(o.out, "lose_request") || !strings.Contains(o.out, "was cut short") {
		t.Errorf("%s", o.out)
	}
	p.Quit()
}

// TestRecordTimeout: timeout(1) says twice that it is over, and means it once.
func TestRecordTimeout(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "direct"))
	before := look(t, p.PID())
	s := beginAs(t, func(c *exec.Cmd) {
		self := c.Path
		c.Path = command(t, "timeout")
		c.Args = append([]string{"timeout", "-s", "INT", "2", self}, c.Args[1:]...)
	}, "record", roomy, pid(p))
	o := s.wait()
	o.wantCode(t, 124)
	if !strings.Contains(o.out, "probe removed") {
		t.Errorf("no report:\n%s%s", o.out, o.err)
	}
	untouched(t, p.PID(), before)
	p.Quit()
}

// TestRecordFullDisk: a recording leaves a part of the disk free, and a disk
// that is full all the same costs the recording alone.
func TestRecordFullDisk(t *testing.T) {
	privileged(t)
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Skipf("only root can mount a file system to fill: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	p := fixture.Start(t, fixture.Build(t, "direct"))
	before := look(t, p.PID())
	commands := []string{"leak 100", "keep 100"}
	fill := func(bytes int) {
		if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, bytes), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill(1<<20 - 48<<10) // 5 % of it are 51 KiB
	file := filepath.Join(dir, "x.rec")
	o := recordWhile(t, p, commands, "--mode", "exact", "-o", file)
	o.wantCode(t, 0)
	if !strings.Contains(o.err, "x.rec ends early: less than 5 % of the disk") || !strings.Contains(o.out, "lose_page") {
		t.Errorf("%s%s", o.err, o.out)
	}
	o = stanch(t, "report", file)
	o.wantCode(t, 0)
	if !strings.Contains(o.out, "less than 5 % of the disk") || strings.Contains(o.out, "damaged") {
		t.Errorf("%s", o.out)
	}

	if err := os.WriteFile(filepath.Join(dir, "rest"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	o = recordWhile(t, p, commands, "--mode", "exact", "-o", filepath.Join(dir, "y.rec"))
	o.wantCode(t, 1)
	if !strings.Contains(o.err, "y.rec") || !strings.Contains(o.err, "no space left") || !strings.Contains(o.out, "lose_page") {
		t.Errorf("%s%s", o.err, o.out)
	}
	untouched(t, p.PID(), before)
	p.Quit()
}

// TestRecordMaxSize: the recording ends at its largest size, and the watch goes
// on.
func TestRecordMaxSize(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "direct"))
	file := filepath.Join(t.TempDir(), "x.rec")
	o := recordWhile(t, p, []string{"keep 100000"}, "--mode", "exact", "--max-size", "64K", "-o", file)
	o.wantCode(t, 0)
	st, err := os.Stat(file)
	if err != nil || st.Size() > 64<<10 || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %d bytes, mode %v", err, st.Size(), st.Mode())
	}
	if !strings.Contains(o.err, "ends early: the file has reached its most") || !strings.Contains(o.out, "100,000") {
		t.Errorf("%s%s", o.err, o.out)
	}
	again := stanch(t, "report", file)
	again.wantCode(t, 0)
	if !strings.Contains(again.out, "not seen: the file has reached its most, 65.5 KB: it ends after") || !strings.Contains(again.out, "keep_blocks") {
		t.Errorf("%s", again.out)
	}
	p.Quit()
}

// TestRecordLinks: a recording never follows a link, and never replaces a file
// unless told to.
func TestRecordLinks(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "direct"))
	dir := t.TempDir()
	link, aim := filepath.Join(dir, "x.rec"), filepath.Join(dir, "precious")
	if err := os.WriteFile(aim, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(aim, link); err != nil {
		t.Fatal(err)
	}
	stanch(t, "record", "--for", "1s", "-o", link, pid(p)).wantLine(t, 2, "exists", "--force")
	stanch(t, "record", "--for", "1s", "--force", "-o", link, pid(p)).wantLine(t, 2, "symbolic link")
	if b, err := os.ReadFile(aim); err != nil || string(b) != "mine" {
		t.Errorf("the file behind the link holds %q, %v", b, err)
	}
	stanch(t, "record", roomy, "--for", "1s", "--force", "-q", "-o", aim+".rec", pid(p)).wantCode(t, 0)
	b, err := os.ReadFile(aim + ".rec")
	if err != nil {
		t.Fatal(err)
	}
	if h, err := record.Read(bytes.NewReader(b), leak.Ignore{}); err != nil || h.Comm != "direct" {
		t.Errorf("%+v, %v", h, err)
	}
	p.Quit()
}
