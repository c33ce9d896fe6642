package heap

import (
	"slices"
	"sort"

	"stanch/internal/leak"
)

// Where the allocator's code lies, without symbols: the main arena is a static
// variable of malloc.c, so only functions of that file name its address. They
// are laid out together.

const (
	// cluster is how far two functions of one object file may lie apart with
	// none between that names the arena.
	cluster = 12 << 10
	// margin is taken around them when the borders of functions are not known.
	margin   = 4 << 10
	maxModul = 256 << 20 // a larger one is not searched
)

// allocatorText finds the code that belongs to the main arena a. An empty range
// means that it was not found, or that the module's code cannot be read.
func (img *Image) allocatorText(a *arena) leak.Range {
	m := &img.Maps[a.mapping]
	var starts []uint64 // of the functions that name the arena
	functions := img.functions(m)
	for i := range img.Maps {
		o := &img.Maps[i]
		if sameFile(o, m) && o.Exec && o.Size() <= maxModul {
			for _, at := range img.references(o, a.addr) {
				starts = append(starts, functionOf(functions, at))
			}
		}
	}
	slices.Sort(starts)
	from, to := densest(starts)
	if from == to {
		return leak.Range{}
	}
	first, last := starts[from], starts[to-1]
	if len(functions) == 0 {
		return leak.Range{Start: leak.Addr(first - margin), End: leak.Addr(last + margin)}
	}
	end := last + margin
	if i := sort.Search(len(functions), func(i int) bool { return functions[i] > last }); i < len(functions) {
		end = functions[i]
	}
	return leak.Range{Start: leak.Addr(first), End: leak.Addr(end)}
}

// densest gives the bounds of the longest run of sorted places that lie close
// together.
func densest(at []uint64) (from, to int) {
	for i := 0; i < len(at); {
		k := i + 1
		for k < len(at) && at[k]-at[k-1] <= cluster {
			k++
		}
		if k-i > to-from {
			from, to = i, k
		}
		i = k
	}
	return from, to
}

// functionOf gives the start of the function that holds a, a itself when
// unknown.
func functionOf(functions []uint64, a uint64) uint64 {
	i := sort.Search(len(functions), func(i int) bool { return functions[i] > a })
	if i == 0 {
		return a
	}
	return functions[i-1]
}

// references lists the places in code mapping m that name an address within
// the arena at addr.
func (img *Image) references(m *leak.Mapping, addr uint64) []uint64 {
	win := newWindow(img.Mem, uint64(m.End))
	defer win.close()
	var found []uint64
	for at := uint64(m.Start); at+16 < uint64(m.End); {
		b, err := win.at(at, 16)
		if err != nil {
			return nil
		}
		n := len(b) - 15
		for i := range n {
			if refersTo(b[i:i+6], at+uint64(i), addr) {
				found = append(found, at+uint64(i))
			}
		}
		at += uint64(n)
	}
	return found
}
