package tsdb

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/series"
)

// appendForEver is what a child of the tests does: it appends and says after
// each commit up to when, until it is killed.
func appendForEver(dir string) error {
	s, err := Open(dir, Options{MaxBytes: 64 << 20})
	if err != nil {
		return err
	}
	at := max(start, s.Newest()+tick)
	for ; ; at += tick {
		if err := s.Append(victimTick(at)); err != nil {
			return err
		}
		fmt.Println(at)
	}
}

const victims = 40

// victimTick gives the samples of a time: the time itself, told by each series.
func victimTick(at int64) []series.Sample {
	list := make([]series.Sample, victims)
	for i := range list {
		list[i] = series.Sample{Key: rss(strconv.Itoa(i)), At: at, Value: float64(at + int64(i))}
	}
	return list
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("STANCH_TSDB_VICTIM"); dir != "" {
		fmt.Fprintln(os.Stderr, appendForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestKilledAtAnyMoment kills a writer, which compacts every few dozen milliseconds, at 20
// moments. All that it had appended is there each time, without a gap.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acknowledged int64
	for round := range 20 {
		acknowledged = max(acknowledged, killOne(t, dir, time.Duration(rand.IntN(300))*time.Millisecond))
		if round%5 == 4 { // without anyone who repairs
			read, err := OpenReadOnly(dir)
			if err != nil {
				t.Fatal(err)
			}
			checkVictims(t, read, acknowledged)
			if err := read.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(dir, Options{MaxBytes: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		checkVictims(t, s, acknowledged)
		// Not Close: what is in memory is to stay in the log.
		s.stopForTest(t)
	}
}

// killOne runs a writer for so long after its first commit, and tells up to
// when it had appended.
func killOne(t *testing.T, dir string, long time.Duration) (last int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STANCH_TSDB_VICTIM="+dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if last == 0 {
			time.AfterFunc(long, func() { _ = cmd.Process.Kill() })
		}
		if last, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			break // a line cut by the end
		}
	}
	_ = cmd.Wait()
	if last == 0 || !strings.Contains(cmd.ProcessState.String(), "killed") {
		t.Fatalf("the writer: %v: %s", cmd.ProcessState, errs.String())
	}
	return last
}

func checkVictims(t *testing.T, s *Store, acknowledged int64) {
	t.Helper()
	got := all(t, s, Match{})
	if len(got) != victims {
		t.Fatalf("%d series, want %d", len(got), victims)
	}
	for _, one := range got {
		i, _ := strconv.ParseInt(one.Key.Service, 10, 64)
		for n, p := range one.Points {
			if p.At != start+int64(n)*tick || p.Value != float64(p.At+i) {
				t.Fatalf("point %d of series %d is %v at %d", n, i, p.Value, p.At)
			}
		}
		if last, _ := one.Last(); last.At < acknowledged {
			t.Fatalf("series %d ends %d s before what was appended", i, (acknowledged-last.At)/1000)
		}
	}
}

// stopForTest ends the store as a kill would, but gives its files back.
func (s *Store) stopForTest(t *testing.T) {
	t.Helper()
	s.broken.Store(true) // nothing is flushed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTornLog cuts the log within its last record, as the loss of power does.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for i := range int64(100) {
		put(t, s, victimTick(start+i*tick)...)
	}
	s.stopForTest(t)
	logs, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
	if err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}
	last := logs[len(logs)-1]
	cut := lastByte(t, last) - 20
	if err := os.Truncate(last, cut); err != nil {
		t.Fatal(err)
	}
	log, said := hear()
	s = open(t, dir, Options{Log: log})
	checkVictims(t, s, start+98*tick)
	put(t, s, victimTick(s.Newest()+tick)...)
	checkVictims(t, s, start+98*tick)
	if !strings.Contains(said(), "repair") {
		t.Errorf("nothing is said: %s", said())
	}
}

// lastByte is the length of a file without the zeros at its end.
func lastByte(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(strings.TrimRight(string(b), "\x00")))
}

// TestLogGoesAtOnce keeps two files of the log from being deleted when the store is closed, as a
// kill in between does. What would be left is no log: without one of its files the TSDB does
// not start.
func TestLogGoesAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{MaxBytes: 10 << 20})
	for at := start; ; at += tick {
		put(t, s, victimTick(at)...)
		if logs, err := filepath.Glob(filepath.Join(dir, walName, "0*")); err != nil || len(logs) > 2 {
			break
		}
	}
	newest := s.Newest()
	for _, name := range []string{"00000000", "00000002"} {
		held := filepath.Join(dir, walName, name)
		if err := syscall.Mount(held, held, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(held, syscall.MNT_DETACH) })
	}
	if err := s.Close(); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("the log could be removed: %v", err)
	}
	for _, at := range []string{walName, filepath.Join(droppedName, walName)} {
		for _, name := range []string{"00000000", "00000002"} {
			_ = syscall.Unmount(filepath.Join(dir, at, name), syscall.MNT_DETACH)
		}
	}
	s = open(t, dir, Options{})
	checkVictims(t, s, newest)
	if _, err := os.Stat(filepath.Join(dir, droppedName)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("what was dropped is still there:", err)
	}
}
