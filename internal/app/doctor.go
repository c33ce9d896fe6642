package app

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"stanch/internal/proc"
	"stanch/internal/source/fdtrace"
)

// doctor says what this machine lets stanch do. It touches no process.
func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [TARGET]",
		Short: "Say what this machine lets stanch do, and what to change (touches nothing)",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("'%s' takes one TARGET or none; got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			checks := machineChecks(proc.Default)
			if len(args) == 1 {
				t, err := a.resolve(args[0])
				if err != nil {
					return err
				}
				checks = append(checks, targetChecks(t)...)
			}
			return a.printChecks(checks)
		},
	}
}

// check is one line of doctor: what was looked at, how it stands, and what
// that means or what to do.
type check struct {
	name   string
	status string // ok, limited, no
	value  string
	means  string
}

func (a *app) printChecks(checks []check) error {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.name))
	}
	bad := false
	for _, c := range checks {
		fmt.Fprintf(a.std.Out, "%-8s %-*s  %s\n", c.status, width, c.name, c.value)
		if c.means != "" {
			fmt.Fprintf(a.std.Out, "%*s  %s\n", width+9, "", c.means)
		}
		bad = bad || c.status == "no"
	}
	if bad {
		return codeError{ExitUndecided, nil}
	}
	return nil
}

// Capability numbers from linux/capability.h.
const (
	capSysPtrace = 19
	capSysAdmin  = 21
)

func machineChecks(root proc.Root) []check {
	caps := capabilities(root)
	has := func(c int) bool { return caps&(1<<c) != 0 }
	var out []check
	add := func(name, status, value, means string) { out = append(out, check{name, status, value, means}) }

	arch := runtime.GOARCH
	if arch == "amd64" {
		add("processor", "ok", "x86-64", "")
	} else {
		add("processor", "no", arch, "only x86-64 is supported")
	}
	add("kernel", "ok", word(root, "sys/kernel/osrelease"), "")

	scope := word(root, "sys/kernel/yama/ptrace_scope")
	switch {
	case has(capSysPtrace):
		add("other processes", "ok", "CAP_SYS_PTRACE: every process can be examined", "")
	case scope == "" || scope == "0":
		add("other processes", "limited", "own processes only (no CAP_SYS_PTRACE)", "for daemons of other users: sudo stanch")
	case scope == "3":
		add("other processes", "no", "kernel.yama.ptrace_scope = 3 forbids attaching until the next boot", "nothing helps but a boot with another setting")
	default:
		add("other processes", "no", "kernel.yama.ptrace_scope = "+scope+" forbids attaching without CAP_SYS_PTRACE",
			"run: sudo stanch ... (better than lowering ptrace_scope for everyone)")
	}
	if has(capSysPtrace) && scope == "3" {
		add("yama", "no", "ptrace_scope = 3 forbids attaching even to root", "nothing helps but a boot with another setting")
	}
	if has(capSysAdmin) {
		add("seccomp filters", "ok", "CAP_SYS_ADMIN: the filters of a sandboxed target can be read and evaluated", "")
	} else {
		add("seccomp filters", "limited", "unreadable without CAP_SYS_ADMIN: a target with a filter is refused", "run: sudo stanch ...")
	}
	if mode := statusField(root, "Seccomp"); mode != "" && mode != "0" {
		add("own sandbox", "limited", "stanch itself runs under seccomp mode "+mode, "if ptrace is refused: run outside of the container, or with --cap-add SYS_PTRACE")
	}
	return append(out, bpfCheck(), libcCheck(), debugCheck())
}

// bpfCheck says who can tell which descriptors are opened where.
func bpfCheck() check {
	if err := fdtrace.Available(); err != nil {
		return check{"eBPF", "limited", "not to be used: " + err.Error(),
			"fds --for and diagnose name no openers of descriptors; run --fds sees calls through the C library, run --fds=ptrace all"}
	}
	return check{"eBPF", "ok", "tracepoints tell who opens and closes descriptors", ""}
}

// libcCheck tells this machine's C library; a target in a container has its own.
func libcCheck() check {
	c := check{name: "C library", status: "limited", value: "no glibc here", means: "targets in containers bring their own; heaps of musl are not walked"}
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/lib64", "/usr/lib"} {
		b, err := os.ReadFile(dir + "/libc.so.6")
		if err != nil {
			continue
		}
		// The banner that libc.so.6 prints when it is run.
		_, banner, ok := bytes.Cut(b, []byte("GNU C Library"))
		_, version, ok2 := bytes.Cut(banner[:min(len(banner), 256)], []byte("release version "))
		if ok && ok2 {
			end := bytes.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
			c.status, c.value, c.means = "ok", "glibc "+strings.TrimRight(string(version[:max(end, 0)]), "."), ""
			break
		}
	}
	return c
}

func debugCheck() check {
	if st, err := os.Stat("/usr/lib/debug/.build-id"); err == nil && st.IsDir() {
		return check{name: "debug symbols", status: "ok", value: "/usr/lib/debug/.build-id exists"}
	}
	return check{name: "debug symbols", status: "limited", value: "no /usr/lib/debug/.build-id",
		means: "file:line needs programs built with -g, or their -dbgsym packages; function names mostly need neither"}
}

func targetChecks(t *proc.Target) []check {
	var out []check
	plan, err := preflight(t)
	if err != nil {
		return []check{{"target", "no", err.Error(), ""}}
	}
	name := fmt.Sprintf("pid %d", t.ID.PID)
	for _, r := range plan.Refusals {
		out = append(out, check{name, "no", r, ""})
	}
	for _, n := range plan.Notes {
		out = append(out, check{name, "limited", n, ""})
	}
	if len(plan.Refusals) == 0 {
		out = append(out, check{name, "ok", fmt.Sprintf("a snapshot stops it for about %.0f ms", plan.Pause.Seconds()*1000), ""})
	}
	return out
}

func capabilities(root proc.Root) uint64 {
	n, _ := strconv.ParseUint(statusField(root, "CapEff"), 16, 64)
	return n
}

func statusField(root proc.Root, name string) string {
	b, err := os.ReadFile(string(root) + "/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// word reads a one-line file below procfs; "" when it does not exist.
func word(root proc.Root, path string) string {
	b, err := os.ReadFile(string(root) + "/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
