package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
)

// maxExposure is what systemd-analyze security may say of the unit, of 10. What
// is left is what a watch is for: to see all processes and to serve a page.
const maxExposure = 2.0

// unitDir makes a directory with the unit, its command being exe, and with the
// drop-ins.
func unitDir(t *testing.T, exe string, dropIns ...string) (unit string) {
	t.Helper()
	dir, source := t.TempDir(), filepath.Join(fixture.RepoRoot(t), "packaging/systemd")
	place := func(from, to string) {
		text, err := os.ReadFile(filepath.Join(source, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, to, strings.ReplaceAll(string(text), "/usr/bin/stanch", exe))
	}
	unit = filepath.Join(dir, "stanch-watch.service")
	place("stanch-watch.service", unit)
	for _, name := range dropIns {
		place(name, filepath.Join(dir, "stanch-watch.service.d", name))
	}
	return unit
}

// settings are the values of a key of a unit file, in order, without those
// that an empty one takes back.
func settings(t *testing.T, path, key string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		if values = append(values, m[1]); m[1] == "" {
			values = nil
		}
	}
	return values
}

// TestUnit: systemd understands the unit and finds it well confined, with its
// drop-in too.
func TestUnit(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, dropIns := range [][]string{nil, {"diagnose.conf"}} {
		unit := unitDir(t, self, dropIns...)
		if out := tool(t, "", "systemd-analyze", "verify", unit); out != "" {
			t.Errorf("with %v: systemd-analyze verify: %s", dropIns, out)
		}
	}
	out := tool(t, "", "systemd-analyze", "security", "--no-pager", "--offline=true", unitDir(t, self))
	m := regexp.MustCompile(`Overall exposure level for stanch-watch\.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze security gives no level:\n%s", out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > maxExposure {
		t.Errorf("the exposure is %s, above %v:\n%s", m[1], maxExposure, out)
	}
}

// TestUnitCommand: the program takes the command lines of the unit and of its
// drop-in, with the rights of the unit and no others, and sees all there is.
func TestUnitCommand(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can start stanch as another user")
	}
	for _, dropIns := range [][]string{nil, {"diagnose.conf"}} {
		s := beginAs(t, asUnit(t, dropIns...), append(unitCommand(t, dropIns...), "--check", "--listen", "127.0.0.1:0")...)
		o := s.wait()
		o.wantCode(t, 0)
		if !strings.Contains(o.out, "processes") || strings.Contains(o.out, "FAILS") {
			t.Errorf("with %v:\n%s", dropIns, o.out)
		}
	}
}

// unitFile is the file that has the unit's command line and rights.
func unitFile(t *testing.T, dropIns []string) string {
	t.Helper()
	return filepath.Join(fixture.RepoRoot(t), "packaging/systemd", append([]string{"stanch-watch.service"}, dropIns...)[len(dropIns)])
}

// unitCommand are the arguments of the command of the unit.
func unitCommand(t *testing.T, dropIns ...string) []string {
	t.Helper()
	commands := settings(t, unitFile(t, dropIns), "ExecStart")
	if len(commands) != 1 {
		t.Fatalf("%d commands", len(commands))
	}
	return strings.Fields(commands[0])[1:]
}

// capabilities are the numbers of those that the unit names, from
// linux/capability.h.
var capabilities = map[string]uintptr{"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_KILL": 5, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}

// asUnit makes a command run as the unit does: as a user without rights but
// the unit's capabilities, in the directories that systemd gives it.
func asUnit(t *testing.T, dropIns ...string) func(*exec.Cmd) {
	t.Helper()
	dir, err := sharedDir()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "stanch")
	copyFile(t, self, exe)
	env := []string{"PATH=" + os.Getenv("PATH")}
	for _, name := range []string{"STATE", "RUNTIME"} {
		own := filepath.Join(dir, strings.ToLower(name))
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(own, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"_DIRECTORY="+own)
	}
	var caps []uintptr
	named := settings(t, unitFile(t, dropIns), "AmbientCapabilities")
	for _, name := range strings.Fields(strings.Join(named, " ")) {
		number, ok := capabilities[name]
		if !ok {
			t.Fatalf("the unit names %s", name)
		}
		caps = append(caps, number)
	}
	if bound := settings(t, unitFile(t, dropIns), "CapabilityBoundingSet"); !slices.Equal(bound, named) {
		t.Errorf("the unit may have %v and gets %v", bound, named)
	}
	return func(c *exec.Cmd) {
		c.Path, c.Dir, c.Env = exe, "/", env
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: caps}
	}
}

// TestUnitRights: a watch with the unit's rights reads of another user's
// process what needs them, and each of the two is needed.
func TestUnitRights(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can start stanch as another user")
	}
	p := fixture.StartCmd(t, exec.Command(compile(t, "shifty.c"))) // root's
	seen := func(caps ...string) bool {
		as := asUnit(t)
		page := freeAddress(t)
		s := beginAs(t, func(c *exec.Cmd) {
			as(c)
			if caps != nil {
				c.SysProcAttr.AmbientCaps = nil
				for _, name := range caps {
					c.SysProcAttr.AmbientCaps = append(c.SysProcAttr.AmbientCaps, capabilities[name])
				}
			}
		}, "watch", "--every", "200ms", "--min-age", "0", "--listen", page, pid(p))
		for s.running() && !strings.Contains(s.stderr(), "watching") {
			s.next()
		}
		if !s.running() { // it may not watch this process
			s.wait().wantLine(t, 1, "runs as root", "sudo stanch")
			return false
		}
		// Its first sweep says what needs no rights, and soon the rest.
		var text, of string
		eventually(t, func() bool {
			text = get(t, "http://"+page+"/metrics")
			of = place(text, pid(p))
			return of != "" && strings.Contains(text, "stanch_process_resident_memory_bytes{"+of+"} ") && sweeps(text) > 10
		})
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.wait().wantCode(t, 0)
		return strings.Contains(text, "stanch_process_received_bytes_total{"+of+"} ")
	}
	if !seen() {
		t.Error("with the unit's rights /proc/PID/io of another user's process is not read")
	}
	for _, only := range []string{"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"} {
		if seen(only) {
			t.Errorf("%s is enough", only)
		}
	}
	p.Quit()
}

// eventually waits until ok.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// sweeps is how often the watch has looked.
func sweeps(page string) (n int) {
	_, rest, _ := strings.Cut(page, "\nstanch_watch_sweeps_total ")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// TestUnitCalls: the unit's filter lets through what a watch calls.
func TestUnitCalls(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(t.TempDir(), "trace")
	page := freeAddress(t)
	s := beginAs(t, func(c *exec.Cmd) {
		strace, err := exec.LookPath("strace")
		if err != nil {
			t.Fatal(err)
		}
		c.Args = append([]string{"strace", "-f", "-qq", "-o", trace, c.Path}, c.Args[1:]...)
		c.Path = strace
	}, "watch", "--every", "200ms", "--min-age", "0", "--data", filepath.Join(t.TempDir(), "data"), "--listen", page, strconv.Itoa(os.Getpid()))
	s.await("watching")
	eventually(t, func() bool { return sweeps(get(t, "http://"+page+"/metrics")) > 3 })
	strace := strconv.Itoa(s.cmd.Process.Pid)
	child, err := os.ReadFile("/proc/" + strace + "/task/" + strace + "/children")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(child))); err != nil || syscall.Kill(n, syscall.SIGTERM) != nil {
		t.Fatalf("strace has the children %q", child)
	}
	s.wait().wantCode(t, 0)
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	allowed := filterOf(t, settings(t, unitFile(t, nil), "SystemCallFilter"))
	called := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z_0-9]+)\(`).FindAllStringSubmatch(string(text), -1) {
		if call := m[1]; !called[call] && !allowed[call] {
			t.Errorf("the filter does not let %s through", call)
		}
		called[m[1]] = true
	}
	if len(called) < 20 || !called["openat"] {
		t.Errorf("only %d different calls were seen", len(called))
	}
}

