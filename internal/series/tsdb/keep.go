package tsdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/prometheus/prometheus/tsdb"
)

// look is how often the keeper looks by itself: it tries again what failed.
const look = time.Minute

// behind is how many ranges of blocks may be in memory before Append waits for
// the keeper. In real time it is never reached; whoever appends the past may.
const behind = 2

// keep turns what is in memory into blocks, merges blocks and deletes old ones.
func (s *Store) keep() {
	defer s.kept.Done()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		case <-s.wake:
		}
		if s.broken.Load() {
			continue
		}
		if err := s.tidy(); err != nil && !isFull(err) {
			s.o.Log.Error("history could not be compacted, it is tried again", "dir", s.dir, "err", err)
		}
	}
}

// callKeeper lets the keeper look now.
func (s *Store) callKeeper() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tidy does what is due.
func (s *Store) tidy() error {
	if s.spans(1) {
		if err := s.compact(); err != nil {
			return err
		}
		s.prune()
	}
	s.mu.RLock()
	large := s.db != nil && s.db.Head().Size() > s.o.MaxBytes*logShare/shares
	s.mu.RUnlock()
	if !large {
		return nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	return s.flush()
}

// spans says whether more than so many ranges, and half of one, are in memory.
func (s *Store) spans(ranges int64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return false
	}
	h := s.db.Head()
	return h.NumSeries() > 0 && h.MaxTime()-h.MinTime() > blockRange/2*(2*ranges+1)
}

// compact makes blocks of what is older than a range, and merges blocks.
func (s *Store) compact() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil
	}
	if _, err := room(s.dir); err != nil {
		return err
	}
	// A compaction allocates several times what stays, and the next collection
	// may be far off.
	defer runtime.GC()
	return s.db.Compact(context.Background())
}

// catchUp lets who appends faster than the keeper compacts do it himself; the
// caller holds write. What fails without keeping memory full is tried again, and said,
// by the keeper.
func (s *Store) catchUp() error {
	if !s.spans(behind) {
		return nil
	}
	err := s.compact()
	if err != nil && s.spans(behind) {
		return fmt.Errorf("history in %s cannot be compacted: %w", s.dir, err)
	}
	s.forgetOld()
	return nil
}

// prune drops the names of series that have gone from memory.
func (s *Store) prune() {
	s.write.Lock()
	defer s.write.Unlock()
	s.forgetOld()
}

// forgetOld is prune; the caller holds write.
func (s *Store) forgetOld() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return
	}
	from := s.db.Head().MinTime()
	for k, r := range s.refs {
		if r.last < from {
			delete(s.refs, k)
		}
	}
}

// flush makes blocks of all that is in memory; the caller holds write, so that
// nothing is appended meanwhile. Blocks end where the TSDB's own would, else they could
// not be merged later.
func (s *Store) flush() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil
	}
	if _, err := room(s.dir); err != nil {
		return err
	}
	h := s.db.Head()
	for h.NumSeries() > 0 && h.MinTime() <= h.MaxTime() {
		from := h.MinTime()
		to := min(endOfRange(from)-1, h.MaxTime())
		if err := s.db.CompactHead(tsdb.NewRangeHead(h, from, to)); err != nil {
			return fmt.Errorf("write a block: %w", err)
		}
		if h.MinTime() <= from {
			return errors.New("write a block: it did not leave memory")
		}
	}
	clear(s.refs)
	return nil
}

// droppedName is the directory for a log that is being removed.
const droppedName = "dropped"

// dropLog removes the log of a TSDB that is closed and had nothing in memory:
// to read it again would take time, and give nothing. It goes at once, or not at
// all: of a log that lost some of its files the TSDB would never start again.
func (s *Store) dropLog() error {
	if err := s.removeDropped(); err != nil {
		return err
	}
	dropped := filepath.Join(s.dir, droppedName)
	if err := os.Mkdir(dropped, 0o700); err != nil {
		return err
	}
	for _, name := range [...]string{walName, "chunks_head"} {
		if err := os.Rename(filepath.Join(s.dir, name), filepath.Join(dropped, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.removeDropped()
}

// removeDropped ends what dropLog began.
func (s *Store) removeDropped() error { return os.RemoveAll(filepath.Join(s.dir, droppedName)) }

// endOfRange is where the block that holds a time ends.
func endOfRange(at int64) int64 { return (at/blockRange + 1) * blockRange }
