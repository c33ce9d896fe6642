package tsdb

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// past is history that nobody writes: the blocks, and what the log has after
// them.
type past struct {
	blocks  []*tsdb.Block
	head    *tsdb.Head // nil when the log is empty
	sandbox string     // what the TSDB must be able to write when it reads a log
}

// OpenReadOnly opens what a writer has left in dir; it changes nothing there and
// needs no right to write. After Close of the writer all of it is in blocks
// and opens in milliseconds. A writer that was killed leaves up to 3 hours in its log, of which a second reads
// a few million samples. When somebody writes to dir, ask him: blocks that
// he replaces meanwhile cannot be read.
func OpenReadOnly(dir string) (*Store, error) {
	s := newStore(dir, Options{})
	s.readOnly = true
	p, newest, err := openPast(dir, s)
	if errors.Is(err, fs.ErrNotExist) && size(dir) > 0 { // a writer that ends makes a block of the log meanwhile
		p, newest, err = openPast(dir, s)
	}
	if err != nil {
		return nil, fmt.Errorf("open history in %s: %w", dir, err)
	}
	s.past = p
	s.newest.Store(newest)
	return s, nil
}

func openPast(dir string, s *Store) (_ *past, newest int64, err error) {
	p := &past{}
	defer func() {
		if err != nil {
			_ = p.close()
		}
	}()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil {
			continue
		}
		b, err := tsdb.OpenBlock(s.log, filepath.Join(dir, e.Name()), nil, tsdb.DefaultPostingsDecoderFactory)
		if err != nil {
			continue // its writer will set it aside, and say so
		}
		p.blocks = append(p.blocks, b)
		newest = max(newest, b.Meta().MaxTime-1)
	}
	after := int64(math.MinInt64)
	if len(p.blocks) > 0 {
		after = newest + 1
	}
	wal := filepath.Join(dir, walName)
	if size(wal) == 0 {
		return p, newest, nil
	}
	if err := p.replay(s, wal, after); err != nil {
		return nil, 0, err
	}
	if p.head.NumSeries() > 0 {
		newest = max(newest, p.head.MaxTime())
	}
	return p, newest, nil
}

// replay reads what the log has after a time. Where it is torn it ends.
func (p *past) replay(s *Store, dir string, after int64) error {
	w, err := wlog.Open(s.log, dir)
	if err != nil {
		return err
	}
	if err := roomToReplay(os.TempDir(), dir); err != nil {
		return fmt.Errorf("%w; TMPDIR may name another directory", err)
	}
	if p.sandbox, err = os.MkdirTemp("", "stanch-history-"); err != nil {
		return err
	}
	o := tsdb.DefaultHeadOptions()
	o.ChunkRange = blockRange
	o.ChunkDirRoot = p.sandbox
	o.ChunkWriteQueueSize = 0
	o.StripeSize = 1 << 10
	o.SamplesPerChunk = samplesPerChunk
	o.IsolationDisabled = true
	if p.head, err = tsdb.NewHead(nil, s.log, w, nil, o, tsdb.NewHeadStats()); err != nil {
		return err
	}
	var torn *wlog.CorruptionErr
	if err := p.head.Init(after); err != nil && !errors.As(err, &torn) {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

func (p *past) querier(from, to int64) (storage.Querier, error) {
	var list []storage.Querier
	add := func(b tsdb.BlockReader) error {
		q, err := tsdb.NewBlockQuerier(b, from, to)
		if err == nil {
			list = append(list, q)
		}
		return err
	}
	err := func() error {
		for _, b := range p.blocks {
			if b.OverlapsClosedInterval(from, to) {
				if err := add(b); err != nil {
					return err
				}
			}
		}
		if p.head == nil || p.head.NumSeries() == 0 {
			return nil
		}
		return add(tsdb.NewRangeHead(p.head, from, to))
	}()
	if err != nil {
		for _, q := range list {
			_ = q.Close()
		}
		return nil, err
	}
	return storage.NewMergeQuerier(list, nil, storage.ChainedSeriesMerge), nil
}

func (p *past) close() error {
	var errs []error
	for _, b := range p.blocks {
		errs = append(errs, b.Close())
	}
	if p.head != nil {
		errs = append(errs, p.head.Close())
	}
	if p.sandbox != "" {
		errs = append(errs, os.RemoveAll(p.sandbox))
	}
	return errors.Join(errs...)
}
