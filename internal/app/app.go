// Package app is the command line of stanch: one file per subcommand, and
// pipeline.go, which joins the parts. It is the only place for flags, files
// and logs; what the commands conclude is decided below it.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes, the same for every command and format.
const (
	ExitOK        = 0 // looked, and nothing at or above --fail-on
	ExitFault     = 1 // stanch itself failed
	ExitUsage     = 2 // the command line is wrong
	ExitFound     = 3 // something at or above --fail-on was found
	ExitUndecided = 4 // could not decide, and the output says why
)

// Streams are the standard streams of a command, so that tests can call it in
// the process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs one command line, args without the program's name, and returns the
// exit code. When ctx ends the command stops with what it has.
func Main(ctx context.Context, std Streams, version string, args []string) int {
	root := newRoot(std, version)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	var code codeError
	if errors.As(err, &code) {
		if code.err != nil {
			fmt.Fprintf(std.Err, "stanch: %v\n", code.err)
		}
		return code.code
	}
	fmt.Fprintf(std.Err, "stanch: %v\n", err)
	return ExitFault
}

// codeError ends a command with an exit code, and with a line on stderr unless
// err is nil.
type codeError struct {
	code int
	err  error
}

func (e codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e codeError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return codeError{ExitUsage, fmt.Errorf(format, args...)}
}

// Heeded leaves out the signals that stanch was started to ignore, as nohup(1)
// and the shell's background jobs do: stanch ignores them too, and so does a
// program that it starts. The Go runtime knows that of SIGHUP and SIGINT
// ([signal.Ignored]) until somebody asks to be notified of them.
func Heeded(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(signals, signal.Ignored)
}

// stops are the signals of a terminal that would stop stanch, Ctrl-Z among
// them. A stopped stanch could hold the target still for as long.
var stops = []os.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU}

// app is what the commands share.
type app struct {
	std     Streams
	version string
}

func newRoot(std Streams, version string) *cobra.Command {
	a := &app{std: std, version: version}
	cobra.EnableCommandSorting = false
	root := &cobra.Command{
		Use:   "stanch",
		Short: "Find what a long-running process is losing",
		Long: `stanch finds what a long-running Linux process is losing - heap blocks, descriptors - while it
runs, unmodified: what is lost (proved), which line lost it, how fast, when the limit comes.

The commands stand in the order of what they risk in the target; each says so in its first line.
TARGET is a PID, a process name, a systemd unit or a container id.

Exit codes: 0 nothing found, 1 stanch failed, 2 usage, 3 found, 4 could not decide.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usagef("%s", unknownCommand(cmd, args[0]))
		},
		Args: cobra.ArbitraryArgs,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			if cmd.Name() != "run" { // what stanch ignores, a program that it starts would too
				signal.Ignore(stops...)
			}
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see '%s --help'", err, cmd.CommandPath())
	})
	root.AddCommand(a.doctor(), a.fds(), a.suspects(), a.watch(), a.explain(), a.report(), a.scan(), a.diagnose(), a.run(), a.record(), a.detach())
	return root
}

// unknownCommand says what was mistyped, and the nearest command.
func unknownCommand(root *cobra.Command, word string) string {
	if near := root.SuggestionsFor(word); len(near) > 0 {
		return fmt.Sprintf("there is no command %q; did you mean '%s %s'?", word, root.Name(), near[0])
	}
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "completion" && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	return fmt.Sprintf("there is no command %q; the commands are %s", word, strings.Join(names, ", "))
}

// one is an argument check with a message that says what is wanted.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("'%s' takes one %s; got %d arguments", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// terminal reports whether w is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
