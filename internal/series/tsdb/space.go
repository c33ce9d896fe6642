package tsdb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrFull means that the disk is full: nothing was kept, and what comes when
// there is room again will be.
var ErrFull = errors.New("the disk is full")

// errGone means that the directory is not the one that was opened.
var errGone = errors.New("the data directory is gone")

// keepFree is how much of the disk is left free at least: a twentieth of it, but no
// more than this. The TSDB cannot bear a full disk: it ends the process when a
// chunk cannot be written, and a record of its log that is torn in the middle
// hides all that come after it. So it never gets to see one.
const keepFree = 64 << 20

// room gives an error that wraps ErrFull when the disk of dir is full, and
// what is free.
func room(dir string) (free int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("disk of %s: %w", dir, err)
	}
	free = int64(st.Bavail) * st.Bsize
	need := min(int64(st.Blocks)*st.Bsize/20, keepFree)
	if free < need {
		return free, fmt.Errorf("the disk of %s is full: %s free, %s are left to others: %w", dir, megabytes(free), megabytes(need), ErrFull)
	}
	return free, nil
}

// roomToReplay gives an error that wraps ErrFull when dir may not hold what the TSDB writes
// while it reads a log: its chunks, which take a third of the log, and with odd values as
// much. Without the room it would end the process.
func roomToReplay(dir, wal string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("disk of %s: %w", dir, err)
	}
	if free, need := int64(st.Bavail)*st.Bsize, size(wal); free < need {
		return fmt.Errorf("%w: %s has %s free, and %s are needed to read the log", ErrFull, dir, megabytes(free), megabytes(need))
	}
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// isFull says whether a write failed for lack of room.
func isFull(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// place tells a directory from another of the same name, as when the disk that
// it was on is no longer mounted.
type place struct{ dev, ino uint64 }

func placeOf(dir string) (place, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return place{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return place{}, fmt.Errorf("%s: %w", dir, syscall.ENOTDIR)
	}
	return place{st.Dev, st.Ino}, nil
}

// check fails when dir is no longer there.
func (p place) check(dir string) error {
	now, err := placeOf(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if now != p {
		return fmt.Errorf("%w: %s is another directory than when it was opened", errGone, dir)
	}
	return nil
}

// size sums up the files below a directory; what vanishes meanwhile counts as
// nothing.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
