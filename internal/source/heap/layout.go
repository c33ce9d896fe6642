package heap

// layout is what a range of glibc versions has in common. The sources are
// malloc/malloc.c and malloc/arena.c of those releases; for 2.43 and 2.44 the
// core files of testdata/cores.
type layout struct {
	first, last int // minor versions, 2.first to 2.last
	state       *stateLayout
	cache       cacheLayout // of struct tcache_perthread_struct
	safe        bool        // single links are mangled (PROTECT_PTR), since 2.32
	heapInfo    uint64      // sizeof(heap_info): 2.35 added the page size
	par         *parLayout  // of struct malloc_par
	short       bool        // a mapped block's size leaves its header out (mmap_set_chunk)
}

// cacheLayout describes a thread cache: counts, then list heads, in one chunk.
type cacheLayout struct {
	chunk  uint64 // size of the chunk that holds it
	counts int    // bytes of each count
	bins   int
	down   bool // counts are of free places (num_slots, since 2.42)
	key    cacheKey
}

// cacheKey says what the second word of a cached block is.
type cacheKey uint8

const (
	keyNone   cacheKey = iota // before 2.29
	keyCache                  // address of the thread cache, up to 2.33
	keyRandom                 // one random word for the process
)

// smallBins is TCACHE_MAX_BINS, since 2.42 TCACHE_SMALL_BINS: bin i holds
// chunks of 32 + 16*i bytes. Bins after these, which only 2.42 has, hold chunks
// of several sizes.
const smallBins = 64

// parLayout has the offsets in struct malloc_par that are used. 2.35 put
// thp_pagesize, hp_pagesize and hp_flags before n_mmaps, 2.43 thp_mode before
// those.
type parLayout struct {
	hugePage  uint64 // hp_pagesize, 0 when there is none
	mmaps     uint64 // int n_mmaps, n_mmaps_max, max_n_mmaps
	mmapped   uint64 // size_t mmapped_mem, max_mmapped_mem
	sbrkBase  uint64
	cacheSize uint64 // tcache_count
	size      uint64
}

var (
	par228 = parLayout{mmaps: 40, mmapped: 56, sbrkBase: 72, cacheSize: 96, size: 112}
	par235 = parLayout{hugePage: 48, mmaps: 60, mmapped: 80, sbrkBase: 96, cacheSize: 120, size: 136}
	par243 = parLayout{hugePage: 56, mmaps: 68, mmapped: 88, sbrkBase: 104, cacheSize: 128, size: 136}

	// otherPars are tried, too, for a version that no core proves.
	otherPars = []*parLayout{&par228, &par235, &par243}
)

// layouts is the table of what is known.
var layouts = []layout{
	{28, 28, &state227, cacheLayout{0x250, 1, 64, false, keyNone}, false, 0x20, &par228, false},
	{29, 29, &state227, cacheLayout{0x250, 1, 64, false, keyCache}, false, 0x20, &par228, false},
	{30, 31, &state227, cacheLayout{0x290, 2, 64, false, keyCache}, false, 0x20, &par228, false},
	{32, 33, &state227, cacheLayout{0x290, 2, 64, false, keyCache}, true, 0x20, &par228, false},
	{34, 34, &state227, cacheLayout{0x290, 2, 64, false, keyRandom}, true, 0x20, &par228, false},
	{35, 41, &state227, cacheLayout{0x290, 2, 64, false, keyRandom}, true, 0x30, &par235, false},
	{42, 42, &state227, cacheLayout{0x300, 2, 76, true, keyRandom}, true, 0x30, &par235, true},
	{43, 44, &state243, cacheLayout{0x300, 2, 76, true, keyRandom}, true, 0x30, &par243, true},
}

// proved has the minor versions of which testdata/cores holds a core file with a
// list of what was lost in it. In any other the walk concludes nothing unless
// every single check passes.
var proved = map[int]bool{31: true, 36: true, 41: true, 43: true, 44: true}

// layoutOf finds the layout of glibc 2.minor, nil when it is not known.
func layoutOf(minor int) *layout {
	for i := range layouts {
		if l := &layouts[i]; minor >= l.first && minor <= l.last {
			return l
		}
	}
	return nil
}

// stateLayout has the offsets in struct malloc_state: int mutex at 0, int flags
// at 4, and these.
type stateLayout struct {
	fast    uint64 // mfastbinptr fastbinsY[10]; 0 when there are none
	top     uint64
	bins    uint64 // mchunkptr bins[254]: fd and bk of bins 1 to 127
	next    uint64
	threads uint64 // attached_threads
	system  uint64 // system_mem
	size    uint64
}

var (
	// state227: since have_fastchunks came with 2.27.
	state227 = stateLayout{fast: 16, top: 96, bins: 112, next: 2160, threads: 2176, system: 2184, size: 2200}
	// state243: since the fast bins went.
	state243 = stateLayout{top: 8, bins: 24, next: 2072, threads: 2088, system: 2096, size: 2112}

	states = []*stateLayout{&state227, &state243}
)

const (
	fastBins = 10
	binCount = 127

	maxState = 2200 // the largest size

	noncontiguous = 2 // NONCONTIGUOUS_BIT of flags

	// heapMax is HEAP_MAX_SIZE: heaps of thread arenas begin at multiples of
	// it. With the tunable glibc.malloc.hugetlb=2 it is four huge pages.
	heapMax = 64 << 20
)

// Flags in the low bits of a chunk's size.
const (
	prevInUse    = 1
	isMmapped    = 2
	nonMainArena = 4
	sizeFlags    = 7
)
