package app

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager plays the service manager: what is sent to its socket.
func manager(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notifyReady("nobody listens"); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	next := manager(t)
	for _, test := range []struct {
		say  func() error
		want string
	}{
		{func() error { return notifyReady("watching 12 processes") }, "READY=1\nSTATUS=watching 12 processes"},
		{func() error { return notifyStatus("watching 13 processes") }, "STATUS=watching 13 processes"},
		{notifyStopping, "STOPPING=1"},
	} {
		if err := test.say(); err != nil {
			t.Error(err)
		} else if got := next(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := notifyStopping(); err == nil || !strings.HasPrefix(err.Error(), "notify the service manager: ") {
		t.Errorf("a socket that is gone: %v", err)
	}
}

// TestWatchdog: a word twice in the time, none while the watch is not healthy,
// and an end with the context.
func TestWatchdog(t *testing.T) {
	next := manager(t)
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "100000")
	var asked atomic.Int64
	sick := func() bool { n := asked.Add(1); return n < 4 || n > 9 }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- watchdog(ctx, sick) }()
	for n := 1; n <= 5; n++ {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	// The fifth word is that of the eleventh turn: six were silent.
	if took, n := time.Since(began), asked.Load(); n < 11 || took < 500*time.Millisecond {
		t.Errorf("five words after %v and %d turns", took, n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	for _, test := range []struct{ pid, usec, want string }{
		{"", "", ""},
		{"1", "100000", ""}, // another process is watched
		{"", "soon", "WATCHDOG_USEC"},
	} {
		t.Setenv("WATCHDOG_PID", test.pid)
		t.Setenv("WATCHDOG_USEC", test.usec)
		err := watchdog(t.Context(), func() bool { t.Error("asked"); return true })
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v", test, err)
		}
	}
}
