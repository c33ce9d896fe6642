package tsdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"stanch/internal/series"
)

// A clock that is set forward leaves a gap, and one that is set back makes the
// same times come twice. Stamps of both lives in one series would make it jump to
// and fro with each sample, and the TSDB would refuse the second ones. So what was
// recorded with stamps after the new time is set aside: it stays on the disk,
// complete and readable by any Prometheus, and is no longer shown. History goes
// on from the new time.

// setBackBy is the least that a clock must go back for that, in ms. Below it the
// samples are dropped until the time is reached again.
const setBackBy = 60_000

// setBack says whether the samples are from before what is there, and where the
// new life begins. Lines of a log may be of any age and say nothing.
func (s *Store) setBack(samples []series.Sample) (to int64, back bool) {
	newest := s.newest.Load()
	for i := range samples {
		if samples[i].Key.Metric == series.Log {
			continue
		}
		if samples[i].At >= newest-setBackBy {
			return 0, false
		}
		if !back || samples[i].At < to {
			to, back = samples[i].At, true
		}
	}
	return to, back
}

// splitAt sets aside what is stamped at or after a time. The caller holds write. If
// it is interrupted it is done again by the next start: what was copied already is then
// there twice, which changes nothing.
func (s *Store) splitAt(to int64) error {
	was := s.newest.Load()
	if err := s.flush(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	aside, err := s.makeAside(fmt.Sprintf("after-%s", time.UnixMilli(to).UTC().Format("20060102T150405Z")))
	if err != nil {
		return err
	}
	var later, copied []string
	damaged := make(map[string]error)
	for _, b := range s.db.Blocks() {
		switch meta := b.Meta(); {
		case meta.MaxTime <= to:
			continue
		case meta.MinTime >= to:
			later = append(later, b.Dir())
			continue
		}
		switch err := s.splitBlock(b, to, aside); {
		case err == nil:
			copied = append(copied, b.Dir())
		case isFull(err):
			return err
		default: // tried again with each sample it would never be better
			damaged[b.Dir()] = err
		}
	}
	err = s.reopen(func() error {
		errs := []error{s.dropLog(), s.setAllAside(damaged)}
		for _, dir := range later {
			errs = append(errs, os.Rename(dir, filepath.Join(aside, filepath.Base(dir))))
		}
		for _, dir := range copied {
			errs = append(errs, os.RemoveAll(dir))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	s.o.Log.Warn("the clock was set back: what was recorded with later times is set aside",
		"back_to", time.UnixMilli(to).UTC(), "from", time.UnixMilli(was).UTC(), "dir", aside)
	return s.trimAside()
}

// splitBlock writes both parts of a block; the block itself stays. Of one that cannot
// be read the first part may be there all the same, on a full disk neither is.
func (s *Store) splitBlock(b *tsdb.Block, to int64, aside string) error {
	// The ranges matter for planning merges only.
	c, err := tsdb.NewLeveledCompactor(context.Background(), nil, s.log, []int64{blockRange}, chunkenc.NewPool(), nil)
	if err != nil {
		return err
	}
	meta := b.Meta()
	first, err := c.Write(s.dir, b, meta.MinTime, to, nil)
	if err != nil {
		return err
	}
	_, err = c.Write(aside, b, to, meta.MaxTime, nil)
	if isFull(err) {
		for _, id := range first {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, id.String())))
		}
	}
	return err
}
