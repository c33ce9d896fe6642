// Package tsdb keeps history on disk: samples of package series in an embedded
// Prometheus TSDB, and the way to send them to a Prometheus elsewhere.
//
// A Store is one directory with one writer. What was appended is with the
// kernel when Append returns, so it survives the end of the process at any moment;
// a loss of power may take what was written within the last half minute or so. A
// full disk, a damaged block and a clock that was set cost as little as they
// can: see ErrFull, and setback.go.
package tsdb

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/compression"

	"stanch/internal/series"
)

// Options of a store. Zero values mean the defaults.
type Options struct {
	MaxBytes  int64         // on disk in all; 2 GB
	Retention time.Duration // of time covered by data; 30 days
	MaxSeries int           // at most so many within some 3 hours, more are dropped and counted; 50,000, of some 4 kB each
	Log       *slog.Logger  // what an operator must know; nil: nobody is told
}

const (
	defaultMaxBytes  = 2 << 30
	defaultRetention = 30 * 24 * time.Hour
	defaultMaxSeries = 50_000
)

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.Retention <= 0 {
		o.Retention = defaultRetention
	}
	if o.MaxSeries <= 0 {
		o.MaxSeries = defaultMaxSeries
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// blockRange is the time, in ms, of the smallest block: data younger than one to
// one and a half of it is in memory and in the log.
const blockRange = int64(2 * time.Hour / time.Millisecond)

// Store is history on disk. All methods may be called at any time by several
// goroutines; after Close they fail.
type Store struct {
	dir      string
	o        Options
	log      *slog.Logger // for the TSDB: its warnings alone
	readOnly bool
	lock     io.Closer // nil when it reads only
	place    place
	engine   *promql.Engine

	write sync.Mutex // held by who appends, and by who wants nobody to
	refs  map[series.Key]*ref
	since int64 // samples since the keeper was called last
	// toldMany: it was said that there are too many series, and there was no room since.
	toldMany bool

	mu     sync.RWMutex // db and past are there as long as it is held
	db     *tsdb.DB     // nil when closed, and while it cannot be opened again
	past   *past        // of a store that reads only
	closed bool

	broken  atomic.Bool // the log may be torn: open again before anything is written
	retryAt time.Time   // when to try again to open; under write
	checked time.Time   // when all blocks were read to find damaged ones; under write
	newest  atomic.Int64
	counts  counts

	wake    chan struct{}
	stop    chan struct{}
	kept    sync.WaitGroup
	closing sync.Once
}

// Stats is what a store has done since it was opened.
type Stats struct {
	Series   uint64 // in memory now
	Appended uint64 // samples kept
	Dropped  uint64 // samples out of order, twice, too old, no numbers, or of too many series
	Failed   uint64 // samples lost to errors: a full disk
	Bytes    int64  // on disk, all files of the directory
	Err      error  // of the last writing, nil when it went well
}

type counts struct {
	appended, dropped, failed atomic.Uint64
	err                       atomic.Pointer[error]
}

func (c *counts) fail(err error) { c.err.Store(&err) }

// Open opens the store in dir, which is made when it is not there. It fails with
// ErrLocked while another process writes to it. A log that ends within a record is
// cut there; a block that cannot be read is moved aside; both are logged. When
// the disk is full the store opens all the same, and can do nothing until
// there is room.
func Open(dir string, o Options) (*Store, error) {
	s := newStore(dir, o)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	held, err := lock(dir)
	if err != nil {
		return nil, err
	}
	s.lock = held
	if s.place, err = placeOf(dir); err == nil {
		err = s.openDB()
	}
	switch {
	case isFull(err):
		s.o.Log.Error("history cannot be opened yet", "err", err)
		s.counts.fail(err)
		s.broken.Store(true)
	case err != nil:
		return nil, errors.Join(fmt.Errorf("open history in %s: %w", dir, err), held.Close())
	}
	s.kept.Add(1)
	go s.keep()
	return s, nil
}

func newStore(dir string, o Options) *Store {
	o = o.withDefaults()
	return &Store{
		dir: dir, o: o, log: slog.New(warnings{o.Log.Handler()}), engine: newEngine(),
		refs: make(map[series.Key]*ref), wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

// walName is the directory of the TSDB's log.
const walName = "wal"

// openDB opens the TSDB. Nobody else uses the store meanwhile.
func (s *Store) openDB() error {
	if _, err := room(s.dir); err != nil {
		return err
	}
	if err := s.removeDropped(); err != nil {
		return err
	}
	if err := roomToReplay(s.dir, filepath.Join(s.dir, walName)); err != nil {
		return err
	}
	if err := s.setAsideDamaged(); err != nil {
		return err
	}
	db, err := tsdb.Open(s.dir, s.log, nil, s.options(), nil)
	if err != nil {
		return err
	}
	// The keeper compacts, when there is room; and nothing is written to files
	// of chunks, because the TSDB panics when it cannot.
	db.DisableCompactions()
	s.db, s.refs = db, make(map[series.Key]*ref)
	newest := int64(0)
	for _, b := range db.Blocks() {
		newest = max(newest, b.Meta().MaxTime-1)
	}
	if db.Head().NumSeries() > 0 {
		newest = max(newest, db.Head().MaxTime())
	}
	s.newest.Store(newest)
	return nil
}

// options of the TSDB, chosen for one machine's thousands of series.
func (s *Store) options() *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.NoLockfile = true // lock knows who holds it
	// A tenth of the retention is what Prometheus takes: fewer blocks to read,
	// and still small steps when the oldest goes.
	o.MaxBlockDuration = max(blockRange, min(s.o.Retention, defaultRetention).Milliseconds()/4)
	o.MinBlockDuration = blockRange
	o.RetentionDuration = 0 // retain decides
	o.BlocksToDelete = s.retain
	o.BlockCompactionExcludeFunc = s.tooBig
	// Segments are the least by which the log can shrink.
	o.WALSegmentSize = int(min(max(s.o.MaxBytes/64>>15, 4), 256)) << 15
	o.MaxBlockChunkSegmentSize = s.segmentSize()
	o.WALCompression = compression.Zstd
	o.StripeSize = 1 << 10     // 16,384 by default, with locks: for millions of series
	o.IsolationDisabled = true // a reader may see half of a tick; each series by itself is right
	o.SamplesPerChunk = samplesPerChunk
	o.HeadChunksWriteQueueSize = 0
	o.HeadChunksWriteBufferSize = 64 << 10 // the least it takes
	o.FloatChunkEncoding = chunkenc.EncXOR
	o.BlockReloadInterval = 100 * 365 * 24 * time.Hour // the keeper does it
	return o
}

// segmentSize is that of the files of a block, which are allocated in full before they
// are written: they must fit into what room leaves free.
func (s *Store) segmentSize() int64 {
	total := s.o.MaxBytes
	var st syscall.Statfs_t
	if syscall.Statfs(s.dir, &st) == nil {
		total = min(total, int64(st.Blocks)*st.Bsize)
	}
	return min(max(total/64, 128<<10), 16<<20)
}

// samplesPerChunk is 40 minutes at 10 s. The 120 that are usual make the index and the
// heads of the chunks a tenth of all that is written.
const samplesPerChunk = 240

// Newest is the time of the newest sample in Unix ms; 0 when there is none.
func (s *Store) Newest() int64 { return s.newest.Load() }

// Stats tells how the store does.
func (s *Store) Stats() Stats {
	st := Stats{
		Appended: s.counts.appended.Load(), Dropped: s.counts.dropped.Load(), Failed: s.counts.failed.Load(),
		Bytes: size(s.dir), Err: s.lastError(),
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db != nil {
		st.Series = s.db.Head().NumSeries()
	}
	return st
}

// errClosed is what a closed store answers.
var errClosed = errors.New("history is closed")

// querier reads a range of time, both ends included. The caller holds mu for
// as long as it is used.
func (s *Store) querier(from, to int64) (storage.Querier, error) {
	switch {
	case s.past != nil:
		return s.past.querier(from, to)
	case s.db != nil:
		return s.db.Querier(from, to)
	case s.closed:
		return nil, errClosed
	}
	if err := s.lastError(); err != nil {
		return nil, err
	}
	return nil, errClosed
}

// lastError is the error of the last writing, nil when it went well.
func (s *Store) lastError() error {
	if err := s.counts.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Close writes what is in memory to a block, so that the next start and
// OpenReadOnly are quick, and gives the directory back. What cannot be written
// stays in the log.
func (s *Store) Close() error {
	s.closing.Do(func() {
		close(s.stop)
		s.kept.Wait()
	})
	s.write.Lock()
	defer s.write.Unlock()
	flushed, err := s.lastFlush()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.past != nil {
		past := s.past
		s.past = nil
		return past.close()
	}
	if e := s.closeDB(); !isFull(e) { // a full disk was said before, and costs nothing here
		err = errors.Join(err, e)
	}
	if flushed {
		err = errors.Join(err, s.dropLog())
	}
	if err = errors.Join(err, s.lock.Close()); err != nil {
		return fmt.Errorf("close history in %s: %w", s.dir, err)
	}
	return nil
}

// lastFlush is the flush before the end; done says that nothing is in memory any
// more.
func (s *Store) lastFlush() (done bool, err error) {
	s.mu.RLock()
	alive := s.db != nil && !s.broken.Load() && s.place.check(s.dir) == nil
	s.mu.RUnlock()
	if !alive {
		return false, nil
	}
	if err = s.flush(); isFull(err) {
		return false, nil
	}
	return err == nil, err
}

// closeDB closes the TSDB; mu is held. On a full disk it may panic within, with
// its files left open: that is an error here.
func (s *Store) closeDB() (err error) {
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db = nil
	defer func() {
		if r := recover(); r != nil {
			if cause, ok := r.(error); ok {
				err = fmt.Errorf("close the log: %w", cause)
			} else {
				err = fmt.Errorf("close the log: %v", r)
			}
		}
	}()
	return db.Close()
}
