package heap

import (
	"sort"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// frozen is the memory of a snapshot, and for what a snapshot cannot have the
// memory of the process as it runs on: mappings that are not inherited by a
// child (MADV_DONTFORK) or are empty in it (MADV_WIPEONFORK), shared ones, and
// what a copy left out. Such memory may be newer than the rest.
type frozen struct {
	snap   *ptrace.Snapshot
	target *proc.Target
	live   leak.Memory
	absent []leak.Range // what the snapshot does not have; sorted, without overlap
}

// newFrozen takes what the snapshot is known not to have, and finds the rest.
func newFrozen(snap *ptrace.Snapshot, target *proc.Target, live leak.Memory, absent []leak.Range) *frozen {
	f := &frozen{snap: snap, target: target, live: live, absent: union(absent)}
	f.absent = union(append(f.wiped(), f.absent...))
	return f
}

// maxWiped is the largest mapping of which is asked whether a child gets it
// empty: such memory holds keys and the state of random numbers.
const maxWiped = 64 << 20

// wiped lists the mappings of which the process has pages and the snapshot has
// none. Nothing of the snapshot may have been read before: that fills pages in.
func (f *frozen) wiped() []leak.Range {
	var out []leak.Range
	maps := f.snap.Maps()
	for i := range maps {
		m := &maps[i]
		if _, known := f.missing(m.Start); known || !anonymous(m) || !m.Read || m.Size() > maxWiped {
			continue
		}
		r := leak.Range{Start: m.Start, End: m.End}
		if have, err := f.snap.Resident(r); err != nil || len(have) > 0 {
			continue
		}
		if own, err := pagesOf(f.target, r); err == nil && len(own) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// missing gives the absent range that holds a, if one does.
func (f *frozen) missing(a leak.Addr) (leak.Range, bool) {
	i := sort.Search(len(f.absent), func(i int) bool { return f.absent[i].End > a })
	if i < len(f.absent) && f.absent[i].Start <= a {
		return f.absent[i], true
	}
	return leak.Range{}, false
}

// ReadAt reads the memory at a; see leak.Memory.
func (f *frozen) ReadAt(p []byte, a leak.Addr) (int, error) {
	done := 0
	for {
		at := a + leak.Addr(done)
		if r, ok := f.missing(at); ok {
			part := p[done:min(uint64(len(p)), uint64(done)+uint64(r.End-at))]
			n, err := f.live.ReadAt(part, at)
			if done += n; n < len(part) || done == len(p) {
				return done, err
			}
			continue
		}
		n, err := f.snap.ReadAt(p[done:], at)
		if done += n; done == len(p) || n == 0 {
			return done, err
		}
		if _, ok := f.missing(a + leak.Addr(done)); !ok {
			return done, err
		}
	}
}

// resident lists the parts of r that are worth reading. Of what the snapshot
// does not have, the process itself tells.
func (f *frozen) resident(r leak.Range) ([]leak.Range, error) {
	if _, ok := f.missing(r.Start); ok {
		return pagesOf(f.target, r)
	}
	return f.snap.Resident(r)
}
