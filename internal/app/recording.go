package app

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"stanch/internal/leak"
	"stanch/internal/record"
)

// recording is the file that a scan keeps, nil when none was asked for. It is
// a sink for everything, and takes the heap graph of the first look only: a
// second one would say nothing new.
type recording struct {
	*record.Writer
	file  *os.File
	buf   *bufio.Writer
	name  string
	looks int
}

// startRecording makes the file before the target is touched, so that a name
// that cannot be written is found in time.
func startRecording(name string, force bool, h record.Header) (*recording, error) {
	if name == "" {
		return nil, nil
	}
	f, err := create(name, force)
	if err != nil {
		return nil, err
	}
	r := &recording{file: f, buf: bufio.NewWriterSize(f, 1<<20), name: name}
	r.Writer = record.NewWriter(r.buf, h, record.Options{})
	return r, nil
}

// sinks lists the recording as what an observation adds to its books.
func (r *recording) sinks() []leak.Sink {
	if r == nil {
		return nil
	}
	return []leak.Sink{r}
}

// Look counts the looks.
func (r *recording) Look(l leak.Look) {
	r.looks++
	r.Writer.Look(l)
}

// Blocks keeps the blocks of the first look.
func (r *recording) Blocks(v []leak.Verdict) {
	if r.looks <= 1 {
		r.Writer.Blocks(v)
	}
}

// Edges keeps the pointers of the first look.
func (r *recording) Edges(e []leak.Edge) {
	if r.looks <= 1 {
		r.Writer.Edges(e)
	}
}

// close ends the file and says how to read it.
func (r *recording) close(p *progress) error {
	if r == nil {
		return nil
	}
	err := errors.Join(r.Close(), r.buf.Flush(), r.file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", r.name, err)
	}
	if p != nil {
		p.say("saved; on any machine: stanch report %s", r.name)
	}
	return nil
}
