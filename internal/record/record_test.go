package record

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

var update = flag.Bool("update", false, "write the golden files anew")

// memory is a sink that keeps everything, batches joined.
type memory struct {
	Maps     []leak.Mapping
	Stacks   map[leak.StackID][]leak.Frame
	Acquires []leak.Acquire
	Releases []leak.Release
	Invalids []leak.Invalid
	Tallies  []leak.Tally
	Gauges   []leak.Gauge
	Looks    []leak.Look
	Lost     []leak.Verdict
	All      []leak.Verdict
	Holders  []leak.Held
	Pointers []leak.Edge
	Gaps     []leak.Gap

	Listings  []leak.Listing
	Ownerlist []leak.Ownerless
	Usages    []leak.Usage
	Failures  []leak.Failure
	Uses      []leak.Use
	Inputs    []leak.Input
}

func (m *memory) Map(x leak.Mapping) { m.Maps = append(m.Maps, x) }
func (m *memory) Stack(id leak.StackID, f []leak.Frame) {
	if m.Stacks == nil {
		m.Stacks = map[leak.StackID][]leak.Frame{}
	}
	m.Stacks[id] = append([]leak.Frame(nil), f...)
}
func (m *memory) Acquire(x leak.Acquire)    { m.Acquires = append(m.Acquires, x) }
func (m *memory) Release(x leak.Release)    { m.Releases = append(m.Releases, x) }
func (m *memory) Invalid(x leak.Invalid)    { m.Invalids = append(m.Invalids, x) }
func (m *memory) Tally(x leak.Tally)        { m.Tallies = append(m.Tallies, x) }
func (m *memory) Gauge(x leak.Gauge)        { m.Gauges = append(m.Gauges, x) }
func (m *memory) Look(x leak.Look)          { m.Looks = append(m.Looks, x) }
func (m *memory) Verdicts(x []leak.Verdict) { m.Lost = append(m.Lost, x...) }
func (m *memory) Blocks(x []leak.Verdict)   { m.All = append(m.All, x...) }
func (m *memory) Held(x []leak.Held)        { m.Holders = append(m.Holders, x...) }
func (m *memory) Edges(x []leak.Edge)       { m.Pointers = append(m.Pointers, x...) }
func (m *memory) Gap(x leak.Gap)            { m.Gaps = append(m.Gaps, x) }
func (m *memory) Listing(x leak.Listing) {
	x.Open = append([]leak.Descriptor(nil), x.Open...)
	m.Listings = append(m.Listings, x)
}
func (m *memory) Ownerless(x leak.Ownerless) { m.Ownerlist = append(m.Ownerlist, x) }
func (m *memory) Usage(x leak.Usage)         { m.Usages = append(m.Usages, x) }
func (m *memory) Failure(x leak.Failure)     { m.Failures = append(m.Failures, x) }
func (m *memory) Use(x leak.Use)             { m.Uses = append(m.Uses, x) }
func (m *memory) Input(x leak.Input)         { m.Inputs = append(m.Inputs, x) }

var header = Header{
	Comm: "collectd", Exe: "/usr/sbin/collectd", Proc: leak.ProcID{PID: 4711, Start: 99},
	Start: time.Date(2026, 11, 20, 10, 0, 0, 5, time.UTC), UptimeS: 86400.5, Version: "v1 test",
}

