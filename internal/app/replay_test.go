package app

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/record"
	"stanch/internal/render"
)

// saidPlan writes a small recording of allocations.
func saidPlan(t testing.TB, text bool) []byte {
	t.Helper()
	var b bytes.Buffer
	id := leak.ProcID{PID: 7, Start: 1}
	w := record.NewWriter(&b, record.Header{Comm: "collectd", Proc: id}, record.Options{Text: text})
	w.Recorded(leak.Recorded{Mode: leak.RecordExact, Sort: "bytes", Allocator: "glibc 2.36"})
	w.Map(leak.Mapping{ID: 1, Start: 0x1000, End: 0x3000, Exec: true, Inode: 9, Path: "/nowhere/collectd", BuildID: "4f1c"})
	w.Stack(1, []leak.Frame{{Map: 1, Off: 0x1139}, {Map: 1, Off: 0x1200}})
	for i := range 8 {
		at, n := time.Duration(i)*time.Second, float64(i+1)
		w.Tally(leak.Tally{At: at, Proc: id, Kind: leak.KindMemory, Stack: 1, Acquired: leak.Count{N: n, Bytes: 400 * n}, Exact: true})
		w.Gauge(leak.Gauge{At: at, Proc: id, Name: leak.GaugeProbeCalls, Value: n})
	}
	w.Acquire(leak.Acquire{At: 2 * time.Second, Ref: leak.Ref{Proc: id, Kind: leak.KindMemory, ID: 64}, Size: 400, Stack: 1, Weight: 1, Exact: true})
	w.Gap(leak.Gap{At: time.Second, Proc: id, Source: "probe", What: "blocks were not recorded", Lost: 1200})
	w.Name(leak.Frame{Map: 1, Off: 0x1139}, []leak.StackFrame{{Function: "parse_reply", File: "net.c", Line: 88, Module: "collectd", Offset: 0x1139}})
	w.Note("a note")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func replayOf(data []byte) (*leak.Profile, error) {
	a := &app{std: Streams{Out: io.Discard, Err: io.Discard}}
	_, p, err := a.replay("x.rec", data, &reportFlags{})
	return p, err
}

func TestReplay(t *testing.T) {
	for _, form := range []bool{true, false} {
		p, err := replayOf(saidPlan(t, form))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := render.ProfileText(&b, p); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"collectd[7], glibc 2.36", "every block, with its stack", "3.2 KB", "5 s  +1.4 MB/h", "parse_reply net.c:88 < collectd+0x1200",
			"not seen: blocks were not recorded (1,200)", "note: a note",
		} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("the table lacks %q:\n%s", want, b.String())
			}
		}
	}
}

func TestKnown(t *testing.T) {
	for want, names := range map[int][]leak.StackFrame{
		withoutName: {{Module: "m", Offset: 1}},
		withName:    {{Function: "f"}},
		withLine:    {{Function: "inlined"}, {Function: "f", File: "f.c", Line: 1}},
	} {
		if got := known(names); got != want {
			t.Errorf("%+v: %d, want %d", names, got, want)
		}
	}
	if known(nil) != withoutName {
		t.Error("no names at all")
	}
}

// FuzzReplay holds that any file can be shown or refused.
func FuzzReplay(f *testing.F) {
	f.Add(saidPlan(f, true))
	f.Add(saidPlan(f, false))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := replayOf(data)
		if err != nil || p == nil {
			return
		}
		var b bytes.Buffer
		if err := render.ProfileText(&b, p); err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(b.Bytes(), "\x1b\x07\x00\r") {
			t.Errorf("control characters in the text: %q", b.String())
		}
		if err := render.Pprof(io.Discard, p); err != nil {
			t.Fatal(err)
		}
	})
}
