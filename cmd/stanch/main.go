// Command stanch finds what a long-running process is losing.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"stanch/internal/app"
)

// version is set by the Makefile.
var version = "devel"

func main() {
	// The first signal ends the command with what it has; a second after it the
	// signals act as usual again, so another one ends stanch at once. The target
	// runs on in either case. timeout(1) sends its signal twice, to the process
	// and to its group: that is one.
	ctx, stop := signal.NotifyContext(context.Background(), app.Heeded(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)...)
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	code := app.Main(ctx, app.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version, os.Args[1:])
	os.Exit(code)
}
