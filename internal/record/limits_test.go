package record

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

// beside keeps what a recording says beside the observations.
type beside struct {
	memory
	Plans []leak.Recorded
	Names map[leak.Frame][]leak.StackFrame
	Notes []string
}

func (b *beside) Recorded(r leak.Recorded) { b.Plans = append(b.Plans, r) }
func (b *beside) Note(s string)            { b.Notes = append(b.Notes, s) }
func (b *beside) Name(f leak.Frame, names []leak.StackFrame) {
	if b.Names == nil {
		b.Names = map[leak.Frame][]leak.StackFrame{}
	}
	b.Names[f] = names
}

var (
	removed = true
	plan    = leak.Recorded{Mode: leak.RecordSizes, Sizes: []leak.SizeRange{{Min: 400, Max: 400}, {Min: 1 << 16, Max: 1 << 20}},
		Through: []string{"operator new(unsigned long)"}, Sort: "age", Allocator: "glibc 2.36", Removed: &removed}
	place = leak.Frame{Map: 1, Off: 0x1139}
	names = []leak.StackFrame{
		{Function: "std::string::string(char const*, \"x\")", File: "/usr/include/c++/12/bits/basic_string.h", Line: 88, Module: "collectd", BuildID: "4f1c", Offset: 0x1139, Inlined: true},
		{Function: "", Module: "[anonymous]", Offset: 0x1139},
	}
)

func sayBeside(w Sink) {
	w.Recorded(leak.Recorded{Mode: leak.RecordExact})
	w.Recorded(plan)
	w.Name(place, names)
	w.Name(leak.Frame{Map: 2}, names[1:])
	w.Note("the target was busy; \"so\" it took long")
}

func TestNamesAndNotesRoundTrip(t *testing.T) {
	var want beside
	everything(&want)
	sayBeside(&want)
	for _, o := range []Options{{Text: true, Contents: true}, {Contents: true}} {
		var got beside
		data := write(t, o, func(w leak.EdgeSink) {
			everything(w)
			sayBeside(w.(Sink))
		})
		if _, err := Read(bytes.NewReader(data), &got); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(beside{})); diff != "" {
			t.Errorf("%+v: %s", o, diff)
		}
		// Who does not ask for names does not get them.
		if _, err := Read(bytes.NewReader(data), &memory{}); err != nil {
			t.Errorf("%+v: without names: %v", o, err)
		}
	}
}

// tallies says so many sums, one each millisecond.
func tallies(n int) func(leak.EdgeSink) {
	return func(w leak.EdgeSink) {
		for i := range n {
			w.Tally(leak.Tally{At: time.Duration(i) * time.Millisecond, Proc: header.Proc, Kind: leak.KindMemory, Stack: leak.StackID(i),
				Acquired: leak.Count{N: float64(i), Bytes: float64(i * i)}})
		}
		sayBeside(w.(Sink))
	}
}

func TestTheLargestSize(t *testing.T) {
	for _, most := range []uint64{64 << 10, 1 << 20} {
		data := write(t, Options{MaxBytes: most}, tallies(300_000))
		var got beside
		if _, err := Read(bytes.NewReader(data), &got); err != nil {
			t.Fatal(err)
		}
		if n := uint64(len(data)); n > most || n < most*3/4 {
			t.Errorf("of %d bytes, %d are used", most, n)
		}
		if len(got.Gaps) != 1 || !strings.Contains(got.Gaps[0].What, "has reached its most") || got.Gaps[0].At != got.Tallies[len(got.Tallies)-1].At {
			t.Errorf("after %v: %+v", got.Tallies[len(got.Tallies)-1].At, got.Gaps)
		}
		for i, y := range got.Tallies {
			if y.Stack != leak.StackID(i) {
				t.Fatalf("event %d is of stack %d", i, y.Stack)
			}
		}
		if len(got.Names) != 2 || len(got.Plans) != 2 || len(got.Notes) != 1 {
			t.Errorf("names, plans and notes are left out: %d, %d, %d", len(got.Names), len(got.Plans), len(got.Notes))
		}
	}
}

func TestNoRoom(t *testing.T) {
	room := 40 << 10
	o := Options{MaxBytes: 1 << 30, Room: func(n int) string {
		if room -= n; room < 0 {
			return "the disk is nearly full"
		}
		return ""
	}}
	var b bytes.Buffer
	w := NewWriter(&b, header, o)
	tallies(300_000)(w)
	if w.Full() != "the disk is nearly full" || w.Close() != nil || b.Len() > 44<<10 {
		t.Errorf("%q, %v, %d bytes", w.Full(), w.Err(), b.Len())
	}
	var got beside
	if _, err := Read(&b, &got); err != nil || len(got.Gaps) != 1 || len(got.Names) != 2 {
		t.Errorf("%v, %+v, %d names", err, got.Gaps, len(got.Names))
	}
}

// TestFlush holds that what was flushed is in the file of a writer that dies.
func TestFlush(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b, header, Options{})
	everything(w)
	w.Flush()
	w.Gauge(leak.Gauge{Name: "lost"})
	var got, want memory
	everything(&want)
	for i := range want.Lost {
		want.Lost[i].Head = nil
	}
	if h, err := Read(&b, &got); err == nil || h != header {
		t.Errorf("a file without an end: %v, %+v", err, h)
	}
	got.Gaps = got.Gaps[:len(got.Gaps)-1] // that it was cut short
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
