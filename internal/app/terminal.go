package app

import (
	"io"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"stanch/internal/ui/term"
)

// columns is how wide text for w may be: the width of a terminal, COLUMNS where
// that is set, else 80. What is very wide is hard to read.
func columns(w io.Writer) int {
	width := 80
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		width = n
	}
	if f, ok := w.(*os.File); ok {
		var size struct{ rows, columns, x, y uint16 } // struct winsize, ioctl_tty(2)
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
		if errno == 0 && size.columns > 0 {
			width = int(size.columns)
		}
	}
	return min(max(width, 40), 160)
}

// chartOptions are those for w: colours on a terminal that wants them
// (https://no-color.org), and no more than ASCII where the locale has no more.
func chartOptions(w io.Writer) term.Options {
	return term.Options{
		Width: columns(w),
		Color: terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		ASCII: !term.UTF8(os.Getenv),
	}
}
