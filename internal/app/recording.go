package app

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
	"stanch/internal/record"
)

// recording is the file that a scan or a record keeps, nil when none was asked
// for. It is a sink for everything, and takes the heap graph of the first look
// only: a second one would say nothing new. Likewise the sums of a stack are
// kept when they have changed.
type recording struct {
	*record.Writer
	file    *os.File
	name    string
	looks   int
	sums    map[sumKey]leak.Tally
	flushed time.Duration
}

type sumKey struct {
	proc  leak.ProcID
	kind  leak.Kind
	stack leak.StackID
	exact bool
}

// flushEvery is how much of a watch a stanch that is killed may take with it.
const flushEvery = 5 * time.Second

// startRecording makes the file before the target is touched, so that a name
// that cannot be written is found in time. It takes no more than most bytes,
// when that is not zero, and leaves some of the disk free.
func startRecording(name string, force bool, h record.Header, most uint64) (*recording, error) {
	if name == "" {
		return nil, nil
	}
	f, err := create(name, force)
	if err != nil {
		return nil, err
	}
	r := &recording{file: f, name: name, sums: map[sumKey]leak.Tally{}}
	r.Writer = record.NewWriter(r.file, h, record.Options{MaxBytes: most, Room: r.room})
	return r, nil
}

// leastFree is the part of a disk, one in so many, that a recording leaves
// free.
const leastFree = 20

// room says why n more bytes should not be written to the disk; "" when they
// may be.
func (r *recording) room(n int) string {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(r.file.Fd()), &st); err != nil || st.Blocks == 0 {
		return "" // a file system that does not tell
	}
	free, all := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	if free < uint64(n)+all/leastFree {
		return fmt.Sprintf("less than %d %% of the disk of %s is free", 100/leastFree, filepath.Base(r.name))
	}
	return ""
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

// Tally keeps sums that have changed.
func (r *recording) Tally(y leak.Tally) {
	k := sumKey{y.Proc, y.Kind, y.Stack, y.Exact}
	last := r.sums[k]
	if last.Acquired == y.Acquired && last.Released == y.Released {
		return
	}
	r.sums[k] = y
	r.Writer.Tally(y)
}

// Gauge writes what is pending from time to time.
func (r *recording) Gauge(g leak.Gauge) {
	r.Writer.Gauge(g)
	if g.At >= r.flushed+flushEvery {
		r.flushed = g.At
		r.Flush()
	}
}

// plan keeps what is to be recorded.
func (r *recording) plan(p leak.Recorded) {
	if r != nil {
		r.Recorded(p)
	}
}

// end keeps what the reader needs to know beside the observations: how it
// ended, and the names of all places, so that nobody needs the program to read
// the recording.
func (r *recording) end(view *ledger.View, name func(leak.Frame) []leak.StackFrame, p leak.Recorded, notes []string) {
	if r == nil {
		return
	}
	r.plan(p)
	for _, n := range notes {
		r.Note(n)
	}
	var places []leak.Frame
	for _, frames := range view.Stacks {
		places = append(places, frames...)
	}
	for _, f := range distinct(places) {
		r.Name(f, name(f))
	}
}

// objects keeps the names of what lost blocks and holders point to: virtual
// tables, variables.
func (r *recording) objects(view *ledger.View, name func(leak.Frame) string) {
	if r == nil {
		return
	}
	var places []leak.Frame
	for _, p := range view.Procs {
		for i := range p.Groups {
			places = append(places, p.Groups[i].Type)
		}
		for i := range p.Holders {
			places = append(places, p.Holders[i].Type, p.Holders[i].Root.Frame)
		}
	}
	for _, f := range distinct(places) {
		if s := name(f); f.Map != 0 && s != "" {
			r.Name(f, []leak.StackFrame{{Function: s}})
		}
	}
}

// distinct sorts places and gives each once.
func distinct(places []leak.Frame) []leak.Frame {
	slices.SortFunc(places, func(a, b leak.Frame) int { return cmp.Or(cmp.Compare(a.Map, b.Map), cmp.Compare(a.Off, b.Off)) })
	return slices.Compact(places)
}

// discard removes the file of a recording that did not come about.
func (r *recording) discard() {
	if r != nil {
		_ = r.Close() // it is empty
		_ = r.file.Close()
		_ = os.Remove(r.name)
	}
}

// close ends the file and says which one to send and how to read it.
func (r *recording) close(p *progress) error {
	if r == nil {
		return nil
	}
	err := errors.Join(r.Close(), r.file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", r.name, err)
	}
	if p == nil {
		return nil
	}
	if why := r.Full(); why != "" {
		p.line("%s ends early: %s", r.name, why)
	}
	p.line("saved; send %s, and on any machine: stanch report %s", r.name, filepath.Base(r.name))
	return nil
}
