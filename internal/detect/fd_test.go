package detect

import (
	"strings"
	"testing"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// TestTheLineOfAGoStack holds that the Go library is not the place to look at,
// also where nothing else is on the stack.
func TestTheLineOfAGoStack(t *testing.T) {
	for _, c := range []struct {
		functions []string
		want      string
	}{
		{[]string{"internal/runtime/syscall.Syscall6", "syscall.Syscall6", "os.openFileNolog", "os.Open", "main.(*store).load", "main.main", "runtime.main", "runtime.goexit"}, "main.(*store).load"},
		{[]string{"syscall.RawSyscall6", "net.sysSocket", "net.(*Dialer).DialContext", "net/http.(*Transport).dialConn", "net/http.(*Transport).dialConnFor", "runtime.goexit"}, "net/http.(*Transport).dialConnFor"},
		{[]string{"syscall.Syscall6", "net.(*netFD).accept", "net/http.(*Server).Serve", "example.org/shop/server.Run", "main.main"}, "example.org/shop/server.Run"},
		{[]string{"sync.part.0", "main"}, "sync"},
		{[]string{"io.cold"}, "io"},
	} {
		view := &ledger.View{Stacks: map[leak.StackID][]leak.Frame{}}
		for i := range c.functions {
			view.Stacks[1] = append(view.Stacks[1], leak.Frame{Map: 1, Off: uint64(i)})
		}
		n := newNames(view, &Config{Name: func(f leak.Frame) []leak.StackFrame {
			return []leak.StackFrame{{Function: c.functions[f.Off], Module: "app"}}
		}})
		s := n.stack(1)
		if got := functionName(&s.stack[s.line]); got != c.want {
			t.Errorf("%v: %s, want %s", c.functions, got, c.want)
		}
	}
}

// TestGoHTTP holds what is said of connections that net/http opens and keeps.
func TestGoHTTP(t *testing.T) {
	for function, want := range map[string]string{
		"net/http.(*Transport).dialConn": "Body", "net/http.(*Server).Serve": "IdleTimeout", "main.(*cache).load": "defer Close",
	} {
		s := &site{stack: []leak.StackFrame{{Function: function, File: "x.go"}}}
		if got := singleExit(s); !strings.Contains(got, want) {
			t.Errorf("%s: %s", function, got)
		}
	}
}

func TestPeers(t *testing.T) {
	for _, c := range []struct {
		peer, want string
		wanted     bool
	}{
		{"10.0.0.5:5432", "10.0.0.5:5432", true},
		{"10.0.0.5:5432", "10.0.0.5", true},
		{"10.0.0.5:5432", ":5432", true},
		{"[::ffff:10.0.0.5]:5432", "10.0.0.5:5432", true},
		{"10.0.0.5:5432", "[::ffff:10.0.0.5]:5432", true},
		{"[2001:db8::1]:443", "2001:db8::1", true},
		{"[2001:db8::1]:443", "[2001:db8::1]", true},
		{"[2001:db8::1]:443", "[2001:db8::1]:443", true},
		{"[2001:db8::1]:443", ":443", true},
		{"/run/app.sock", "/run/app.sock", true},
		{"10.0.0.5:5432", "10.0.0.50", false},
		{"10.0.0.5:5432", ":543", false},
		{"10.0.0.5:54321", "10.0.0.5:5432", false},
		{"", ":5432", false},
	} {
		e := fdEntry{peer: unmapped(c.peer)}
		if got := e.wanted(&Config{Peer: c.want}); got != c.wanted {
			t.Errorf("%q by %q: %v", c.peer, c.want, got)
		}
	}
}

func TestRanges(t *testing.T) {
	var entries []*fdEntry
	for _, n := range []int{3, 5, 6, 7, 9, 10} {
		entries = append(entries, &fdEntry{OpenDescriptor: &ledger.OpenDescriptor{Descriptor: leak.Descriptor{Num: n}}})
	}
	if got := ranges(entries); got != "3, 5-7, 9-10" {
		t.Error(got)
	}
}
