package tsdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// asideName is the directory for what is kept and not used: damaged blocks, and
// what was recorded with stamps that came twice. It counts towards MaxBytes, and
// has a quarter of it at most.
const asideName = "aside"

const asideShare = 4

// checkEvery is how long at least lies between two readings of all blocks.
const checkEvery = 10 * time.Minute

func (s *Store) makeAside(name string) (string, error) {
	dir := filepath.Join(s.dir, asideName, name)
	return dir, os.MkdirAll(dir, 0o700)
}

// setAsideDamaged moves blocks that cannot be opened out of the way: the TSDB
// would not start with them. Nobody has the blocks open.
func (s *Store) setAsideDamaged() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		dir := filepath.Join(s.dir, e.Name())
		if why := damage(dir); why != nil {
			if err := s.setAside(dir, why); err != nil {
				return err
			}
		}
	}
	return s.trimAside()
}

// damage says why a block cannot be opened.
func damage(dir string) error {
	b, err := tsdb.OpenBlock(nil, dir, nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil {
		return err
	}
	return b.Close()
}

// removeDamaged sets aside the blocks of which something cannot be read. It reads all
// of them, so it is for when a reader has met an error, and not too often.
func (s *Store) removeDamaged() bool {
	s.write.Lock()
	defer s.write.Unlock()
	if !s.checked.IsZero() && time.Since(s.checked) < checkEvery {
		return false
	}
	s.checked = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return s.past != nil && s.past.dropDamaged()
	}
	damaged := make(map[string]error)
	for _, b := range s.db.Blocks() {
		if err := readAll(b); err != nil {
			damaged[b.Dir()] = err
		}
	}
	if len(damaged) == 0 {
		return false
	}
	err := s.reopen(func() error { return s.setAllAside(damaged) })
	if err != nil {
		s.counts.fail(err)
	}
	return err == nil
}

// reopen closes the TSDB, changes its files, and opens it; mu is held.
func (s *Store) reopen(change func() error) error {
	err := s.closeDB()
	if err == nil {
		err = change()
	}
	if err == nil {
		err = s.openDB()
	}
	if err != nil {
		s.broken.Store(true)
	}
	return err
}

// dropDamaged forgets the blocks of which something cannot be read.
func (p *past) dropDamaged() bool {
	before := len(p.blocks)
	p.blocks = slices.DeleteFunc(p.blocks, func(b *tsdb.Block) bool { return readAll(b) != nil && b.Close() == nil })
	return len(p.blocks) < before
}

// readAll reads every sample of a block.
func readAll(b *tsdb.Block) error {
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchNotEqual, nameLabel, ""))
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			continue
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	return set.Err()
}

// setAllAside sets damaged blocks aside; it is said of each why.
func (s *Store) setAllAside(damaged map[string]error) error {
	var errs []error
	for dir, why := range damaged {
		errs = append(errs, s.setAside(dir, why))
	}
	return errors.Join(errs...)
}

func (s *Store) setAside(dir string, why error) error {
	aside, err := s.makeAside("damaged")
	if err != nil {
		return err
	}
	to := filepath.Join(aside, filepath.Base(dir))
	if err := os.Rename(dir, to); err != nil {
		return fmt.Errorf("set a damaged block aside: %w", err)
	}
	s.o.Log.Error("a part of history is damaged, it is set aside and the rest is used", "dir", to, "err", why)
	return nil
}

// trimAside deletes the oldest of what was set aside when it takes too much.
func (s *Store) trimAside() error {
	// The names below the directory alone: its own may hold what a pattern would mean.
	blocks, err := fs.Glob(os.DirFS(s.dir), asideName+"/*/*")
	if err != nil {
		return err
	}
	// The name of a block begins with when it was written.
	slices.SortFunc(blocks, func(a, b string) int { return strings.Compare(filepath.Base(b), filepath.Base(a)) })
	var total int64
	var errs []error
	for _, name := range blocks {
		dir := filepath.Join(s.dir, name)
		if total += size(dir); total > s.o.MaxBytes/asideShare {
			s.o.Log.Warn("what was set aside takes too much room, the oldest is deleted", "dir", dir)
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}
