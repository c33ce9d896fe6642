package logfile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestRotatingProgram follows a program that renames its own log again and
// again, by the handler of Python's library, faster than anybody looks.
func TestRotatingProgram(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "")
	f := follow(t, &Source{Path: log})
	const program = `
import logging, logging.handlers, sys, time
h = logging.handlers.RotatingFileHandler(sys.argv[1], maxBytes=8000, backupCount=9)
h.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
log = logging.getLogger(); log.addHandler(h); log.setLevel(logging.INFO)
for i in range(2000):
    log.info("record %d of a program", i)
    time.sleep(0.001)
`
	begin := now()
	if out, err := exec.Command("python3", "-c", program, log).CombinedOutput(); err != nil {
		t.Fatalf("python3: %v: %s", err, out)
	}
	f.until("all records", func() bool { return len(f.texts()) >= 2000 })
	for i, l := range f.lines {
		if want := fmt.Sprintf("INFO record %d of a program", i); l.Text != want || !l.HasTime || l.At < begin-1 || l.At > now() {
			t.Fatalf("line %d is %+v, want %q", i, l, want)
		}
	}
	if len(f.notes) > 0 {
		t.Errorf("notes: %q", f.notes)
	}
}

// TestCopyTruncate follows a shell that appends while its log is copied and
// truncated, as logrotate does with copytruncate but far more often. What is
// written between two looks and truncated is lost; no line is said twice, and
// none out of order.
func TestCopyTruncate(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "")
	f := follow(t, &Source{Path: log})
	shell := exec.Command("sh", "-c", `i=1; while [ $i -le 20000 ]; do echo "line number $i of a shell"; i=$((i+1)); done >>"$0"`, log)
	must(t, shell.Start())
	done := make(chan error, 1)
	go func() { done <- shell.Wait() }()
	for running := true; running; {
		select {
		case err := <-done:
			must(t, err)
			running = false
		case <-time.After(30 * time.Millisecond):
			data, err := os.ReadFile(log)
			must(t, err)
			must(t, os.WriteFile(log+".1", data, 0o600))
			must(t, os.Truncate(log, 0))
		}
	}
	write(t, log, "the end\n")
	f.until("the end", func() bool { got := f.texts(); return len(got) > 0 && got[len(got)-1] == "the end" })
	last := 0
	for _, text := range f.texts() {
		var n int
		if _, err := fmt.Sscanf(text, "line number %d of a shell", &n); err == nil {
			if n <= last {
				t.Fatalf("line %d is said after line %d", n, last)
			}
			last = n
		}
	}
	t.Logf("%d lines of 20,000 were said", len(f.texts())-1)
}
