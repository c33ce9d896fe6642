package proc

import (
	"os"

	"golang.org/x/sys/unix"
)

// InForeground reports whether stanch has a terminal that sends its signals
// (Ctrl-C) to the process group of stanch.
func InForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
