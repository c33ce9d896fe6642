package tsdb

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
)

// A store has MaxBytes in all, in sixteenths of it: what is written to the log
// until it becomes a block, what the merging of blocks needs while it runs, and
// the rest for the blocks.
const (
	logShare   = 3
	mergeShare = 3
	shares     = 16
)

// span is the time that a block covers, and what it takes on the disk.
type span struct {
	id       ulid.ULID
	from, to int64 // ms, to excluded
	bytes    int64
}

// expired says which blocks go: the oldest, beyond so many bytes or so much
// time.
//
// The age of a block is how much time the newer blocks cover, not what any clock says
// of it: a clock that jumps years ahead and back makes nothing old, and a host that
// was switched off for a month still has its history.
func expired(blocks []span, maxBytes int64, retention time.Duration) []ulid.ULID {
	slices.SortFunc(blocks, func(a, b span) int {
		if a.to != b.to {
			return int(min(max(b.to-a.to, -1), 1))
		}
		return b.id.Compare(a.id)
	})
	var gone []ulid.ULID
	var bytes, covered, edge int64
	for i, b := range blocks {
		// Blocks come from the newest to the oldest; edge is where those
		// before this one begin.
		if i == 0 {
			edge = b.to
		}
		bytes += b.bytes
		if bytes > maxBytes || covered >= retention.Milliseconds() {
			gone = append(gone, b.id)
			continue
		}
		if to := min(b.to, edge); b.from < to {
			covered += to - b.from
			edge = b.from
		}
	}
	return gone
}

// retain is the TSDB's question which blocks are to be deleted.
func (s *Store) retain(blocks []*tsdb.Block) map[ulid.ULID]struct{} {
	gone := make(map[ulid.ULID]struct{})
	spans := make([]span, 0, len(blocks))
	for _, b := range blocks {
		meta := b.Meta()
		if meta.Compaction.Deletable {
			gone[meta.ULID] = struct{}{}
			continue
		}
		spans = append(spans, span{meta.ULID, meta.MinTime, meta.MaxTime, b.Size()})
	}
	budget := s.o.MaxBytes*(shares-logShare-mergeShare)/shares - size(filepath.Join(s.dir, asideName))
	for _, id := range expired(spans, budget, s.o.Retention) {
		gone[id] = struct{}{}
	}
	return gone
}

// tooBig keeps a block out of merging: while blocks are merged they exist
// twice, and neither the cap nor the disk may be exceeded by that.
func (s *Store) tooBig(meta *tsdb.BlockMeta) bool {
	n := size(filepath.Join(s.dir, meta.ULID.String()))
	free, err := room(s.dir)
	return err != nil || n > s.o.MaxBytes/shares || 4*n > free
}
