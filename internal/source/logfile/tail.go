package logfile

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// tail is a file that is read as it grows.
type tail struct {
	file   *os.File
	stream bool // a FIFO or a device: it has no size and no places
	info   fs.FileInfo
	size   int64
	moved  time.Time // when it was written to last, where that is known to be the last of its tick
	looked int64     // the last look, Unix milliseconds
	before int64     // the look before that
	offset int64     // of what is read next
	last   []byte    // what stands before offset
	lines  splitter
	active time.Time // when it had something to read
}

// lastBytes is how much of what was read must still be there for a file to be
// the same: the end of a line with its time.
const lastBytes = 64

// tick is what the longest one of the kernel's clock lasts, ms: 10 (CONFIG_HZ
// 100), and as much for the clocks of another host's files.
const tick = 20

// look asks for the size and the time of writing.
func (t *tail) look() error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	t.info, t.size = info, info.Size()
	t.before, t.looked = t.looked, now()
	return nil
}

// deleted tells whether the file had no name any more at the last look.
func (t *tail) deleted() bool {
	sys, ok := t.info.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0
}

// arrival is when what is read now was written: since the look before the
// last. Of a file that is its time of writing, since nothing is read that came
// after the last look.
func (t *tail) arrival() int64 {
	if t.stream {
		return now()
	}
	return max(t.before, min(t.info.ModTime().UnixMilli(), t.looked))
}

// took remembers what was read.
func (t *tail) took(data []byte) {
	t.offset += int64(len(data))
	t.last = append(t.last, data...)
	if n := len(t.last) - lastBytes; n > 0 {
		t.last = append(t.last[:0], t.last[n:]...)
	}
}

// seek goes on at a place, or at the next line when that is within one.
func (t *tail) seek(offset int64) error {
	t.lines = splitter{}
	t.offset = max(0, offset-lastBytes)
	t.last = t.last[:0]
	before := make([]byte, offset-t.offset)
	n, err := t.file.ReadAt(before, t.offset)
	if err != nil && err != io.EOF {
		return err
	}
	t.took(before[:n])
	t.lines.skip = t.offset > 0 && !bytes.HasSuffix(t.last, []byte("\n"))
	t.lines.started = t.lines.skip
	return nil
}

// rewritten tells whether a file was truncated or written anew since it was
// read, and notes its size. A file that was truncated and has grown beyond the
// old size is known by what stands before the place.
func (t *tail) rewritten() bool {
	if t.stream || t.look() != nil {
		return false
	}
	if t.size < t.offset {
		return true
	}
	if t.info.ModTime().Equal(t.moved) || len(t.last) == 0 {
		return false
	}
	// What is written within the same tick of the kernel's clock leaves the time
	// as it is.
	if was := t.info.ModTime(); t.looked-was.UnixMilli() > tick {
		t.moved = was
	}
	return !t.holds(t.last, t.offset)
}

// holds tells whether the bytes stand before a place.
func (t *tail) holds(last []byte, offset int64) bool {
	there := make([]byte, len(last))
	_, err := t.file.ReadAt(there, offset-int64(len(last)))
	return err == nil && bytes.Equal(there, last)
}

// copiedTo tells whether another file begins with all that was read.
func (t *tail) copiedTo(other *tail) bool {
	return len(t.last) == lastBytes && other.size >= t.offset && other.holds(t.last, t.offset)
}

// seekData is the whence of lseek(2) for the next place that is no hole.
const seekData = 3

// restart goes to the begin. A program that does not append goes on at its old
// place after a truncation; the hole before that is passed over.
func (t *tail) restart() {
	t.offset, t.last = 0, t.last[:0]
	if at, err := t.file.Seek(0, seekData); err == nil {
		t.offset = at
	}
}

// next reads what comes next; 0 when there is nothing at the moment.
func (t *tail) next(buf []byte) (int, error) {
	if t.stream {
		// An error is that nothing came, or that nobody has the FIFO open.
		_ = t.file.SetReadDeadline(time.Now().Add(time.Millisecond))
		return t.file.Read(buf)
	}
	n, err := t.file.ReadAt(buf[:min(int64(len(buf)), t.size-t.offset)], t.offset)
	t.took(buf[:n])
	if err == io.EOF {
		err = nil
	}
	return n, err
}