// everything says each event in all its variants to w.
func everything(w leak.EdgeSink) {
	p, q := header.Proc, leak.ProcID{PID: 4712, Start: 100}
	w.Map(leak.Mapping{ID: 1, Start: 0x1000, End: 0x2000, Read: true, Exec: true, Offset: 4096, Dev: 2049, Inode: 12,
		Path: "/usr/sbin/col lect\"d", Deleted: true, BuildID: "4f1c"})
	w.Map(leak.Mapping{ID: 2, Start: 0x7f0000000000, End: 0x7f0000001000, Read: true, Write: true, Shared: true})
	w.Stack(1, []leak.Frame{{Map: 1, Off: 0x1139}, {Map: 2, Off: 0}})
	w.Stack(2, nil)
	w.Gauge(leak.Gauge{At: time.Second, Proc: p, Name: leak.GaugeRSS, Value: 1e9})
	w.Gauge(leak.Gauge{At: time.Second, Proc: q, Name: "odd name", Value: -0.25})
	block := leak.Ref{Proc: p, Kind: leak.KindMemory, ID: 0x7f0000000010}
	w.Acquire(leak.Acquire{At: 1500 * time.Millisecond, Ref: block, Size: 400, Stack: 1, Weight: 1, Exact: true})
	w.Acquire(leak.Acquire{At: time.Second, Ref: leak.Ref{Proc: q, Kind: leak.KindDescriptor, ID: 12}, Stack: 2, Weight: 2.5})
	w.Release(leak.Release{At: 2 * time.Second, Ref: block})
	w.Invalid(leak.Invalid{At: 2500 * time.Millisecond, Ref: block, Double: true, Stack: 1, Acquired: 1, Released: 2, Size: 400})
	w.Invalid(leak.Invalid{At: 2 * time.Second, Ref: leak.Ref{Proc: q, Kind: leak.KindPool, ID: 0x20}, Stack: 2})
	w.Tally(leak.Tally{At: 3 * time.Second, Proc: p, Kind: leak.KindMemory, Stack: 1,
		Acquired: leak.Count{N: 10, Bytes: 4000}, Released: leak.Count{N: 1.5, Bytes: 600}, Exact: true})
	w.Tally(leak.Tally{At: 3 * time.Second, Proc: q, Kind: leak.KindThread})
	w.Look(leak.Look{N: 1, At: 4 * time.Second, Proc: p, Allocator: "glibc 2.36", Walked: true, PendingIO: true, Blocks: 10, Bytes: 4000,
		Free: 7, LostBlocks: 2, LostBytes: 800, Pause: 12 * time.Millisecond, ReadBytes: 1 << 30, Uncertainty: []string{"arena 3 was locked", "x"}})
	w.Verdicts([]leak.Verdict{
		{Ref: block, Size: 408, State: leak.LostDirect, Shape: leak.ShapeType, Type: leak.Frame{Map: 1, Off: 0x3d10}, Magic: 2},
		{Ref: leak.Ref{Proc: p, Kind: leak.KindMemory, ID: 0x10}, Size: 408, State: leak.LostDirect, Shape: leak.ShapeType, Type: leak.Frame{Map: 1, Off: 0x3d10}},
		{Ref: leak.Ref{Proc: p, Kind: leak.KindMemory, ID: 0x7f0000000200}, Size: 24, State: leak.LostIndirect, Shape: leak.ShapeText, Owner: block.ID, Head: []byte("a\"b\x00")},
	})
	w.Held([]leak.Held{
		{Proc: p, Root: leak.Root{What: "data", Frame: leak.Frame{Map: 1, Off: 0x40}}, Size: 64, Shape: leak.ShapePointer, Type: leak.Frame{Map: 1, Off: 8}, N: 3, Bytes: 192},
		{Proc: p, Root: leak.Root{What: "stack", TID: 4713}, Shape: leak.ShapeNumber, N: 1, Bytes: 24},
	})
	w.Blocks([]leak.Verdict{
		{Ref: leak.Ref{Proc: p, Kind: leak.KindMemory, ID: 0x20}, Size: 24, State: leak.Reachable, Shape: leak.ShapeZero},
		{Ref: leak.Ref{Proc: p, Kind: leak.KindMemory, ID: 0x40}, Size: 24, State: leak.Reachable, Shape: 9},
	})
	w.Edges([]leak.Edge{{From: 0x20, To: 0x40}, {From: 0x40, To: 0x20}})
	w.Look(leak.Look{N: 2, At: 5 * time.Second, Proc: q, Single: true, Final: true})
	w.Gap(leak.Gap{At: 6 * time.Second, Proc: p, Source: "probe", What: "the books were full", Lost: 12})
	w.Gap(leak.Gap{At: -1, Source: "", What: ""})
	descriptors(w)
}

