package probe

import (
	"slices"

	"stanch/internal/leak"
)

// piece is a mapping, or what is left of one, with who made it.
type piece struct {
	start, end uint64
	stack      leak.StackID
	from       uint64 // which one it was: numbers tell mappings apart that touch
}

// intervals are mappings that do not overlap, sorted by address.
type intervals []piece

// cut takes [start, end) out and gives what was there. changed are the spans
// as they were before, kept what is left of them.
func (v *intervals) cut(start, end uint64) (out, changed, kept []piece) {
	if end <= start {
		return nil, nil, nil
	}
	first, _ := slices.BinarySearchFunc(*v, start, func(s piece, at uint64) int {
		if s.end <= at {
			return -1
		}
		return 1
	})
	last := first
	for ; last < len(*v) && (*v)[last].start < end; last++ {
		s := (*v)[last]
		changed = append(changed, s)
		in := s
		if s.start < start {
			left := s
			left.end, in.start = start, start
			kept = append(kept, left)
		}
		if s.end > end {
			right := s
			right.start, in.end = end, end
			kept = append(kept, right)
		}
		out = append(out, in)
	}
	*v = slices.Replace(*v, first, last, kept...)
	return out, changed, kept
}

// add puts a span where nothing is.
func (v *intervals) add(s piece) {
	at, _ := slices.BinarySearchFunc(*v, s.start, func(x piece, at uint64) int {
		if x.start < at {
			return -1
		}
		return 1
	})
	*v = slices.Insert(*v, at, s)
}

// at is the index of the span that holds an address, or -1.
func (v intervals) at(a uint64) int {
	i, _ := slices.BinarySearchFunc(v, a, func(s piece, at uint64) int {
		if s.end <= at {
			return -1
		}
		return 1
	})
	if i < len(v) && v[i].start <= a {
		return i
	}
	return -1
}
