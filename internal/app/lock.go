package app

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"stanch/internal/proc"
)

// lock keeps a second stanch away from a target. It is an abstract unix
// socket: it vanishes with its holder, also when that is killed, and leaves no
// file. It is seen within one network namespace; across them, ptrace itself
// and the probe's own header keep two stanches apart.
func lock(t *proc.Target) (release func(), err error) {
	name := fmt.Sprintf("@stanch/%d.%d", t.ID.PID, t.ID.Start)
	l, err := net.Listen("unix", name)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another stanch is working on pid %d; wait for it or end it", t.ID.PID)
	}
	if err != nil {
		return nil, fmt.Errorf("lock pid %d: %w", t.ID.PID, err)
	}
	return func() { _ = l.Close() }, nil // a socket that nobody connects to
}
