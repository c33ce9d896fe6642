//go:build faults

package probe

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var (
	steps    atomic.Int64
	dieAt, _ = strconv.ParseInt(os.Getenv("STANCH_PROBE_DIE_AT"), 10, 64)
	tell     = os.Getenv("STANCH_STEPS") == "1"
)

// step marks a point between two effects on the target. In this build the
// process kills itself at the point whose number, from 1, is
// STANCH_PROBE_DIE_AT; with STANCH_STEPS=1 each is written to stderr.
func step(name string) {
	n := steps.Add(1)
	if tell {
		fmt.Fprintf(os.Stderr, "probe step %d %s\n", n, name)
	}
	if n == dieAt {
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
		select {}
	}
}