func write(t testing.TB, o Options, say func(leak.EdgeSink)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, header, o)
	say(w)
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	var want memory
	everything(&want)
	for _, o := range []Options{{Text: true, Contents: true}, {Contents: true}} {
		var got memory
		h, err := Read(bytes.NewReader(write(t, o, everything)), &got)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if diff := cmp.Diff(header, h); diff != "" {
			t.Errorf("%+v: header: %s", o, diff)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v: %s", o, diff)
		}
	}
}

// TestTheFirstRecordings reads what the first stanch that wrote recordings
// wrote: the files stay as they are, whatever is added to the form.
func TestTheFirstRecordings(t *testing.T) {
	var want memory
	everything(&want)
	// These came later, as did Look.Final.
	want.Invalids = nil
	want.Acquires, want.Releases = want.Acquires[:2], want.Releases[:1]
	want.Listings, want.Ownerlist, want.Usages, want.Failures, want.Uses, want.Inputs = nil, nil, nil, nil, nil, nil
	for i := range want.Looks {
		want.Looks[i].Final = false
	}
	for _, name := range []string{"first.compact", "first.txt"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var got memory
		h, err := Read(bytes.NewReader(data), &got)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(header, h); diff != "" {
			t.Errorf("%s: header: %s", name, diff)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTextIsWhatPeopleRead(t *testing.T) {
	got := string(write(t, Options{Text: true}, everything))
	golden := filepath.Join("testdata", "everything.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", golden, diff)
	}
}

func TestContentsStayOutUnlessAskedFor(t *testing.T) {
	for _, o := range []Options{{Text: true}, {}} {
		var got memory
		if _, err := Read(bytes.NewReader(write(t, o, everything)), &got); err != nil {
			t.Fatal(err)
		}
		for _, v := range got.Lost {
			if v.Head != nil {
				t.Errorf("%+v: a block's bytes are in the recording", o)
			}
		}
	}
}

// many says enough for several frames.
func many(n int) func(leak.EdgeSink) {
	return func(w leak.EdgeSink) {
		r := rand.New(rand.NewPCG(1, 2))
		w.Look(leak.Look{N: 1, Proc: header.Proc, Walked: true})
		vs := make([]leak.Verdict, 0, 5000)
		es := make([]leak.Edge, 0, 5000)
		addr := uint64(0x7f0000000010)
		for i := range n {
			if i%1000 == 999 {
				w.Gauge(leak.Gauge{At: time.Duration(i), Proc: leak.ProcID{PID: i}, Name: leak.GaugeRSS, Value: float64(i)})
			}
			addr += uint64(r.IntN(8)+2) * 16
			vs = append(vs, leak.Verdict{Ref: leak.Ref{Proc: header.Proc, Kind: leak.KindMemory, ID: addr}, Size: uint64(r.IntN(4))*16 + 24, State: leak.Reachable, Shape: leak.Shape(r.IntN(6))})
			es = append(es, leak.Edge{From: addr, To: 0x7f0000000010 + uint64(r.IntN(n))*64})
			if len(vs) == cap(vs) {
				w.Blocks(vs)
				w.Edges(es)
				vs, es = vs[:0], es[:0]
			}
		}
		w.Blocks(vs)
		w.Edges(es)
	}
}

func TestRoundTripOverManyFrames(t *testing.T) {
	var want, got memory
	many(100_000)(&want)
	if _, err := Read(bytes.NewReader(write(t, Options{}, many(100_000))), &got); err != nil {
		t.Fatal(err)
	}
	// cmp.Diff of so many would take seconds.
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%d blocks, %d edges and %d gauges became %d, %d and %d, or others", len(want.All), len(want.Pointers), len(want.Gauges),
			len(got.All), len(got.Pointers), len(got.Gauges))
	}
}

