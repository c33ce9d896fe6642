package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
)

// way is a way to record.
type way struct {
	name string
	args []string
}

var (
	exactly  = way{"exact", []string{"--mode", "exact"}}
	sampling = way{"sampling", []string{"--mode", "sample"}}
)

// aimed records every block of these sizes and no other.
func aimed(sizes string) way { return way{"aimed", []string{"--size", sizes}} }

// recording is a stanch that watches and writes a report.
type recording struct {
	b      *bench
	cmd    *exec.Cmd
	report string
	stderr bytes.Buffer
	read   chan struct{} // closed at the end of stderr
}

// quick is how long the hooks may take from their first call to their usual
// speed: the books are touched for the first time.
const quick = 300 * time.Millisecond

// record starts stanch record, beside the load where there are two processors,
// and returns when its probe is placed. Nothing holds the probe's cost down.
func (b *bench) record(pid int, w way) *recording {
	for try := 1; ; try++ {
		r, err := b.tryRecord(pid, w)
		if err == nil {
			time.Sleep(quick)
			return r
		}
		b.again(try, err)
	}
}

func (b *bench) tryRecord(pid int, w way) (*recording, error) {
	r := &recording{b: b, report: filepath.Join(b.TempDir(), "record.json"), read: make(chan struct{})}
	// Should bench be killed, the recording ends by itself.
	args := []string{"-c", loadCPU(), b.stanch, "record", "--max-overhead", "100", "--for", "5m", "-o", r.report}
	name, args := before("taskset", append(append(args, w.args...), strconv.Itoa(pid))...)
	return r, r.start(exec.Command(name, args...), "recording ")
}

// start starts a stanch and returns when it says that it is at work.
func (r *recording) start(cmd *exec.Cmd, word string) error {
	r.cmd = cmd
	errs, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := r.b.launch(cmd); err != nil {
		return err
	}
	at := make(chan bool, 1)
	go func() {
		defer close(r.read)
		for s := bufio.NewScanner(errs); s.Scan(); {
			fmt.Fprintln(&r.stderr, s.Text())
			if strings.HasPrefix(s.Text(), word) {
				at <- true
			}
		}
	}()
	select {
	case <-at:
		return nil
	case <-r.read:
	}
	return r.failed(cmd.Wait())
}

// stop ends it and reads what it wrote.
func (r *recording) stop(document any) {
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.b.Fatal(err)
	}
	<-r.read
	if err := r.cmd.Wait(); err != nil {
		r.b.Fatal(r.failed(err))
	}
	text, err := os.ReadFile(r.report)
	if err != nil {
		r.b.Fatal(err)
	}
	if err := json.Unmarshal(text, document); err != nil {
		r.b.Fatalf("%s: %v", r.report, err)
	}
}

// end ends the recording; it holds that it was whole and that the probe is gone.
func (r *recording) end() leak.Profile {
	var p leak.Profile
	r.stop(&p)
	if p.Recorded.Removed == nil || !*p.Recorded.Removed || len(p.Gaps) > 0 {
		r.b.Fatalf("the recording is not whole, or its probe not removed: %q %q", p.Notes, p.Gaps)
	}
	return p
}

func (r *recording) failed(err error) error {
	if err == nil {
		err = errors.New("it ended")
	}
	return fmt.Errorf("%s: %w\n%s", strings.Join(r.cmd.Args, " "), err, r.stderr.String())
}
