package ptrace

import (
	"fmt"
	"os"
	"slices"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// copyRate is how fast memory is read while the target stands still, in bytes
// per second: half of what was measured (4.3 to 5.9 GB/s), so that a copy ends
// within its budget on a slower machine as well.
const copyRate = 2e9

// Copy reads the given ranges while the target stands still, then releases
// it: a snapshot for when no child can be forked. Pages that the target never
// touched are not read, and are zero in the copy. It refuses, with ErrPause
// and the target still held, what cannot be read at 2 GB/s in what is left of
// the pause.
func (s *Stop) Copy(ranges []leak.Range) (*Snapshot, error) {
	snap := &Snapshot{threads: s.public, maps: s.maps}
	err := s.held(func() error {
		copied, err := s.copyRanges(ranges)
		if err != nil {
			return err
		}
		snap.mem = copied
		return s.release(ErrReleased)
	})
	if err != nil {
		return nil, err
	}
	s.timer.Stop()
	s.end()
	_ = s.reader.Close()
	snap.pause = s.Pause()
	return snap, nil
}

func (s *Stop) copyRanges(ranges []leak.Range) (pieces, error) {
	pagemap, err := os.Open(s.target.Path("pagemap"))
	if err != nil {
		return nil, fmt.Errorf("find the pages of pid %d: %w", s.target.ID.PID, err)
	}
	defer pagemap.Close()
	var wanted []leak.Range
	var bytes uint64
	for _, r := range ranges {
		have, err := resident(pagemap, r)
		if err != nil {
			return nil, err
		}
		for _, h := range have {
			wanted = append(wanted, h)
			bytes += uint64(h.End - h.Start)
		}
	}
	need := time.Duration(float64(bytes) / copyRate * float64(time.Second))
	if left := s.left(); need > left {
		return nil, fmt.Errorf("%w: reading %d MiB while the target stands still takes about %v, and %v of the allowed pause are left",
			ErrPause, bytes>>20, need.Round(time.Millisecond), left.Round(time.Millisecond))
	}
	out := make(pieces, 0, len(ranges)+len(wanted))
	for _, r := range ranges {
		out = append(out, piece{Range: r})
	}
	for _, w := range wanted {
		b := make([]byte, w.End-w.Start)
		n, err := s.mem.ReadAt(b, w.Start)
		if err != nil && n == 0 {
			continue // gone since, or not readable: reads there fail
		}
		out = append(out, piece{leak.Range{Start: w.Start, End: w.Start + leak.Addr(n)}, b[:n]})
		if s.left() <= 0 {
			return nil, fmt.Errorf("%w: reading was slower than expected", ErrPause)
		}
	}
	return out.sorted(), nil
}

// piece is a range of a copy; nil data means pages never touched.
type piece struct {
	leak.Range
	data []byte
}

// pieces is a copy as a leak.Memory: sorted, without overlap.
type pieces []piece

// sorted cuts the untouched rest out of the ranges that were asked for.
func (p pieces) sorted() pieces {
	var data, asked pieces
	for _, q := range p {
		if q.data != nil {
			data = append(data, q)
		} else {
			asked = append(asked, q)
		}
	}
	byStart := func(a, b piece) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	}
	slices.SortFunc(data, byStart)
	slices.SortFunc(asked, byStart)
	var out pieces
	at := leak.Addr(0) // all before it is settled
	empty := func(start, end leak.Addr) {
		if start = max(start, at); start < end {
			out = append(out, piece{Range: leak.Range{Start: start, End: end}})
			at = end
		}
	}
	for _, a := range asked {
		for len(data) > 0 && data[0].Start < a.End {
			d := data[0]
			data = data[1:]
			empty(a.Start, d.Start)
			if d.Start >= at {
				out = append(out, d)
				at = d.End
			}
		}
		empty(a.Start, a.End)
	}
	return out
}

// ReadAt reads the copy; see leak.Memory.
func (p pieces) ReadAt(b []byte, a leak.Addr) (int, error) {
	done := 0
	i := sort.Search(len(p), func(i int) bool { return p[i].End > a })
	for ; i < len(p) && done < len(b); i++ {
		at := a + leak.Addr(done)
		if p[i].Start > at {
			break
		}
		n := min(len(b)-done, int(p[i].End-at))
		if p[i].data == nil {
			clear(b[done : done+n])
		} else {
			copy(b[done:done+n], p[i].data[at-p[i].Start:])
		}
		done += n
	}
	if done < len(b) {
		return done, fmt.Errorf("read %d bytes at %v: not in the copy: %w", len(b)-done, a+leak.Addr(done), unix.EIO)
	}
	return done, nil
}

// Bits of a /proc/PID/pagemap entry, from Documentation/admin-guide/mm/pagemap.rst.
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
)

// resident lists the parts of r that have memory, present or swapped out.
// Reading the rest would only make the kernel fill in zero pages. They are
// whole pages.
func resident(pagemap *os.File, r leak.Range) ([]leak.Range, error) {
	const batch = 1 << 16 // pages, 256 MiB of memory
	var out []leak.Range
	r.Start &^= pageSize - 1
	r.End = (r.End + pageSize - 1) &^ (pageSize - 1)
	buf := make([]byte, 8*min(batch, int(r.End-r.Start)/pageSize))
	for at := r.Start; at < r.End; {
		n, err := pagemap.ReadAt(buf[:min(len(buf), 8*(int(r.End-at)/pageSize))], int64(at/pageSize*8))
		if n < 8 {
			if err == nil {
				break
			}
			return nil, fmt.Errorf("find the pages at %v: %w", at, err)
		}
		for i := 0; i+8 <= n; i += 8 {
			if order.Uint64(buf[i:])&(pagePresent|pageSwapped) != 0 {
				if k := len(out) - 1; k >= 0 && out[k].End == at {
					out[k].End += pageSize
				} else {
					out = append(out, leak.Range{Start: at, End: at + pageSize})
				}
			}
			at += pageSize
		}
	}
	return out, nil
}
