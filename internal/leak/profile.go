package leak

// ProfileSchema is the version of the profile document. Fields are only ever
// added.
const ProfileSchema = "stanch.profile/v1"

// Profile is what a process acquired and released while it was recorded, by
// call site. Unlike a Report it concludes nothing. Slices are never nil once
// it is normalized; nil pointers mean "not measured".
type Profile struct {
	Schema   string         `json:"schema"`
	Targets  []ReportTarget `json:"targets"`
	Observed Observed       `json:"observed"`
	Recorded Recorded       `json:"recorded"`
	Total    ProfileCounts  `json:"total"`       // of all sites, listed here or not
	Count    int            `json:"sites_total"` // how many sites there are
	Sites    []ProfileSite  `json:"sites"`
	Notes    []string       `json:"notes"`
	Gaps     []string       `json:"gaps"`
	// Stacks are the whole stacks behind the sites, for formats that hold
	// them; a document that was read back has none.
	Stacks []ProfileStack `json:"-"`
}

// The modes of a recording.
const (
	RecordExact  = "exact"  // every block, with its stack
	RecordSample = "sample" // blocks by chance, in proportion to their bytes
	RecordSizes  = "sizes"  // every block of some sizes, and no other
)

// Recorded says what a recording of allocations was to hold.
type Recorded struct {
	Mode        string      `json:"mode"`         // exact, sample or sizes
	Sizes       []SizeRange `json:"sizes"`        // of mode sizes
	SampleBytes uint64      `json:"sample_bytes"` // of mode sample: the mean number of bytes between two samples
	Through     []string    `json:"through"`      // only stacks through one of these functions are shown; all when empty
	Sort        string      `json:"sort"`         // the first column: bytes, count, age or growth
	Allocator   string      `json:"allocator"`    // "glibc 2.36", "jemalloc", ...
	Removed     *bool       `json:"probe_removed"`
}

// Amount is a number of blocks and their bytes.
type Amount struct {
	Count uint64 `json:"count"`
	Bytes uint64 `json:"bytes"`
}

// ProfileCounts are the numbers of a site, or of all.
type ProfileCounts struct {
	Held      Amount `json:"held"`     // acquired during the watch and not released
	Acquired  Amount `json:"acquired"` // during the watch
	Released  Amount `json:"released"` // of those
	Estimated bool   `json:"estimated"`
	// BeforeAttach is what was held before the watch began. A probe cannot
	// know that, so it is null.
	BeforeAttach *Amount `json:"before_attach"`
}

// ProfileSite is a call site: a line and its caller.
type ProfileSite struct {
	ProfileCounts
	Key          string       `json:"key"`      // build-id:offset of the top frames
	NameKey      string       `json:"name_key"` // module:functions; survives a rebuild
	OldestS      *float64     `json:"oldest_s"` // age of the oldest block that is held
	BytesPerHour *float64     `json:"bytes_per_hour"`
	Stack        []StackFrame `json:"stack"` // of most of its bytes, innermost first, allocator frames removed
	Site         int          `json:"site"`  // index in Stack of the first frame outside libc and wrappers
}

// ProfileStack is a stack with its numbers.
type ProfileStack struct {
	ProfileCounts
	Places []Place // innermost first, allocator frames removed
}

// Place is a place of a program with its names.
type Place struct {
	Frame   Frame
	Mapping Mapping
	Names   []StackFrame // innermost first: all but the last are inlined calls
}

// Normalize fills the schema and turns nil slices into empty ones.
func (p *Profile) Normalize() {
	p.Schema = ProfileSchema
	p.Targets = nonNil(p.Targets)
	p.Sites = nonNil(p.Sites)
	p.Notes = nonNil(p.Notes)
	p.Gaps = nonNil(p.Gaps)
	p.Observed.PauseMS = nonNil(p.Observed.PauseMS)
	p.Recorded.Sizes = nonNil(p.Recorded.Sizes)
	p.Recorded.Through = nonNil(p.Recorded.Through)
	for i := range p.Targets {
		p.Targets[i].Held = nonNil(p.Targets[i].Held)
	}
	for i := range p.Sites {
		p.Sites[i].Stack = nonNil(p.Sites[i].Stack)
	}
}
