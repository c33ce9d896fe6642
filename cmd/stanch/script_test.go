package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"stanch/internal/fixture"
)

// TestScripts runs testdata/*.txtar: the command line as a user types it, on
// real processes.
func TestScripts(t *testing.T) {
	privileged(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Values[tbKey{}] = env.T().(testing.TB)
			env.Values[tbTargets{}] = map[string]*fixture.Proc{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"target":  scriptTarget,
			"compile": scriptCompile,
			"ask":     scriptAsk,
			"exits":   scriptExits,
			"end":     scriptEnd,
			"mode":    scriptMode,
			"cut":     scriptCut,
		},
	})
}

// tbKey finds the running test in a script's values.
type tbKey struct{}

// tbTargets finds the targets of a script there, by PID.
type tbTargets struct{}

func tb(ts *testscript.TestScript) testing.TB { return ts.Value(tbKey{}).(testing.TB) }

// scriptTarget starts a program of testdata/leaky and puts its PID into a
// variable: target VAR NAME [COMMAND ...]; each command is answered by "ok".
func scriptTarget(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: target VAR NAME [COMMAND ...]")
	}
	p := fixture.Start(tb(ts), fixture.Build(tb(ts), args[1]))
	for _, command := range args[2:] {
		p.Ask(command, "ok")
	}
	pids := ts.Value(tbTargets{}).(map[string]*fixture.Proc)
	pids[pid(p)] = p
	ts.Setenv(args[0], pid(p))
}

// scriptAsk lets a target do something more: ask PID COMMAND ...
func scriptAsk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: ask PID COMMAND ...")
	}
	p := scriptTargetOf(ts, args[0])
	for _, command := range args[1:] {
		p.Ask(command, "ok")
	}
}

func scriptTargetOf(ts *testscript.TestScript, pid string) *fixture.Proc {
	p := ts.Value(tbTargets{}).(map[string]*fixture.Proc)[pid]
	if p == nil {
		ts.Fatalf("%s is no target of this script", pid)
	}
	return p
}

// scriptEnd lets a target end: end PID.
func scriptEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: end PID")
	}
	scriptTargetOf(ts, args[0]).Quit()
}

// scriptCompile builds a program of testdata/leaky and puts its path into a
// variable: compile VAR NAME [FLAG ...].
func scriptCompile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: compile VAR NAME [FLAG ...]")
	}
	ts.Setenv(args[0], fixture.Build(tb(ts), args[1], args[2:]...))
}

// scriptExits runs a command and compares its exit code: exits CODE CMD ARG ...
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE CMD ARG ...")
	}
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], got, want)
	}
}

// scriptMode compares the permissions of a file: mode 0600 FILE.
func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	st, err := os.Lstat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// scriptCut copies the first part of a file: cut FROM TO PERCENT.
func scriptCut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: cut FROM TO PERCENT")
	}
	percent, err := strconv.Atoi(args[2])
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b[:len(b)*percent/100], 0o600))
}