// filterOf gives the calls that a unit's filter allows: systemd.exec(5).
func filterOf(t *testing.T, lines []string) map[string]bool {
	t.Helper()
	sets := map[string][]string{}
	var set string
	out, err := exec.Command("systemd-analyze", "syscall-filter", "--no-pager").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		switch word := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "@"):
			set = word
		case word != "" && !strings.HasPrefix(word, "#"):
			sets[set] = append(sets[set], word)
		}
	}
	allowed := map[string]bool{}
	var apply func(word string, allow bool)
	apply = func(word string, allow bool) {
		if !strings.HasPrefix(word, "@") {
			allowed[word] = allow
			return
		}
		if len(sets[word]) == 0 {
			t.Fatalf("systemd knows no set %s", word)
		}
		for _, w := range sets[word] {
			apply(w, allow)
		}
	}
	apply("@default", true)
	for _, line := range lines {
		line, denied := strings.CutPrefix(line, "~")
		for _, word := range strings.Fields(line) {
			apply(word, !denied)
		}
	}
	return allowed
}

// TestUnitRuns installs the unit on a host of its own, as its comment says, and
// runs it there: systemd learns that it is ready, restarts it when it hangs or
// is killed, and ends it in order; what it had kept stays. It sees a growing
// service by the name of its unit, reads that unit's journal, and with the
// drop-in it diagnoses the service.
func TestUnitRuns(t *testing.T) {
	privileged(t)
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := fixture.NewHost(t)
	for to, from := range map[string]string{"usr/bin/stanch": self, "opt/demo": fixture.Build(t, "demo", "-O2")} {
		host.Place(to, "", 0o755)
		copyFile(t, from, filepath.Join(host.Files, to))
	}
	unit, err := os.ReadFile(filepath.Join(fixture.RepoRoot(t), "packaging/systemd/stanch-watch.service"))
	if err != nil {
		t.Fatal(err)
	}
	host.Place("etc/systemd/system/stanch-watch.service", string(unit), 0o644)
	host.Place("etc/systemd/system/demo.service", "[Service]\nExecStart=/opt/demo -f 0.4 -k 300\n", 0o644)
	host.Boot()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := host.Run(name, args...)
		if err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
	property := func(service, key string) string {
		t.Helper()
		return run("systemctl", "show", "--value", "-p", key, service)
	}

	// As it is shipped.
	run("systemctl", "start", "demo", "stanch-watch")
	if status := property("stanch-watch", "StatusText"); !strings.HasPrefix(status, "watching") {
		t.Errorf("its status is %q", status)
	}
	if page := run("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9142; printf 'GET /metrics HTTP/1.0\r\nHost: localhost:9142\r\n\r\n' >&3; cat <&3`); !strings.Contains(page, "stanch_build_info") {
		t.Errorf("its page: %s", page)
	}
	run("systemctl", "stop", "stanch-watch")
	if result, code := property("stanch-watch", "Result"), property("stanch-watch", "ExecMainStatus"); result != "success" || code != "0" {
		t.Errorf("it was stopped, and ended with %s, %s", result, code)
	}

	// With a past, and faster.
	main, err := strconv.Atoi(property("demo", "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	past, data := time.Now(), filepath.Join(host.Root(), "var/lib/private/stanch")
	grown(t, data, daemon{pid: main, service: "demo.service", started: time.Now()})
	if check, err := host.Run("stanch", "watch", "--check", "--journal", "demo", "--journal", "absent"); err != nil || !strings.Contains(check, "that of demo can be read") || !strings.Contains(check, "nothing of absent") {
		t.Errorf("--check of journals: %v: %s", err, check)
	}
	command := "[Service]\nExecStart=\nExecStart=/usr/bin/stanch watch --every 500ms --judge-every 1s --min-age 0s --journal demo"
	dropIn := func(name, text string) {
		t.Helper()
		dir := filepath.Join(host.Root(), "etc/systemd/system/stanch-watch.service.d")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), text)
		run("systemctl", "daemon-reload")
	}
	dropIn("fast.conf", command+"\nWatchdogSec=3s\nRestartSec=1s\n")
	run("systemctl", "start", "stanch-watch")
	for restarts, signal := range []string{"STOP", "KILL"} {
		run("systemctl", "kill", "--signal="+signal, "--kill-whom=main", "stanch-watch")
		eventually(t, func() bool {
			return property("stanch-watch", "NRestarts") == strconv.Itoa(restarts+1) && property("stanch-watch", "ActiveState") == "active"
		})
	}

	diagnose, err := os.ReadFile(filepath.Join(fixture.RepoRoot(t), "packaging/systemd/diagnose.conf"))
	if err != nil {
		t.Fatal(err)
	}
	dropIn("diagnose.conf", string(diagnose))
	dropIn("fast2.conf", command+" --diagnose-on leak --diagnose-for 12s\n")
	run("systemctl", "restart", "stanch-watch")
	journal := func() string { return run("journalctl", "-u", "stanch-watch", "-o", "cat", "--no-pager") }
	eventually(t, func() bool { return strings.Contains(journal(), "diagnose of pid "+strconv.Itoa(main)+": ") })
	if text := journal(); !strings.Contains(text, "diagnose of pid "+strconv.Itoa(main)+": leak:") {
		t.Errorf("it was not diagnosed as a leak:\n%s", text)
	}
	text := run("stanch", "suspects", "demo.service")
	for _, words := range []string{"GROWTH", "data truncated", "demo.service"} {
		if !strings.Contains(text, words) {
			t.Errorf("the text lacks %q:\n%s\n%s", words, text, journal())
		}
	}
	run("systemctl", "stop", "stanch-watch")
	if result := property("stanch-watch", "Result"); result != "success" {
		t.Errorf("it was stopped, and ended with %s", result)
	}
	store, err := tsdb.OpenReadOnly(data)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := store.Select(t.Context(), tsdb.Match{Service: "demo.service", Metrics: []series.Metric{series.Log}}, past.UnixMilli()+2000, math.MaxInt64)
	if err != nil || len(lines) == 0 {
		t.Errorf("the journal was not read: %d kinds of lines, %v", len(lines), err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