func TestCutShort(t *testing.T) {
	whole := write(t, Options{}, many(100_000))
	for _, n := range []int{9, 12, 100, len(whole) / 2, len(whole) - 1} {
		var got memory
		_, err := Read(bytes.NewReader(whole[:n]), &got)
		if !errors.Is(err, ErrDamaged) || len(got.Gaps) != 1 {
			t.Errorf("the first %d of %d bytes: %v, gaps %v", n, len(whole), err, got.Gaps)
		}
		if n == len(whole)/2 && len(got.All) < 25_000 {
			t.Errorf("only %d blocks were read of half the file", len(got.All))
		}
	}
	text := write(t, Options{Text: true}, everything)
	var got memory
	_, err := Read(bytes.NewReader(text[:len(text)-len("end\n")]), &got)
	if !errors.Is(err, ErrDamaged) || len(got.Looks) != 2 {
		t.Errorf("text without its end: %v", err)
	}
}

func TestADamagedPartIsLeftOut(t *testing.T) {
	whole := write(t, Options{}, many(100_000))
	whole[len(whole)/2] ^= 0x10
	var got memory
	_, err := Read(bytes.NewReader(whole), &got)
	if !errors.Is(err, ErrDamaged) || len(got.Gaps) != 1 {
		t.Fatalf("%v, gaps %v", err, got.Gaps)
	}
	if n := len(got.All); n < 40_000 || n == 100_000 {
		t.Errorf("%d blocks were read", n)
	}
}

func TestOtherFiles(t *testing.T) {
	for _, s := range []string{"", "x", "{\"schema\": \"stanch.report/v1\"}", "\x7fELF\x02\x01\x01\x00\x00", compactMagic + "\x07"} {
		_, err := Read(strings.NewReader(s), &memory{})
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestAFullDiskIsSaid(t *testing.T) {
	for _, o := range []Options{{Text: true}, {}} {
		w := NewWriter(&failing{after: 50 << 10}, header, o)
		many(100_000)(w)
		if w.Err() == nil || !errors.Is(w.Close(), io.ErrShortWrite) {
			t.Errorf("%+v: %v", o, w.Err())
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, Options{Text: true, Contents: true}, everything))
	f.Add(write(f, Options{Contents: true}, everything))
	f.Add(write(f, Options{Text: true}, func(w leak.EdgeSink) { sayBeside(w.(Sink)) }))
	f.Add(write(f, Options{}, func(w leak.EdgeSink) { sayBeside(w.(Sink)) }))
	f.Add([]byte(textMagic + "lost 0x10*5/16 24 zero\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, again memory
		h, err := Read(bytes.NewReader(data), &first)
		if err != nil {
			return
		}
		// What can be read can be written, and then says the same.
		for _, o := range []Options{{Text: true}, {}} {
			var b bytes.Buffer
			w := NewWriter(&b, h, o)
			for _, m := range first.Maps {
				w.Map(m)
			}
			for _, i := range first.Invalids {
				w.Invalid(i)
			}
			w.Held(first.Holders)
			w.Verdicts(first.Lost)
			w.Edges(first.Pointers)
			sayAgain(w, &first)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			again = memory{}
			if _, err := Read(&b, &again); err != nil {
				t.Fatalf("%+v: %v", o, err)
			}
			if len(again.Maps) != len(first.Maps) || len(again.Pointers) != len(first.Pointers) || len(again.Invalids) != len(first.Invalids) || len(again.Holders) != len(first.Holders) {
				t.Fatalf("%+v: %d maps, %d edges became %d, %d", o, len(first.Maps), len(first.Pointers), len(again.Maps), len(again.Pointers))
			}
			if len(data) < stringMax {
				if diff := cmp.Diff(ofDescriptors(&first), ofDescriptors(&again)); diff != "" {
					t.Fatalf("%+v: %s", o, diff)
				}
			}
		}
	})
}

// BenchmarkHeap writes a heap of 10 million blocks and as many pointers.
func BenchmarkHeap(b *testing.B) {
	for b.Loop() {
		n := new(counter)
		w := NewWriter(n, header, Options{})
		many(10_000_000)(w)
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(*n)/1e6, "MB/file")
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
