package probe

import (
	"fmt"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

const (
	pageSize   = 4096
	textAlign  = 64 << 10 // a text begins at a multiple of this, so that Leftovers finds it
	reach      = 1<<31 - 1<<20
	defaultMax = 64 << 20
	// defaultExact holds the books of 16 million blocks.
	defaultExact = 1 << 30
	// growth is what is left free above the program and [heap], for brk(2).
	growth = 1 << 30
	// filterSmall serves when little is recorded; filterLarge when sizes are
	// aimed at. They bound how much of the near region the fast paths touch.
	filterSmall = 64 << 10
	filterLarge = 512 << 10
)

// region is a range of the target that stanch maps.
type region struct {
	start uint64
	size  uint64
}

func (r region) end() uint64 { return r.start + r.size }

func (r region) leak() leak.Range {
	return leak.Range{Start: leak.Addr(r.start), End: leak.Addr(r.end())}
}

func pages(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// textRegion is how large the executable part is; struct near follows at
// wNearDistance.
const textRegion = wNearDistance

func nearSize(filter uint64) uint64 { return pages(wNearFilter + filter) }

// tables are the places of the tables in the data range, all addresses
// absolute, all sizes powers of two where a mask is made of them.
type tables struct {
	region
	buckets              uint64
	levels, regions      uint64 // of the live table
	stacks, stackCount   uint64
	index                [2]uint64
	groups               [2]uint64
	frames, frameCount   uint64
	scratch, cache       uint64
	notes, freed, events uint64
	calls, whens, inputs uint64
	fds, fdCount         uint64 // descriptors, 0 when they are not asked for
	modules              [2]uint64
	rows, rowsEnd        uint64 // the arena for unwind tables
}

// minData is the least that is worth placing: books of 4096 records and
// nothing else.
const minData = 6 << 20

// bucketsIn is how many buckets the first levels have together.
func bucketsIn(levels uint64) uint64 { return (wLevel0 << levels) - wLevel0 }

// layOut divides a budget among the tables: unwind tables first, as far as
// they take less than half, then records, stacks and their frames in fixed
// proportion.
func layOut(budget, rowBytes, fds uint64) (tables, error) {
	fixed := 8*fds + uint64(wCalls*wDeedSize+wCallWhens*wWhenSize+wInputs*wInputSize) + uint64(pageSize+1<<wRegionBits+wSlots*wMaxFrames*8+wRowCache*wCachedRowSize+2*wModules*wModuleSize+wNotebooks*wNotebookSize+wGroupsNear*wGroup*8+wFreed*wFreedSize+wEvents*wEventSize)
	if need := max(minData, fixed+1<<20); budget < need {
		return tables{}, fmt.Errorf("%d KiB are too few for the probe's books, which need %d KiB: %w", budget>>10, need>>10, ErrNoRoom)
	}
	left := budget - fixed
	// Room for libraries loaded later.
	rows := min(rowBytes+rowBytes/4+(256<<10), left/2)
	left -= rows
	// To each record its 16 bytes, and for 16 of them a stack with its place in
	// the index and 16 frames.
	t := tables{fdCount: fds}
	size := func(levels uint64) uint64 {
		t.levels = levels
		t.stackCount = min(bucketsIn(levels)*wWays/16, 1<<wStackBits)
		t.groups = [2]uint64{wGroupsNear, t.stackCount / wGroup}
		for t.groups[1]&(t.groups[1]-1) != 0 { // a power of two
			t.groups[1] += t.groups[1] & -t.groups[1]
		}
		t.frameCount = t.stackCount * 16
		return bucketsIn(levels)*wBucketSize + t.stackCount*wStackSize + t.groups[1]*wGroup*8 + t.frameCount*8
	}
	levels := uint64(1)
	for levels < maxLevels && size(levels+1) <= left {
		levels++
	}
	if spare := left - min(left, size(levels)); spare > 0 {
		t.frameCount += min(spare/2/8, 1<<24)
		rows += min(spare/2, 64<<20)
	}
	at := uint64(pageSize) // struct books
	take := func(n uint64) uint64 {
		start := at
		at += (n + 63) &^ 63
		return start
	}
	t.index[0] = take(t.groups[0] * wGroup * 8)
	t.modules[0] = take(wModules * wModuleSize)
	t.modules[1] = take(wModules * wModuleSize)
	t.cache = take(wRowCache * wCachedRowSize)
	t.regions = take(1 << wRegionBits)
	t.scratch = take(wSlots * wMaxFrames * 8)
	t.notes = take(wNotebooks * wNotebookSize)
	t.freed = take(wFreed * wFreedSize)
	t.events = take(wEvents * wEventSize)
	t.calls = take(wCalls * wDeedSize)
	t.whens = take(wCallWhens * wWhenSize)
	t.inputs = take(wInputs * wInputSize)
	t.rows = take(rows)
	t.rowsEnd = at
	t.index[1] = take(t.groups[1] * wGroup * 8)
	t.stacks = take(t.stackCount * wStackSize)
	t.frames = take(t.frameCount * 8)
	t.fds = take(8 * fds)
	at = (at + wBucketSize - 1) &^ (wBucketSize - 1) // two lines of the cache that belong together
	t.buckets = take(bucketsIn(levels) * wBucketSize)
	t.size = pages(at)
	return t, nil
}

// maxLevels: the last has 2 million buckets, 16 million records.
const maxLevels = 13

// used are the parts of the tables that may have been touched, as whole pages.
func (t *tables) used(h *bookHead) []region {
	part := func(start, end uint64) region {
		start &^= pageSize - 1
		return region{start, pages(end) - start}
	}
	return []region{
		part(t.start, t.index[1]+t.groups[1]*wGroup*8),
		part(t.stacks, t.stacks+min(h.stacksUsed, t.stackCount)*wStackSize),
		part(t.frames, t.frames+min(h.framesUsed, t.frameCount)*8),
		part(t.fds, t.fds+min(h.fdsEnd, t.fdCount)*8),
		part(t.buckets, t.buckets+bucketsIn(uint64(h.level)+1)*wBucketSize),
	}
}

// move puts the tables at an address.
func (t *tables) move(start uint64) {
	t.start = start
	for _, p := range []*uint64{&t.regions, &t.buckets, &t.stacks, &t.index[0], &t.index[1], &t.cache, &t.modules[0], &t.modules[1], &t.scratch, &t.notes, &t.freed, &t.events, &t.calls, &t.whens, &t.inputs, &t.fds, &t.frames, &t.rows, &t.rowsEnd} {
		*p += start
	}
}

// gap is a range without mappings.
type gap struct{ lo, hi uint64 }

// gaps lists what is free, except where the target's own memory grows: above
// the program and [heap], below [stack]. A page is kept free at both ends, so
// that the kernel does not merge our mapping with a neighbour.
func gaps(maps []leak.Mapping, exe *leak.Mapping, lowest uint64) []gap {
	const top = 1<<47 - pageSize // user addresses with 4 levels of page tables
	var out []gap
	at := max(lowest, 64<<10)
	for i := 0; i <= len(maps); i++ {
		g := gap{lo: at + pageSize, hi: top}
		if i < len(maps) {
			m := &maps[i]
			if uint64(m.Start) >= top {
				break
			}
			g.hi = uint64(m.Start) - min(pageSize, uint64(m.Start))
			if m.Path == "[stack]" {
				// Rarely is it larger than 64 MiB; the gap below it is kept for it.
				g.hi -= min(g.hi, 64<<20)
			}
			at = uint64(m.End)
		}
		if i > 0 {
			if prev := &maps[i-1]; prev.Path == "[heap]" || exe != nil && prev.File() && prev.Dev == exe.Dev && prev.Inode == exe.Inode || grows(maps, i-1, exe) {
				g.lo += growth
			}
		}
		if g.lo < g.hi {
			out = append(out, g)
		}
	}
	return out
}

// grows reports whether mapping i is the anonymous end of the program's data,
// behind which brk(2) begins.
func grows(maps []leak.Mapping, i int, exe *leak.Mapping) bool {
	if exe == nil || i == 0 || maps[i].Path != "" {
		return false
	}
	prev := &maps[i-1]
	return prev.File() && prev.Dev == exe.Dev && prev.Inode == exe.Inode && prev.End == maps[i].Start
}

// near finds a place for size bytes, at a multiple of align, from all of which
// every byte of [lo, hi) can be reached with a 32-bit distance. Below is better
// than above, near is better than far.
func near(free []gap, lo, hi, size, align uint64) (uint64, error) {
	first, last := uint64(0), lo+reach-size
	if hi > reach {
		first = hi - reach
	}
	for i := len(free) - 1; i >= 0; i-- {
		if g := free[i]; g.lo < lo && g.hi > size {
			at := (min(g.hi, lo) - size) &^ (align - 1)
			if at >= g.lo && at >= first {
				return at, nil
			}
		}
	}
	for _, g := range free {
		at := (max(g.lo, hi) + align - 1) &^ (align - 1)
		if at+size <= g.hi && at <= last {
			return at, nil
		}
	}
	return 0, fmt.Errorf("no free %d KiB within 2 GB of the allocator at %#x: %w", size>>10, lo, proc.ErrUnsupported)
}

// far finds a place for size bytes away from everything: the middle of the
// largest gap.
func far(free []gap, size uint64) (uint64, error) {
	var best gap
	for _, g := range free {
		if g.hi-g.lo > best.hi-best.lo {
			best = g
		}
	}
	if best.hi-best.lo < size+2*pageSize {
		return 0, fmt.Errorf("no free range of %d KiB: %w", size>>10, proc.ErrUnsupported)
	}
	return (best.lo + (best.hi-best.lo-size)/2) &^ (2<<20 - 1), nil
}

// span is the range of addresses of a loaded file.
func span(maps []leak.Mapping, m *leak.Mapping) (lo, hi uint64) {
	lo = ^uint64(0)
	for i := range maps {
		if maps[i].Dev == m.Dev && maps[i].Inode == m.Inode && maps[i].File() {
			lo, hi = min(lo, uint64(maps[i].Start)), max(hi, uint64(maps[i].End))
			// Zeroed data behind the file's own.
			if j := i + 1; j < len(maps) && maps[j].Start == maps[i].End && maps[j].Path == "" {
				hi = max(hi, uint64(maps[j].End))
			}
		}
	}
	return lo, hi
}

// anonymous reports whether a mapping has the look of one that stanch makes:
// private and anonymous.
func anonymous(m *leak.Mapping) bool {
	return m.Inode == 0 && !m.Shared && (m.Path == "" || strings.HasPrefix(m.Path, "[anon:"))
}
