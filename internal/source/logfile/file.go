package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// How files are followed.
const (
	// pace is how often a file is looked at: two system calls when nothing was
	// written. Lines of one look arrived when the file was last written to; of
	// several writes the earlier ones are that much older at most.
	pace = 200 * time.Millisecond
	// oldFor is how long a file that was renamed is read on after its last
	// line: programs write to it until they are told to open the new one.
	oldFor = 10 * time.Second
	// goneFor is the same for one that was deleted while nothing has the name.
	goneFor = time.Minute
	// most is how many files that had the name are read at a time.
	most = 8
	// behind is how much may be written between two looks. What is more is
	// left out, so that a program that writes without end cannot keep us busy.
	behind = 64 << 20
)

// follower follows what has the path's name.
type follower struct {
	source  *Source
	say     func(Line)
	read    *reader
	tails   []*tail // what has the name now is the last
	refused string  // why the path cannot be opened; "" when it can
	absent  bool    // nothing has the name now
	buf     []byte
}

func (s *Source) followFile(ctx context.Context, say func(Line)) error {
	f := &follower{source: s, say: say, read: newReader(), buf: make([]byte, 256<<10)}
	defer f.close()
	first, err := open(s.Path)
	switch {
	case err == nil:
		if err := f.begin(first); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		s.note("it is not there yet; it is followed once it is")
	default:
		return err
	}
	s.atPlace()
	ticks := time.NewTicker(pace)
	defer ticks.Stop()
	for {
		f.reopen()
		for _, t := range f.tails {
			f.drain(ctx, t)
		}
		f.retire()
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

// begin takes what is there at the start, and reads the past where it is
// wanted.
func (f *follower) begin(t *tail) error {
	f.tails = append(f.tails, t)
	if t.stream {
		return nil
	}
	end := t.size
	if !f.source.FromStart {
		return t.seek(end)
	}
	want := f.source.Past
	if want <= 0 {
		want = pastBytes
	}
	if err := t.seek(max(0, end-want)); err != nil {
		return err
	}
	emit := func(line []byte, _ int64) {
		f.read.past(line, func(l Line) {
			if l.HasTime {
				f.say(l)
			}
		})
	}
	for t.offset < end {
		n, err := t.file.ReadAt(f.buf[:min(int64(len(f.buf)), end-t.offset)], t.offset)
		t.took(f.buf[:n])
		t.lines.add(f.buf[:n], now(), emit)
		if err != nil && err != io.EOF || n == 0 {
			return err
		}
	}
	return nil
}

// reopen opens what has the name now, when that is another file, and those
// that had it since the last look.
func (f *follower) reopen() {
	info, err := os.Stat(f.source.Path)
	f.absent = errors.Is(err, fs.ErrNotExist)
	if err != nil {
		return // while the name is gone the file may still be written to
	}
	if i := f.index(info); i >= 0 {
		current := f.tails[i] // an old one may have its name back
		f.tails = append(slices.Delete(f.tails, i, i+1), current)
		return
	}
	for _, path := range f.missed() {
		_ = f.add(path) // it is gone, or cannot be read: the new one says why
	}
	why := ""
	if err := f.add(f.source.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		why = pathless(err).Error()
		if why != f.refused {
			f.source.note("the new file is not read: %s", why)
		}
	}
	f.refused = why
}

// index finds the file among those that are followed, -1 when it is none.
func (f *follower) index(info fs.FileInfo) int {
	return slices.IndexFunc(f.tails, func(t *tail) bool { return os.SameFile(t.info, info) })
}

// missed lists the files that came and went between two looks, the oldest
// first: those that are numbered behind the new one and before a known one.
func (f *follower) missed() []string {
	var paths []string
	for n := 1; n < most; n++ {
		path := fmt.Sprintf("%s.%d", f.source.Path, n)
		info, err := os.Stat(path)
		if err != nil {
			return nil
		}
		if f.index(info) >= 0 {
			slices.Reverse(paths)
			return paths
		}
		paths = append(paths, path)
	}
	return nil
}

// add follows a file more, from its begin.
func (f *follower) add(path string) error {
	t, err := open(path)
	if err != nil {
		return err
	}
	if f.index(t.info) >= 0 { // the names moved on meanwhile
		t.file.Close()
		return nil
	}
	for _, old := range f.tails {
		// A copy that takes the place of the file (sed -i, an editor) has the
		// lines that were read.
		if !t.stream && old.copiedTo(t) {
			t.offset, t.last = old.offset, slices.Clone(old.last)
		}
	}
	f.tails = append(f.tails, t)
	return nil
}

// drain reads what was written to a file since the last look.
func (f *follower) drain(ctx context.Context, t *tail) {
	emit := func(line []byte, arrived int64) { f.read.live(line, arrived, f.say) }
	if t.rewritten() {
		t.lines.flush(emit)
		t.restart()
	}
	if skipped := t.size - behind - t.offset; !t.stream && skipped > 0 {
		f.source.note("%d MB were written faster than they can be read, and are left out", skipped>>20)
		t.lines.flush(emit)
		if t.seek(t.size-behind) != nil {
			return
		}
	}
	for ctx.Err() == nil && (t.stream || t.offset < t.size) {
		n, err := t.next(f.buf)
		if n > 0 {
			t.active = time.Now()
			t.lines.add(f.buf[:n], t.arrival(), emit)
		}
		if n == 0 || err != nil {
			return
		}
	}
}

// retire closes files that have lost the name and are not written to. What was
// deleted would keep its room on the disk for as long as it is open here.
func (f *follower) retire() {
	for len(f.tails) > 1 && (len(f.tails) > most || time.Since(f.tails[0].active) > oldFor) {
		f.end(f.tails[0])
		f.tails = f.tails[1:]
	}
	if len(f.tails) == 1 && f.absent && f.tails[0].deleted() && time.Since(f.tails[0].active) > goneFor {
		f.source.note("it was deleted, and nothing is written to it any more; it is followed again once it is back")
		f.end(f.tails[0])
		f.tails = nil
	}
}

func (f *follower) close() {
	for _, t := range f.tails {
		f.end(t)
	}
}

// end says the line that a file ends with though its end has not come.
func (f *follower) end(t *tail) {
	t.lines.flush(func(line []byte, arrived int64) { f.read.live(line, arrived, f.say) })
	t.file.Close()
}

// open opens what has a name, at its begin.
func open(path string) (*tail, error) {
	// A FIFO without a writer would hold up the open.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t := &tail{file: file, active: time.Now()}
	if err := t.look(); err != nil {
		file.Close()
		return nil, err
	}
	switch mode := t.info.Mode(); {
	case mode.IsRegular():
		if t.compressed() {
			file.Close()
			return nil, errCompressed
		}
	case mode&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0:
		t.stream = true
	default:
		file.Close()
		return nil, errNoLog
	}
	return t, nil
}

// compressed tells whether a file begins as gzip, xz, zstd and bzip2 files do.
func (t *tail) compressed() bool {
	var head [4]byte
	n, _ := t.file.ReadAt(head[:], 0)
	for _, magic := range []string{"\x1f\x8b", "\xfd7zX", "\x28\xb5\x2f\xfd", "BZh"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return true
		}
	}
	return false
}
