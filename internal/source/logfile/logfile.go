// Package logfile follows log files and units of the systemd journal: it says
// each line with the time at which it was written.
package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// Line is one line of a log.
type Line struct {
	// At is Unix time in milliseconds: the line's own time where it has one,
	// else that of its arrival. A time without fractions of a second is that
	// of its arrival where both agree. It is 0 for lines read by Read that
	// have no time and follow none that has.
	At      int64
	HasTime bool // the time is the log's, not that of the arrival
	// Text is the line without its end and without its time: valid UTF-8, no
	// control characters but tabs, at most 8 KiB. Of a line in JSON or logfmt
	// that has a message it is the level, the message and the error.
	Text string
}

// Source is a log that is followed.
type Source struct {
	Path string // of a file or FIFO; it need not exist yet
	Unit string // of the systemd journal, where Path is empty

	// FromStart says to begin with what is there already: of a file the last
	// Past bytes, of a journal all. Lines that are there already and have no
	// time are left out, since nobody knows when they were written.
	FromStart bool
	Past      int64 // 10 MiB when zero

	// Note is told what a reader of the log's lines must know: what was
	// skipped, what cannot be read at the moment. It may be nil.
	Note func(string)

	placed func() // for tests: what is written from now on is new
}

// errNoLog is of what has no lines to read, such as a directory.
var errNoLog = errors.New("it is neither a file nor a FIFO")

// errCompressed is of a log that nobody appends to.
var errCompressed = errors.New("it is compressed, so nothing is appended to it")

// pastBytes is how much of what is there already is read.
const pastBytes = 10 << 20

// Follow says each line that is written, in the order of writing, until ctx
// ends, which is not an error. It waits for a file that does not exist, and
// goes on over renaming, truncation, deletion and return. A line without its
// end is said once the end has come, or the file has gone. An error means that
// the log cannot be followed at all.
//
// A FIFO is read as any reader reads it: what Follow reads no other reader
// gets, and its writers see SIGPIPE once Follow has ended.
func (s *Source) Follow(ctx context.Context, say func(Line)) error {
	var err error
	if s.Path == "" {
		err = s.followJournal(ctx, say)
	} else {
		err = s.followFile(ctx, say)
	}
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow the log %s: %w", s.name(), pathless(err))
}

// Read says the lines of a whole log that was written earlier. The years of
// times without one are the last that are possible.
func Read(r io.Reader, say func(Line)) error {
	read := newReader()
	var lines splitter
	emit := func(text []byte, _ int64) { read.past(text, say) }
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		lines.add(buf[:n], 0, emit)
		if err != nil {
			lines.flush(emit)
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

func (s *Source) name() string {
	if s.Path == "" {
		return "of unit " + s.Unit
	}
	return s.Path
}

func (s *Source) note(format string, args ...any) {
	if s.Note != nil {
		s.Note(fmt.Sprintf("log %s: ", s.name()) + fmt.Sprintf(format, args...))
	}
}

func (s *Source) atPlace() {
	if s.placed != nil {
		s.placed()
	}
}

// pathless takes the path from an error of package os: it is named already.
func pathless(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// now is the wall clock, which is what logs are written by.
func now() int64 { return time.Now().UnixMilli() }
