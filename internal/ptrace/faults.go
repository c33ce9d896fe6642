//go:build faults

package ptrace

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var (
	stepsTaken atomic.Int64
	dieAt      = fromEnv(os.Getenv("STANCH_DIE_AT"))
	dieIn      = os.Getenv("STANCH_DIE_AT_NAME")
	tell       = os.Getenv("STANCH_STEPS") == "1"
)

func fromEnv(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// step marks a point between two effects on the target. In this build the
// process kills itself at the point whose number, from 1, is STANCH_DIE_AT, or
// at the first whose name is STANCH_DIE_AT_NAME; with STANCH_STEPS=1 each point
// is written to stderr as "step N name".
func step(name string) {
	n := stepsTaken.Add(1)
	if tell {
		fmt.Fprintf(os.Stderr, "step %d %s\n", n, name)
	}
	if n == dieAt || dieIn != "" && name == dieIn {
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
		select {}
	}
}
