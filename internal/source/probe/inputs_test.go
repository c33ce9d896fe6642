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
	for _, v := range []variant{glibc, jemalloc, static} {
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
			for _, note := range tr.p.Placement().Notes {
				t.Errorf("note: %s", note)
			}
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
