package tsdb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"stanch/internal/series"
)

// ref is what the TSDB calls a series, so that its labels need not be built
// again for each sample. One that the TSDB no longer knows is told by it.
type ref struct {
	id   storage.SeriesRef
	last int64 // ms, of the newest sample
	step int64 // ms, its rhythm; 0: not known yet, or none
}

// A sampler that wakes each 10 s wakes some milliseconds late, each time others.
// Chunks have one bit for a sample that comes as long after the last as that did,
// and two bytes for any other, more than most values need. So a sample that is
// late by at most this much, in ms, is kept at the time at which it was due.
const late = 100

// due gives the time to keep a sample at: its own, or a little before.
func (r *ref) due(at int64) int64 {
	after := at - r.last
	if r.step > 0 && after >= r.step && after <= r.step+late {
		return r.last + r.step
	}
	if rhythm := (after + late/2) / late * late; rhythm < r.step-late || rhythm > r.step+2*late {
		r.step = rhythm
	}
	return at
}

// exact says whether the times of a metric's samples are told by what they
// count, and not by a rhythm.
func exact(m series.Metric) bool {
	return m == series.Log || m == series.ClockJumps || m == series.Suspended
}

// patience is how long at least lies between two attempts to open the TSDB
// again after a fault.
const patience = 5 * time.Second

// callKeeper is after how many samples the keeper looks how large the log is.
const callKeeper = 20_000

// Append keeps samples in one commit, each at its time or, in series that have a
// rhythm, up to 100 ms before. They may have different times, in any
// order of the series, but rising ones within a series: one that is out of order, older
// by an hour than the newest of all, there already, no number, or of one series too
// many is dropped and counted in Stats.Dropped. When samples (log lines aside) lie
// more than a minute before what is there, the clock was set back: see
// setback.go.
//
// The error says why all of them are lost: ErrFull, or whatever else is wrong with the
// directory. The next call tries again. It may wait for seconds when what was
// appended must become a block first.
func (s *Store) Append(samples []series.Sample) error {
	if len(samples) == 0 {
		return nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	err := s.append(samples)
	s.counts.fail(err)
	if err != nil {
		s.counts.failed.Add(uint64(len(samples)))
		return err
	}
	s.since += int64(len(samples))
	if s.since >= callKeeper {
		s.since = 0
		s.callKeeper()
	}
	return nil
}

func (s *Store) append(samples []series.Sample) error {
	if s.readOnly {
		return errors.New("history is open for reading only")
	}
	if err := s.place.check(s.dir); err != nil {
		return err
	}
	if _, err := room(s.dir); err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	if to, back := s.setBack(samples); back {
		if err := s.splitAt(to); err != nil {
			return fmt.Errorf("the clock was set back, and history cannot be split there: %w", err)
		}
	}
	if err := s.catchUp(); err != nil {
		return err
	}
	return s.commit(samples)
}

// ready opens the TSDB again when it may not be written to.
func (s *Store) ready() error {
	// Only who changes db takes mu for itself: queries and compactions hold it for
	// seconds, and samples must not wait for them.
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return errClosed
	case !s.broken.Load():
		return nil
	}
	if err := s.lastError(); err != nil && time.Now().Before(s.retryAt) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retryAt = time.Now().Add(patience)
	if err := s.closeDB(); err != nil {
		s.log.Warn("history was closed after a fault", "err", err)
	}
	if err := s.openDB(); err != nil {
		return fmt.Errorf("open history in %s again: %w", s.dir, err)
	}
	s.broken.Store(false)
	s.o.Log.Info("history is written again", "dir", s.dir)
	return nil
}

// commit writes the samples.
func (s *Store) commit(samples []series.Sample) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a := s.db.Appender(context.Background())
	var kept, dropped uint64
	newest := s.newest.Load()
	for i := range samples {
		if err := s.appendOne(a, &samples[i]); err != nil {
			dropped++
			continue
		}
		kept++
		newest = max(newest, samples[i].At)
	}
	if err := a.Commit(); err != nil {
		s.broken.Store(true)
		s.retryAt = time.Time{}
		if isFull(err) {
			return fmt.Errorf("the disk of %s is full: %w: %w", s.dir, ErrFull, err)
		}
		return fmt.Errorf("write history in %s: %w", s.dir, err)
	}
	s.newest.Store(newest)
	s.counts.appended.Add(kept)
	s.counts.dropped.Add(dropped)
	return nil
}

var (
	errNoName   = errors.New("a sample without a metric")
	errNoNumber = errors.New("a value that is no number")
	errTooMany  = errors.New("too many series")
)

func (s *Store) appendOne(a storage.Appender, sample *series.Sample) error {
	if math.IsNaN(sample.Value) || math.IsInf(sample.Value, 0) {
		return errNoNumber
	}
	known := s.refs[sample.Key]
	if known != nil {
		if sample.At <= known.last {
			return storage.ErrOutOfOrderSample
		}
		at := sample.At
		if !exact(sample.Key.Metric) {
			at = known.due(at)
		}
		_, err := a.Append(known.id, labels.EmptyLabels(), at, sample.Value)
		if err == nil {
			known.last = at
			return nil
		}
		if !errors.Is(err, tsdb.ErrInvalidSample) { // it has forgotten the series
			return err
		}
	}
	if sample.Key.Metric == "" {
		return errNoName
	}
	names := labelsOf(sample.Key)
	switch {
	case s.db.Head().NumSeries() < uint64(s.o.MaxSeries):
		s.toldMany = false
	case known == nil && !has(a, names):
		if !s.toldMany {
			s.toldMany = true
			s.o.Log.Warn("there are too many series: new ones are dropped until old ones have gone, which takes up to 3 hours",
				"most", s.o.MaxSeries, "service", sample.Key.Service, "metric", sample.Key.Metric)
		}
		return errTooMany
	}
	id, err := a.Append(0, names, sample.At, sample.Value)
	if err != nil {
		return err
	}
	s.refs[sample.Key] = &ref{id: id, last: sample.At}
	return nil
}

// has says whether a series is in memory: after a start, or when it was forgotten, refs does not know.
func has(a storage.Appender, names labels.Labels) bool {
	g, ok := a.(storage.GetRef)
	if !ok {
		return false
	}
	id, _ := g.GetRef(names, names.Hash())
	return id != 0
}

// Forget says that these series will not come again soon. It is a hint: the
// store forgets by itself what has not come for some hours.
func (s *Store) Forget(keys []series.Key) {
	s.write.Lock()
	defer s.write.Unlock()
	for _, k := range keys {
		delete(s.refs, k)
	}
}
