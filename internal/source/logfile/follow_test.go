package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soon is how long what must happen may take on a busy machine.
const soon = 20 * time.Second

// followed is a source that a test follows.
type followed struct {
	t    *testing.T
	stop context.CancelFunc
	done chan error

	mu    sync.Mutex
	lines []Line
	came  []int64 // when they were said
	notes []string
}

// follow follows a source until the test's end. The source is at its place
// when follow returns: what is written from now on is new.
func follow(t *testing.T, s *Source) *followed {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	f := &followed{t: t, stop: stop, done: make(chan error, 1)}
	placed := make(chan struct{})
	s.placed = sync.OnceFunc(func() { close(placed) })
	s.Note = func(text string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.notes = append(f.notes, text)
	}
	go func() {
		f.done <- s.Follow(ctx, func(l Line) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.lines, f.came = append(f.lines, l), append(f.came, now())
		})
	}()
	t.Cleanup(func() { _ = f.end() })
	select {
	case <-placed:
	case err := <-f.done:
		f.done <- err
		t.Fatalf("follow: %v", err)
	case <-time.After(soon):
		t.Fatalf("follow did not begin within %v", soon)
	}
	return f
}

func (f *followed) end() error {
	f.stop()
	err := <-f.done
	f.done <- err
	return err
}

func (f *followed) texts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, l := range f.lines {
		list = append(list, l.Text)
	}
	return list
}

func (f *followed) until(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(soon); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: not within %v; lines %.500q, notes %q", what, soon, f.texts(), f.notes)
		}
	}
}

