// Command stanch finds what a long-running process is losing.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"stanch/internal/app"
)

// version is set by the Makefile.
var version = "devel"

// stops are the signals of a terminal that would stop stanch, Ctrl-Z among
// them. A stopped stanch could hold the target still for as long.
var stops = []os.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU}

func main() {
	// The first signal ends the command with what it has; after it the signals
	// act as usual again, so a second one ends stanch at once. The target runs
	// on in either case.
	signal.Ignore(stops...)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	code := app.Main(ctx, app.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version, os.Args[1:])
	os.Exit(code)
}
