// Waits for ever, deep in a Go program. It prints its own callers first.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

func init() { runtime.LockOSThread() }

//go:noinline
func bottom() {
	pcs := make([]uintptr, 100)
	pcs = pcs[:runtime.Callers(2, pcs)] // the caller of bottom first: a return address
	for _, pc := range pcs {
		fmt.Printf("%x\n", pc)
	}
	fmt.Println("ready")
	for {
		syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
	}
}

//go:noinline
func deeper(n int, text string) int {
	var buffer [64]byte
	copy(buffer[:], text)
	if n == 0 {
		bottom()
	}
	return deeper(n-1, text+"x") + int(buffer[n])
}

func main() {
	f := func(r rune) rune {
		deeper(20, "text")
		return r
	}
	fmt.Println(strings.Map(f, os.Args[0]))
}
