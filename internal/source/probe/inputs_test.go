package probe

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// http is "HTTP", read as a number with its highest byte first.
const http = 0x48545450

// TestInputs: a program takes "HTTP" for a length; the request is joined with
// the connection that the four bytes came from.
func TestInputs(t *testing.T) {
	for _, v := range []variant{glibc, jemalloc, static, linked, hidden} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			prog := v.start(t, "fdhttp")
			o := options()
			o.Inputs = true
			o.Source = func(num int) string {
				link, _ := os.Readlink("/proc/" + strconv.Itoa(prog.PID()) + "/fd/" + strconv.Itoa(num))
				return link
			}
			tr := place(t, prog, o)
			prog.Ask("churn 3", "ok")
			tr.look()
			if n := len(tr.seen.inputs); n != 0 {
				t.Errorf("%d inputs of proper frames", n)
			}
			prog.Ask("keep 1", "ok")
			tr.look()
			var fd, port int
			if _, err := fmt.Sscanf(prog.Ask("source", "source"), "source %d %d", &fd, &port); err != nil {
				t.Fatal(err)
			}
			if len(tr.seen.inputs) != 1 {
				t.Fatalf("inputs: %+v", tr.seen.inputs)
			}
			in := tr.seen.inputs[0]
			if in.Size != http || in.Num != fd || !strings.HasPrefix(in.Source, "socket:") || !slices.Contains(tr.seen.names(in.Stack), "main") {
				t.Errorf("%+v by %v, want descriptor %d", in, tr.seen.names(in.Stack), fd)
			}
			tr.look()
			if n := len(tr.seen.inputs); n != 1 {
				t.Errorf("it is said %d times", n)
			}
			prog.Quit()
		})
	}
}

// TestSameIsland: where the allocator is part of the program, and libc out of its
// reach, what stays in the target serves again.
func TestSameIsland(t *testing.T) {
	prog := linked.start(t, "fdhttp")
	target := open(t, prog.PID())
	count := func() (n int) {
		maps, err := target.Maps()
		if err != nil {
			t.Fatal(err)
		}
		for i := range maps {
			if anonymous(&maps[i]) && maps[i].Exec && maps[i].Path == "" {
				n++
			}
		}
		return n
	}
	o := options()
	for i := range 6 {
		o.Inputs, o.Descriptors = i != 2, i%2 == 1
		tr := place(t, prog, o)
		if i != 2 && len(tr.p.islands) != 1 {
			t.Fatalf("%d islands", len(tr.p.islands))
		}
		tr.look()
		prog.Ask("churn 3", "ok")
		prog.Ask("keep 1", "ok")
		tr.look()
		if want := i != 2; (len(tr.seen.inputs) == 1) != want {
			t.Errorf("placement %d: inputs %v", i, tr.seen.inputs)
		}
		if o.Descriptors {
			tr.same()
		}
		if err := tr.p.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(); n != 2 {
			t.Errorf("placement %d left %d executable mappings", i, n)
		}
	}
	prog.Quit()
}
