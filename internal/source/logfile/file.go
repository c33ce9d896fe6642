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
	// written. It bounds the error of times of arrival.
	pace = 100 * time.Millisecond
	// oldFor is how long a file that was renamed is read on after its last
	// line: programs write to it until they are told to open the new one.
	oldFor = 10 * time.Second
	// most is how many files that had the name are read at a time.
	most = 4
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
	case !errors.Is(err, fs.ErrNotExist):
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

// reopen opens what has the name now, when that is another file.
func (f *follower) reopen() {
	info, err := os.Stat(f.source.Path)
	if err != nil || slices.ContainsFunc(f.tails, func(t *tail) bool { return os.SameFile(t.info, info) }) {
		return // while the name is gone the file may still be written to
	}
	t, err := open(f.source.Path)
	if err != nil {
		if why := pathless(err).Error(); why != f.refused && !errors.Is(err, fs.ErrNotExist) {
			f.refused = why
			f.source.note("the new file is not read: %s", why)
		}
		return
	}
	f.refused = ""
	for _, old := range f.tails {
		// A copy that takes the place of the file (sed -i, an editor) has the
		// lines that were read.
		if !t.stream && old.copiedTo(t) {
			t.offset, t.last = old.offset, old.last
		}
	}
	f.tails = append(f.tails, t)
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
	for ctx.Err() == nil {
		n, err := t.next(f.buf)
		if n > 0 {
			t.active = time.Now()
			t.lines.add(f.buf[:n], now(), emit)
		}
		if n == 0 || err != nil {
			return
		}
	}
}

// retire closes files that have lost the name and are not written to.
func (f *follower) retire() {
	for len(f.tails) > 1 && (len(f.tails) > most || time.Since(f.tails[0].active) > oldFor) {
		f.end(f.tails[0])
		f.tails = f.tails[1:]
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
		return nil, fmt.Errorf("it is no file: %s", mode.Type())
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
