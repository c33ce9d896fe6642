package logfile

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test of the real journal runs itself again in a mount namespace, where
// /run is its own; the variable says so.
const insideVariable = "LOGFILE_TEST_INSIDE"

// TestJournald follows a unit whose entries a real systemd-journald writes and
// a real journalctl reads.
func TestJournald(t *testing.T) {
	const daemon = "/lib/systemd/systemd-journald"
	if _, err := os.Stat(daemon); err != nil {
		t.Skipf("systemd is not installed: %v", err)
	}
	if os.Getenv(insideVariable) == "" {
		if os.Geteuid() != 0 {
			t.Skip("only root may mount")
		}
		inside := exec.Command("/proc/self/exe", "-test.run=^TestJournald$", "-test.v")
		inside.Env = append(os.Environ(), insideVariable+"=1")
		inside.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		if out, err := inside.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	must(t, os.MkdirAll("/run/systemd/journald.conf.d", 0o755))
	must(t, os.WriteFile("/run/systemd/journald.conf.d/test.conf", []byte("[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n"), 0o600))
	journald := exec.Command(daemon)
	must(t, journald.Start())
	defer func() {
		_ = journald.Process.Kill()
		_ = journald.Wait()
	}()

	var socket net.Conn
	f := &followed{t: t}
	f.until("journald is up", func() bool {
		var err error
		socket, err = net.Dial("unixgram", "/run/systemd/journal/socket")
		return err == nil
	})
	defer func() { _ = socket.Close() }()
	// A unit's own field is written by journald; what root says of it counts
	// as well (journalctl(1), --unit).
	send := func(messages ...string) {
		t.Helper()
		var b strings.Builder
		b.WriteString("OBJECT_SYSTEMD_UNIT=demo.service\nPRIORITY=6\n")
		for _, m := range messages {
			b.WriteString("MESSAGE\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(m)))) + m + "\n")
		}
		_, err := socket.Write([]byte(b.String()))
		must(t, err)
	}
	send("before the start")
	f.until("the journal has the entry", func() bool {
		out, _ := exec.Command("journalctl", "--quiet", "--output=cat", "--unit=demo.service").Output()
		return string(out) == "before the start\n"
	})

	f = follow(t, &Source{Unit: "demo.service"})
	begin := now()
	for i := range 50 {
		send(fmt.Sprintf("entry %d", i))
	}
	send("not UTF-8: \xff\x00")
	send("one", "two")
	send(strings.Repeat("x", 2*maxLine) + "\nand a second line")
	send("2026-11-21T10:00:00Z the end")
	f.until("the end", func() bool { got := f.texts(); return len(got) > 0 && got[len(got)-1] == "the end" })
	want := []string{}
	for i := range 50 {
		want = append(want, fmt.Sprintf("entry %d", i))
	}
	f.want(append(want, "not UTF-8: \ufffd", "one", "two", strings.Repeat("x", maxLine), "and a second line", "the end")...)
	for _, l := range f.lines {
		if !l.HasTime || l.At < begin-1 || l.At > now() {
			t.Errorf("%s: at %d, want %d to %d", l.Text, l.At, begin, now())
		}
	}

	// journalctl ends, and entries go on to come.
	killChildren(t, "journalctl")
	send("while nobody reads")
	f.until("the entry from between", func() bool { got := f.texts(); return got[len(got)-1] == "while nobody reads" })
	if got := f.texts(); len(got) != 57 {
		t.Errorf("%d lines, want 57: none twice", len(got))
	}
}

// killChildren kills the children of this process that have a name.
func killChildren(t *testing.T, name string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	killed := 0
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			var pid int
			comm, _ := os.ReadFile("/proc/" + child + "/comm")
			if _, err := fmt.Sscan(child, &pid); err == nil && strings.TrimSpace(string(comm)) == name {
				must(t, syscall.Kill(pid, syscall.SIGKILL))
				killed++
			}
		}
	}
	if killed == 0 {
		t.Fatalf("no child is %s", name)
	}
}
