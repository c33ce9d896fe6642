package tsdb

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/series"
)

// smallDisk mounts a disk of so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill writes a file until nothing is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// TestFullDisk lets others fill the disk, and make room again.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, "8m")
	dir := filepath.Join(disk, "data")
	s := open(t, dir, Options{})
	at, lost := start, 0
	appendTicks := func(n int) (err error) {
		for range n {
			at += tick
			if err = s.Append([]series.Sample{{Key: rss("a"), At: at, Value: float64(at)}}); err != nil {
				lost++
			}
		}
		return err
	}
	for round := range 3 {
		if err := appendTicks(1000); err != nil {
			t.Fatal(err)
		}
		fill(t, filepath.Join(disk, "ballast"))
		err := appendTicks(100)
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "the disk of "+dir+" is full") {
			t.Fatalf("round %d: %v", round, err)
		}
		if st := s.Stats(); !errors.Is(st.Err, ErrFull) || st.Failed != uint64(lost) {
			t.Errorf("%+v", st)
		}
		if got := all(t, s, Match{}); len(got) != 1 || len(got[0].Points) != 1000*(round+1) {
			t.Errorf("a full disk cannot be read: %d series", len(got))
		}
		if round == 1 { // a start on a full disk
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, lost = open(t, dir, Options{}), 0
			if err := appendTicks(1); !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			s.retryAt = time.Time{}
		}
		if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
			t.Fatal(err)
		}
	}
	if err := appendTicks(10); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, s, 3010)
	s.stopForTest(t)
	s = open(t, dir, Options{})
	checkWhole(t, s, 3010)
}

// checkWhole expects so many points, each with its time as value.
func checkWhole(t *testing.T, s *Store, want int) {
	t.Helper()
	got := all(t, s, Match{})
	if len(got) != 1 || len(got[0].Points) != want {
		t.Fatalf("%d series, want one of %d points", len(got), want)
	}
	for _, p := range got[0].Points {
		if p.Value != float64(p.At) {
			t.Fatalf("%v at %d", p.Value, p.At)
		}
	}
}

// TestTornWrite lets the log itself meet the end of the disk, which the check for
// room prevents unless others are faster: a record is cut in its middle.
func TestTornWrite(t *testing.T) {
	disk := smallDisk(t, "8m")
	dir := filepath.Join(disk, "data")
	s := open(t, dir, Options{})
	put(t, s, series.Sample{Key: rss("a"), At: start, Value: float64(start)})
	fill(t, filepath.Join(disk, "ballast"))
	// More than a page, that compresses badly.
	var many []series.Sample
	for i := range int64(5000) {
		many = append(many, series.Sample{Key: rss("other"), At: start + i, Value: 1 / float64(i+3)})
	}
	err := s.commit(many)
	if !errors.Is(err, ErrFull) || !s.broken.Load() {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	for i := range int64(100) {
		put(t, s, series.Sample{Key: rss("a"), At: start + (i+1)*tick, Value: float64(start + (i+1)*tick)})
	}
	s.stopForTest(t)
	s = open(t, dir, Options{})
	if got := all(t, s, Match{Service: "a"}); len(got) != 1 || len(got[0].Points) != 101 {
		t.Errorf("%v", got)
	}
}

// TestDiskIsGone takes the disk away, and brings it back.
func TestDiskIsGone(t *testing.T) {
	dir := smallDisk(t, "8m")
	s := open(t, dir, Options{})
	sample := func(n int64) []series.Sample {
		return []series.Sample{{Key: rss("a"), At: start + n*tick, Value: 1}}
	}
	put(t, s, sample(0)...)
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	err := s.Append(sample(1))
	if !errors.Is(err, errGone) || !strings.Contains(err.Error(), dir) {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("something was written below the mount point: %v %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestNotWritable(t *testing.T) {
	if _, err := Open("/proc/1/nothing", Options{}); err == nil || !strings.Contains(err.Error(), "/proc/1/nothing") {
		t.Error(err)
	}
	disk := smallDisk(t, "1m")
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(disk, Options{}); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), disk) {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
}

// TestNoRoomToReplay opens a log where the TSDB could not write what it writes meanwhile: it would
// end the process.
func TestNoRoomToReplay(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for i := range int64(100) {
		list := make([]series.Sample, 1000)
		for n := range list {
			list[n] = series.Sample{Key: rss(strconv.Itoa(n)), At: start + i*tick, Value: 1 / float64(i+int64(n)+3)}
		}
		put(t, s, list...)
	}
	s.stopForTest(t)
	t.Setenv("TMPDIR", smallDisk(t, "200k"))
	if read, err := OpenReadOnly(dir); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), os.TempDir()+" has 0.2 MB free") {
		t.Error(read, err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	// Whoever is to write waits for the room.
	disk := smallDisk(t, strconv.FormatInt(size(dir)*3/2, 10))
	if err := os.CopyFS(filepath.Join(disk, "data"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = open(t, filepath.Join(disk, "data"), Options{})
	next := []series.Sample{{Key: rss("0"), At: start + 100*tick, Value: 1}}
	if err := s.Append(next); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	s.retryAt = time.Time{}
	put(t, s, next...)
	if got := all(t, s, Match{Service: "0"}); len(got) != 1 || len(got[0].Points) != 101 {
		t.Errorf("%d series", len(got))
	}
}
