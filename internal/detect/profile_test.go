package detect

import (
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// recorded is ten seconds of a program: net.c allocates a block of 400 bytes
// each second, from two callers, and frees none; util.c holds 100,000 bytes
// from the first second on; spike.c frees all it allocates.
func recordedView(t *testing.T) (*ledger.View, Config) {
	t.Helper()
	names := map[uint64][]string{
		1: {"malloc", "xmalloc"}, 2: {"parse_reply(int)"}, 3: {"poll_host"}, 4: {"main"}, 5: {"load"}, 6: {"std::vector<int>::push_back(int&&)", "fill"}, 7: {"other_host"},
	}
	id := leak.ProcID{PID: 7, Start: 1}
	l := ledger.New()
	l.Map(leak.Mapping{ID: 1, Path: "/bin/collectd", Inode: 1, BuildID: "4f1c99aa"})
	at := func(n ...uint64) (out []leak.Frame) {
		for _, off := range n {
			out = append(out, leak.Frame{Map: 1, Off: off})
		}
		return out
	}
	l.Stack(1, at(1, 2, 3, 4))
	l.Stack(2, at(5, 4))
	l.Stack(3, at(6, 4))
	l.Stack(4, at(1, 2, 7, 4))
	say := func(sec int, stack leak.StackID, acquired, released leak.Count, exact bool) {
		l.Tally(leak.Tally{At: time.Duration(sec) * time.Second, Proc: id, Kind: leak.KindMemory, Stack: stack, Acquired: acquired, Released: released, Exact: exact})
	}
	for sec := 1; sec <= 10; sec++ {
		n := float64(sec)
		say(sec, 1, leak.Count{N: n, Bytes: 400 * n}, leak.Count{}, true)
		say(sec, 4, leak.Count{N: n, Bytes: 400 * n}, leak.Count{}, true)
		say(sec, 2, leak.Count{N: 2.5, Bytes: 100_000}, leak.Count{}, false)
		say(sec, 3, leak.Count{N: 9 * n, Bytes: 900 * n}, leak.Count{N: 9 * n, Bytes: 900 * n}, true)
		l.Gauge(leak.Gauge{At: time.Duration(sec)*time.Second + time.Millisecond, Proc: id, Name: leak.GaugeProbeCalls, Value: 1})
	}
	for sec := uint64(2); sec <= 10; sec++ {
		l.Acquire(leak.Acquire{At: time.Duration(sec) * time.Second, Ref: leak.Ref{Proc: id, Kind: leak.KindMemory, ID: sec << 10}, Size: 400, Stack: 1, Weight: 1, Exact: true})
	}
	return l.View(), Config{Name: func(f leak.Frame) (out []leak.StackFrame) {
		for _, name := range names[f.Off] {
			out = append(out, leak.StackFrame{Function: name})
		}
		return out
	}}
}

// order is the functions of a profile's sites.
func order(p *leak.Profile) string {
	var names []string
	for i := range p.Sites {
		names = append(names, p.Sites[i].Stack[p.Sites[i].Site].Function)
	}
	return strings.Join(names, " ")
}

func TestProfile(t *testing.T) {
	view, config := recordedView(t)
	p := Profile(view, config, leak.Recorded{Mode: leak.RecordExact, Sort: "bytes"}, 0)
	if got := order(p); got != "load parse_reply(int) parse_reply(int) fill" {
		t.Errorf("by bytes: %s", got)
	}
	if p.Count != 4 || !p.Total.Estimated || p.Total.Held != (leak.Amount{Count: 23, Bytes: 108_000}) {
		t.Errorf("%d sites, total %+v", p.Count, p.Total)
	}
	load, parse, fill := &p.Sites[0], &p.Sites[1], &p.Sites[3]
	if !load.Estimated || load.OldestS != nil || load.BytesPerHour == nil || *load.BytesPerHour != 0 || load.Held != (leak.Amount{Count: 3, Bytes: 100_000}) {
		t.Errorf("load: %+v", load)
	}
	if parse.Stack[0].Function != "xmalloc" || parse.Site != 1 {
		t.Errorf("the wrapper does not stay: %+v", parse.Stack)
	}
	if fill.Held != (leak.Amount{}) || fill.Released.Count != 90 || fill.Stack[0].Function != "std::vector<int>::push_back(int&&)" || fill.Site != 1 {
		t.Errorf("fill: %+v", fill)
	}
	slope := 0
	for i := range p.Sites {
		if s := &p.Sites[i]; s.BytesPerHour != nil && *s.BytesPerHour == 400*3600 {
			slope++
		}
		if s := &p.Sites[i]; s.OldestS != nil && (*s.OldestS < 8 || *s.OldestS > 8.1) {
			t.Errorf("the oldest block of %s is %v s old", s.Stack[s.Site].Function, *s.OldestS)
		}
	}
	if slope != 2 {
		t.Errorf("%d sites grow by 400 bytes a second", slope)
	}
	for _, s := range p.Stacks {
		if n := s.Places[0].Names[0].Function; n == "malloc" {
			t.Error("the allocator is in a stack")
		}
	}
}

func TestProfileOrders(t *testing.T) {
	view, config := recordedView(t)
	for sort, want := range map[string]string{
		"count":  "parse_reply(int) parse_reply(int) load fill",
		"growth": "parse_reply(int) parse_reply(int) load fill",
		"age":    "parse_reply(int) load parse_reply(int) fill",
	} {
		if got := order(Profile(view, config, leak.Recorded{Sort: sort}, 0)); got != want {
			t.Errorf("by %s: %s", sort, got)
		}
	}
	if !ProfileOrder("age") || ProfileOrder("name") {
		t.Error("the names of orders")
	}
	if p := Profile(view, config, leak.Recorded{}, 2); len(p.Sites) != 2 || p.Count != 4 || len(p.Stacks) != 4 {
		t.Errorf("the two largest: %d of %d, %d stacks", len(p.Sites), p.Count, len(p.Stacks))
	}
}

func TestProfileThrough(t *testing.T) {
	view, config := recordedView(t)
	for function, want := range map[string]int{"parse_reply": 2, "parse_reply(int)": 2, "poll_host": 1, "main": 4, "fill": 1, "push_back": 0, "absent": 0} {
		p := Profile(view, config, leak.Recorded{Through: []string{function}}, 0)
		if p.Count != want || len(p.Stacks) != want || (len(p.Notes) == 1) != (want == 0) {
			t.Errorf("through %s: %d sites, %d stacks, notes %q", function, p.Count, len(p.Stacks), p.Notes)
		}
	}
	if p := Profile(view, config, leak.Recorded{Through: []string{"poll_host", "load"}}, 0); p.Count != 2 {
		t.Errorf("through either: %d sites", p.Count)
	}
}
