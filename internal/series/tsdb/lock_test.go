package tsdb

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"stanch/internal/series"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d writes to %s", os.Getpid(), dir)) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

func TestPrivate(t *testing.T) {
	dir := t.TempDir() + "/a/b"
	open(t, dir, Options{})
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("others may look into it: %v", info.Mode())
	}
}

// TestNothingStaysOpen opens and closes 50 times.
func TestNothingStaysOpen(t *testing.T) {
	dir := t.TempDir()
	at := start
	round := func() {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		at += tick
		put(t, s, series.Sample{Key: rss("a"), At: at, Value: 1})
		all(t, s, Match{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		read, err := OpenReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		all(t, read, Match{})
		if err := read.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := NewRemote("http://127.0.0.1:1/", RemoteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	round()
	fds, goroutines := openFDs(t), runtime.NumGoroutine()
	for range 50 {
		round()
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	if now := openFDs(t); now > fds {
		t.Errorf("%d descriptors were open before, %d are now", fds, now)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
