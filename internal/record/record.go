// Package record writes what was observed to a file and reads it back. A
// recording is one of the two documents of stanch, the other being the report;
// every conclusion can be drawn again from it, also on another machine: frames
// are mappings, with their build-ids, and offsets.
//
// There are two forms. The text form has one event a line, for tests and for
// people. The compact form is for long runs and whole heaps: independent
// compressed frames, each with a checksum, so that a file that was cut short
// or damaged gives what is left of it. Contents of memory are in neither,
// unless asked for. Names of places may stand at the end, for readers that do
// not have the program.
package record

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"stanch/internal/leak"
)

// Header says what a recording is of. It holds nothing about the machine.
type Header struct {
	Comm    string      // the name of the target's process
	Exe     string      // its executable
	Proc    leak.ProcID // whom the events are of, unless they say otherwise
	Start   time.Time   // the wall time of the observation's zero
	UptimeS float64     // how long the target had run by then; zero when unknown
	Version string      // of the stanch that wrote it
}

// Options say how to write. The limits are those of the compact form.
type Options struct {
	Text     bool   // the text form
	Contents bool   // keep the first bytes of lost blocks (Verdict.Head)
	MaxBytes uint64 // the most that the file may have; zero means no limit
	// Room is asked before n bytes of events are written. A sentence that says
	// why there is no room for them ends the events of this recording, as
	// MaxBytes does; "" lets it go on. Nil means that there always is.
	Room func(n int) (why string)
}

// Sink is a leak.Sink that also wants what a recording says beside the
// observations. Read asks for it by type assertion.
type Sink interface {
	leak.Sink
	Recorded(leak.Recorded)             // what was to be recorded; the last one holds
	Name(leak.Frame, []leak.StackFrame) // the functions at a place, innermost first
	Note(string)                        // a sentence for the report
}

// ErrDamaged is wrapped by the error of a recording that was cut short or has
// damaged parts. What was readable has reached the sink, with a Gap for what
// was not.
var ErrDamaged = errors.New("damaged recording")

// ErrFormat is wrapped by the error of a file that is no recording, or one of
// a later version.
var ErrFormat = errors.New("not a stanch recording")

// Writer writes a recording. It is a sink whose methods cannot fail; the first
// error stops the writing and is returned by Err and Close. It belongs to one
// goroutine.
type Writer struct {
	encoder
}

type encoder interface {
	leak.EdgeSink
	Sink
	// Flush writes what is pending, so that a writer that dies later loses
	// nothing of it.
	Flush()
	// Full says why no more events are written; "" while they are.
	Full() string
	// Err gives the first error.
	Err() error
	// Close ends the recording, without which it counts as cut short. It does
	// not close the underlying writer. It may be called twice.
	Close() error
}

// NewWriter begins a recording on w.
func NewWriter(w io.Writer, h Header, o Options) *Writer {
	if o.Text {
		return &Writer{newTextWriter(w, h, o)}
	}
	return &Writer{newCompactWriter(w, h, o)}
}

// Read says a recording's events to sink, in the order in which they were
// written. Blocks and edges are said when sink is a leak.EdgeSink. The error
// wraps ErrDamaged when only a part could be read, and ErrFormat when r is no
// recording; the header is valid in the former case.
func Read(r io.Reader, sink leak.Sink) (Header, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	to := target{EdgeSink: noEdges{sink}, more: noMore{sink}}
	if edges, ok := sink.(leak.EdgeSink); ok {
		to.EdgeSink = edges
	}
	if more, ok := sink.(Sink); ok {
		to.more = more
	}
	first, err := br.Peek(len(compactMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return Header{}, fmt.Errorf("read recording: %w", err)
	}
	switch {
	case bytes.Equal(first, []byte(compactMagic)):
		return readCompact(br, to)
	case len(first) == len(compactMagic) && bytes.HasPrefix([]byte(textMagic), first):
		return readText(br, to)
	}
	return Header{}, fmt.Errorf("%w: it begins with %q", ErrFormat, first)
}

// target is what a recording is said to.
type target struct {
	leak.EdgeSink
	more Sink
}

// noMore drops what is said beside the observations.
type noMore struct{ leak.Sink }

func (noMore) Recorded(leak.Recorded)             {}
func (noMore) Name(leak.Frame, []leak.StackFrame) {}
func (noMore) Note(string)                        {}

// noEdges drops blocks and edges.
type noEdges struct{ leak.Sink }

func (noEdges) Blocks([]leak.Verdict) {}
func (noEdges) Edges([]leak.Edge)     {}

// damaged reports what could not be read, to the sink and to the caller.
func damaged(sink leak.Sink, at time.Duration, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	sink.Gap(leak.Gap{At: at, Source: "recording", What: "the recording is damaged: " + what})
	return fmt.Errorf("%w: %s", ErrDamaged, what)
}