// want waits until just these lines have been said.
func (f *followed) want(texts ...string) {
	f.t.Helper()
	f.until(fmt.Sprintf("lines %q", texts), func() bool { return len(f.texts()) >= len(texts) })
	if got := f.texts(); !slices.Equal(got, texts) {
		f.t.Fatalf("got  %q\nwant %q", got, texts)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAppended(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "old\nbegun ")
	f := follow(t, &Source{Path: log})
	write(t, log, "earlier\none\n\n")
	f.want("one")
	write(t, log, "two in ")
	write(t, log, "pieces\r\n\x1b[31mthree\x1b[0m\x00 \xff\n")
	f.want("one", "two in pieces", "three \ufffd")
	write(t, log, strings.Repeat("x", 3*maxLine)+"\nfour\nfive without end")
	f.want("one", "two in pieces", "three \ufffd", strings.Repeat("x", maxLine), "four")
	must(t, f.end())
	if got := f.texts(); got[len(got)-1] != "five without end" {
		t.Errorf("the last is %q", got[len(got)-1])
	}
}

func TestPieces(t *testing.T) {
	var s splitter
	var got []string
	emit := func(line []byte, arrived int64) {
		got = append(got, fmt.Sprintf("%d %.9s %d", arrived, line, len(line)))
	}
	for i, piece := range []string{"on", "e", "\n\ntwo\nthr", "ee", strings.Repeat("x", maxLine), "\nfour\n", "five"} {
		s.add([]byte(piece), int64(i), emit)
	}
	s.flush(emit)
	s.flush(emit)
	want := []string{"0 one 3", "2  0", "2 two 3", "2 threexxxx 8192", "5 four 4", "6 five 4"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFileThatComesLater(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	f := follow(t, &Source{Path: log})
	write(t, log, "one\n")
	f.want("one")
	must(t, os.Remove(log))
	write(t, log, "two\n")
	f.want("one", "two")
}

// TestAbsent holds that a name that nothing has is said: it may be misspelt.
func TestAbsent(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	f := follow(t, &Source{Path: log})
	if len(f.notes) != 1 || f.notes[0] != "log "+log+": it is not there yet; it is followed once it is" {
		t.Errorf("notes: %q", f.notes)
	}
}

// TestDeleted holds that a file that was deleted is let go when nothing more is
// written to it, since it keeps its room on the disk until then; and that one
// that was renamed is not.
func TestDeleted(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "old\n")
	var notes []string
	f := &follower{source: &Source{Path: log, Note: func(text string) { notes = append(notes, text) }}, buf: make([]byte, 4096)}
	first, err := open(log)
	must(t, err)
	must(t, f.begin(first))
	look := func() {
		f.reopen()
		for _, t := range f.tails {
			f.drain(context.Background(), t)
			t.active = t.active.Add(-goneFor)
		}
		f.retire()
	}
	must(t, os.Rename(log, log+".1"))
	look()
	if n := len(openFiles(t, log)); n != 1 {
		t.Errorf("renamed: %d files are open, want 1", n)
	}
	must(t, os.Remove(log+".1"))
	look()
	if n := len(openFiles(t, log)); n != 0 || len(notes) != 1 || !strings.Contains(notes[0], "it was deleted") {
		t.Errorf("deleted: %d files are open, want 0; notes %q", n, notes)
	}
	look()
	write(t, log, "new\n")
	f.reopen()
	if n := len(openFiles(t, log)); n != 1 {
		t.Errorf("there again: %d files are open, want 1", n)
	}
	f.close()
}

// TestRenamed renames the log as logrotate does; the program writes to the old
// one until it opens the new one.
func TestRenamed(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "")
	f := follow(t, &Source{Path: log})
	want := []string{}
	for i := range 5 {
		write(t, log, fmt.Sprintf("before %d\n", i))
		must(t, os.Rename(log, log+".1"))
		write(t, log+".1", fmt.Sprintf("late %d\n", i))
		want = append(want, fmt.Sprintf("before %d", i), fmt.Sprintf("late %d", i))
		f.want(want...)
		write(t, log, fmt.Sprintf("new %d\n", i))
		want = append(want, fmt.Sprintf("new %d", i))
		f.want(want...)
		write(t, log+".1", fmt.Sprintf("very late %d\n", i))
		want = append(want, fmt.Sprintf("very late %d", i))
		f.want(want...)
	}
	if n := len(openFiles(t, log)); n > most {
		t.Errorf("%d files are open, want %d at most", n, most)
	}
}

// openFiles lists the descriptors of files whose names begin so.
func openFiles(t *testing.T, path string) []string {
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var names []string
	for _, fd := range list {
		if name, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(name, path) {
			names = append(names, name)
		}
	}
	return names
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "")
	f := follow(t, &Source{Path: log})
	write(t, log, "a first line that is rather long, so that there is something to lose\n")
	f.until("the line", func() bool { return len(f.texts()) == 1 })
	must(t, os.Truncate(log, 0))
	write(t, log, "shorter\n")
	f.until("the line after the truncation", func() bool { return len(f.texts()) == 2 })
	// Grown beyond its old size before anyone looked.
	must(t, os.Truncate(log, 0))
	write(t, log, strings.Repeat("many lines\n", 100))
	f.until("the lines after the second one", func() bool { return len(f.texts()) == 102 })
	must(t, os.WriteFile(log, []byte(strings.Repeat("same bytes\n", 100)), 0o600))
	f.until("the lines of a file as long as before", func() bool { return len(f.texts()) == 202 })
	if got := f.texts(); got[1] != "shorter" || got[2] != "many lines" || got[201] != "same bytes" {
		t.Errorf("got %q", got)
	}
}

// TestSameTick writes a file anew, as long as before and in the same tick of
// the kernel's clock, just after it was looked at.
func TestSameTick(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "one\n")
	tail, err := open(log)
	must(t, err)
	defer tail.file.Close()
	must(t, tail.seek(4))
	if tail.rewritten() {
		t.Error("a file is said to be another before it was touched")
	}
	was := tail.info.ModTime()
	must(t, os.WriteFile(log, []byte("two\n"), 0o600))
	must(t, os.Chtimes(log, was, was))
	if !tail.rewritten() {
		t.Error("a file that was written anew is said to be the same")
	}
}

// TestHole truncates the log of a program that does not append: it goes on at
// its old place, behind a hole.
func TestHole(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(log)
	must(t, err)
	defer file.Close()
	f := follow(t, &Source{Path: log})
	_, err = file.WriteString("one\n")
	must(t, err)
	f.want("one")
	_, err = file.Seek(1<<40, 0) // a terabyte, which no test could read
	must(t, err)
	must(t, file.Truncate(0))
	_, err = file.WriteString("two\n")
	must(t, err)
	f.want("one", "two")
}

func TestReplacedByACopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	old := strings.Repeat("an old line\n", 20)
	write(t, log, old)
	f := follow(t, &Source{Path: log})
	write(t, log+".new", old+"a new line\n")
	must(t, os.Rename(log+".new", log))
	f.want("a new line")
}

func TestLinkThatIsChanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "current")
	write(t, filepath.Join(dir, "a"), "old\n")
	must(t, os.Symlink("a", log))
	f := follow(t, &Source{Path: log})
	write(t, log, "one\n")
	f.want("one")
	write(t, filepath.Join(dir, "b"), "two\n")
	must(t, os.Symlink("b", log+".new"))
	must(t, os.Rename(log+".new", log))
	f.want("one", "two")
}

func TestFIFO(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	must(t, syscall.Mkfifo(log, 0o600))
	f := follow(t, &Source{Path: log})
	write(t, log, "one\ntwo ")
	f.want("one")
	write(t, log, "halves\n")
	f.want("one", "two halves")
}

// TestBurst writes 100,000 lines at once.
func TestBurst(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "")
	f := follow(t, &Source{Path: log})
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "2026-11-21 10:00:00.000 connection %d from 10.0.0.%d\n", i, i%256)
	}
	begin := time.Now()
	write(t, log, b.String())
	f.until("all lines", func() bool { return len(f.texts()) >= 100_000 })
	t.Logf("100,000 lines in %v", time.Since(begin))
	if got := f.texts(); len(got) != 100_000 || got[99_999] != "connection 99999 from 10.0.0.159" {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
}

// TestArrival holds that lines without a time get that of their arrival: three
// in four within 0.1 s, on a machine that does other things as well.
func TestArrival(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "")
	f := follow(t, &Source{Path: log})
	var wrote []int64
	for i := range 20 {
		wrote = append(wrote, now())
		write(t, log, fmt.Sprintf("line %d\n", i))
		f.until("the line", func() bool { return len(f.texts()) == i+1 })
	}
	late := 0
	for i, l := range f.lines {
		if l.HasTime || l.At < wrote[i]-20 { // the kernel's time of writing is that of its last tick
			t.Errorf("line %d was written at %d and is said to be of %d", i, wrote[i], l.At)
		}
		if l.At > wrote[i]+100 {
			late++
		}
	}
	if late > len(wrote)/4 {
		t.Errorf("%d of %d lines are more than 0.1 s late", late, len(wrote))
	}
}

func TestPast(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "no time\n2026-11-20 10:00:00 one\n  and more of it\n2026-11-20 10:00:05 two\n")
	f := follow(t, &Source{Path: log, FromStart: true})
	write(t, log, "three\n")
	f.want("one", "and more of it", "two", "three")
	if l := f.lines; l[0].At != l[1].At || l[2].At != l[0].At+5000 || !l[2].HasTime || l[3].HasTime {
		t.Errorf("got %+v", l)
	}
	g := follow(t, &Source{Path: log, FromStart: true, Past: 40})
	g.want("two", "three") // of the time of the line before, as far as anyone knows
}

func TestRead(t *testing.T) {
	var got []Line
	must(t, Read(strings.NewReader("no time\n2026-11-20 10:00:00Z one\nlast"), func(l Line) { got = append(got, l) }))
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC).UnixMilli()
	if want := []Line{{0, false, "no time"}, {at, true, "one"}, {at, true, "last"}}; !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestNotALog(t *testing.T) {
	dir := t.TempDir()
	gz := filepath.Join(dir, "log.gz")
	write(t, gz, "\x1f\x8b\x08\x00")
	for _, path := range []string{dir, gz, filepath.Join(gz, "below")} {
		err := (&Source{Path: path}).Follow(t.Context(), func(Line) {})
		if err == nil || !strings.HasPrefix(err.Error(), "follow the log "+path+": ") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := (&Source{Path: gz}).Follow(t.Context(), func(Line) {}); !errors.Is(err, errCompressed) {
		t.Errorf("%v", err)
	}
}
