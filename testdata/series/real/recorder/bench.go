package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// subject is a program that is recorded. One with no drive is given work at
// rate units a second, in the shape of its load.
type subject struct {
	name  string // of its file
	what  string
	truth []label
	start func(*bench, *subject) error
	shape shape
	rate  float64
	mode  string // what start is told

	// Set by start.
	version string
	pid     int
	work    func() error
	drive   func(ctx context.Context, length time.Duration)
}

// label is what is true of a column: leak, none or filling. It is said from
// what the program does, not from how its curve looks.
type label struct{ column, truth string }

// bench owns the programs.
type bench struct {
	out, work, sources string
	length, every      time.Duration
	origin             *httptest.Server // what the shops ask
	running            []*exec.Cmd      // in the order of their start
}

// startOrigin serves answers that are larger than a client's buffer, so that a
// body that is not read to its end keeps its connection.
func (b *bench) startOrigin() error {
	page := make([]byte, 64<<10)
	b.origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(page) // a client that has gone is the client's affair
	}))
	return nil
}

// command starts a program with its output in the file NAME.log.
func (b *bench) command(s *subject, cmd *exec.Cmd) error {
	output, err := os.Create(filepath.Join(b.work, s.name+".log"))
	if err != nil {
		return err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		return err
	}
	b.running = append(b.running, cmd)
	s.pid = cmd.Process.Pid
	return nil
}

// close ends the programs, the last one first, and waits for them.
func (b *bench) close() (err error) {
	for i := len(b.running) - 1; i >= 0; i-- {
		cmd := b.running[i]
		// PostgreSQL takes SIGINT for its fast way to end; to the others it is SIGTERM.
		if e := cmd.Process.Signal(syscall.SIGINT); e != nil && !errors.Is(e, os.ErrProcessDone) {
			err = errors.Join(err, e)
		}
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // by a signal: how it ended says nothing
		kill.Stop()
	}
	if b.origin != nil {
		b.origin.CloseClientConnections()
		b.origin.Close()
	}
	return err
}

// version is the first line that a program says of itself, with the noise
// taken off.
func version(name string, args ...string) string {
	text, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return name
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

// until waits for a condition of a program that starts.
func until(what string, met func() bool) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if met() {
			return nil
		}
	}
	return fmt.Errorf("%s: not within 20 s", what)
}

// freePort is one of loopback that nobody listens on.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// answers tells whether somebody listens.
func answers(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
