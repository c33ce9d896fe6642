package leak

import "time"

// Schema is the version of the report document. Fields are only ever added.
const Schema = "stanch.report/v1"

// Report is what was concluded: the second of the two documents stanch writes
// and reads back. Slices are never nil once it is normalized; nil pointers mean
// "not measured".
type Report struct {
	Schema   string         `json:"schema"`
	Targets  []ReportTarget `json:"targets"`
	Observed Observed       `json:"observed"`
	Findings []Finding      `json:"findings"`
	Notes    []string       `json:"notes"`
	Gaps     []string       `json:"gaps"`
	// What suppression rules and baselines took out of Findings; absent when
	// there were none.
	Suppressed []Suppressed `json:"suppressed,omitempty"`
	Known      []Known      `json:"known,omitempty"`
	// Histories of services, where somebody watched over time; what exhausts a
	// limit first before the others. Absent in reports of single looks.
	Services []ReportService `json:"services,omitempty"`
}

// Suppressed is a suppression rule and what it took out of the report: nothing
// when the rule is unused.
type Suppressed struct {
	Rule     string `json:"rule"` // as it is written, or the name it has in a Valgrind file
	At       string `json:"at"`   // file:line
	Findings int    `json:"findings"`
	Count    uint64 `json:"count"` // of the memory findings, those from before the attach too
	Bytes    uint64 `json:"bytes"`
}

// Known is a baseline and what it took out of the report.
type Known struct {
	Baseline string `json:"baseline"` // the file
	Findings int    `json:"findings"`
	Count    uint64 `json:"count"` // of the memory findings, those from before the attach too
	Bytes    uint64 `json:"bytes"`
	// The same findings when the baseline was written.
	WasCount uint64 `json:"was_count"`
	WasBytes uint64 `json:"was_bytes"`
	// Titles of what is in the baseline and was not seen now.
	Gone []string `json:"gone"`
}

// ReportTarget describes one process of the report.
type ReportTarget struct {
	ID        int      `json:"id"` // what Finding.Target refers to
	PID       int      `json:"pid"`
	Comm      string   `json:"comm"`
	Exe       string   `json:"exe"`
	Allocator string   `json:"allocator"`
	UptimeS   *float64 `json:"uptime_s"`
	// RSS and the nearest memory limit, bytes.
	RSSBytes         *uint64 `json:"rss_bytes"`
	MemoryLimitBytes *uint64 `json:"memory_limit_bytes"`
	MemoryLimit      string  `json:"memory_limit"` // which: "cgroup memory.max", "RLIMIT_AS", "host memory", ""
	// What the heap walk found, bytes and blocks.
	HeapBytes  *uint64 `json:"heap_bytes"`
	HeapBlocks *uint64 `json:"heap_blocks"`
	LostBytes  *uint64 `json:"lost_bytes"`
	LostBlocks *uint64 `json:"lost_blocks"`
	// How the process ended, "exit 0" or "killed by SIGSEGV"; "" while it lives.
	Ended string `json:"ended"`
	// What the look at its exit found; null when there was none.
	LostDirect     *ReportBlocks `json:"lost_direct"`
	LostIndirect   *ReportBlocks `json:"lost_indirect"`
	StillReachable *ReportBlocks `json:"still_reachable"`
	// What could not be seen of this process alone, one sentence each.
	Gaps []string `json:"gaps"`
	// Holders of what is still reachable, largest first.
	Held []ReportHeld `json:"held"`
	// Its descriptors and sockets; null when nobody listed them.
	Descriptors *ReportDescriptors `json:"descriptors"`
}

// ReportBlocks is a number of blocks and their bytes.
type ReportBlocks struct {
	Count    uint64 `json:"count"`
	Bytes    uint64 `json:"bytes"`
	BytesAre string `json:"bytes_are"` // "requested", "usable" or "estimated"
}

// ReportHeld is a line of "who holds the rest".
type ReportHeld struct {
	Holder string `json:"holder"` // a variable, "stack of thread 12", ...
	Type   string `json:"type"`
	Size   uint64 `json:"size"`
	Count  uint64 `json:"count"`
	Bytes  uint64 `json:"bytes"`
}

// Observed is how the report came to be and what it cost the target.
type Observed struct {
	Start           time.Time `json:"start"`
	DurationS       float64   `json:"duration_s"`
	PauseMS         []float64 `json:"pause_ms"`          // each stop of the target
	OverheadPercent *float64  `json:"overhead_percent"`  // CPU of the hooks, of the target's CPU
	PeakMemoryBytes *uint64   `json:"peak_memory_bytes"` // what stanch occupied in the target
	ProbeRemoved    *bool     `json:"probe_removed"`
}

// Severity orders findings by what they claim.
type Severity string

// The severities, see docs/ARCHITECTURE.md for what each may claim.
const (
	SeverityError  Severity = "error"
	SeverityLeak   Severity = "leak"
	SeverityGrowth Severity = "growth"
	SeverityRisk   Severity = "risk"
	SeverityNote   Severity = "note"
)

// Rank is 4 for error, 3 for leak, 2 for growth, 1 for risk, 0 for note.
func (s Severity) Rank() int {
	switch s {
	case SeverityError:
		return 4
	case SeverityLeak:
		return 3
	case SeverityGrowth:
		return 2
	case SeverityRisk:
		return 1
	}
	return 0
}

// Certainty is how well a call site is known.
type Certainty string

// The certainties.
const (
	CertaintyProved Certainty = "proved" // the lost blocks themselves were recorded with this stack
	CertaintyLikely Certainty = "likely" // blocks of the same size and type were
	CertaintyNone   Certainty = "none"   // no stack was seen
)

// Finding is one conclusion with the numbers that made it.
type Finding struct {
	Key           string        `json:"key"`      // rule:build-id:offset of the top frames
	NameKey       string        `json:"name_key"` // rule:module:functions; survives a rebuild
	Rule          string        `json:"rule"`
	Severity      Severity      `json:"severity"`
	Kind          string        `json:"kind"`
	Target        int           `json:"target"`    // of the first process that has it
	Processes     int           `json:"processes"` // how many of the same executable have it; the numbers are of all of them
	Title         string        `json:"title"`
	What          string        `json:"what"`  // what is held or lost, as the title begins: "400-byte blocks"
	Count         uint64        `json:"count"` // without before_attach
	Bytes         uint64        `json:"bytes"`
	BytesAre      string        `json:"bytes_are"` // "requested", "usable" or "estimated"
	Direct        uint64        `json:"direct"`
	Indirect      uint64        `json:"indirect"`
	IndirectBytes uint64        `json:"indirect_bytes"`
	BeforeAttach  *BeforeAttach `json:"before_attach"`
	SiteCertainty Certainty     `json:"site_certainty"`
	Rate          *Rate         `json:"rate"`
	Exhaustion    *Exhaustion   `json:"exhaustion"`
	Stack         []StackFrame  `json:"stack"` // innermost first, allocator frames removed
	Site          int           `json:"site"`  // index in Stack of the first frame outside libc and wrappers
	Related       []Related     `json:"related"`
	Evidence      []string      `json:"evidence"`
	Advice        []string      `json:"advice"`
}

// What a Related stack did.
const (
	RelatedAllocated  = "allocated"   // the block that is freed now
	RelatedFreedFirst = "freed first" // the block that is freed a second time now
	RelatedIndirect   = "indirect"    // blocks that only the lost ones of the finding lead to
	RelatedClosed     = "closed"      // others that the line of the finding opened
)

// Related is another stack that belongs to a finding.
type Related struct {
	What  string       `json:"what"`  // one of the Related words
	Count uint64       `json:"count"` // how many blocks, where that is another number than the finding's
	Bytes uint64       `json:"bytes"` // requested
	Stack []StackFrame `json:"stack"` // as in Finding
	Site  int          `json:"site"`
}

// BeforeAttach counts what was lost before anyone looked.
type BeforeAttach struct {
	Count         uint64    `json:"count"`
	Bytes         uint64    `json:"bytes"`
	IndirectCount uint64    `json:"indirect_count"`
	IndirectBytes uint64    `json:"indirect_bytes"`
	Type          string    `json:"type"` // what the blocks are, from their first word
	Site          Certainty `json:"site"`
}

// Rate is how fast it grows, as seen during the watch. A rate of zero was
// measured: nothing new was seen.
type Rate struct {
	BytesPerHour float64 `json:"bytes_per_hour"`
	CountPerHour float64 `json:"count_per_hour"`
	// The interval that holds the true rate with 95 % confidence, where that is known.
	BytesPerHourLow  *float64 `json:"bytes_per_hour_low"`
	BytesPerHourHigh *float64 `json:"bytes_per_hour_high"`
}

// Exhaustion says when a limit comes at the seen rate. Low and High bound it
// where the rate's error is known.
type Exhaustion struct {
	Limit string   `json:"limit"`
	InS   float64  `json:"in_s"`
	LowS  *float64 `json:"low_s"`
	HighS *float64 `json:"high_s"`
}

// StackFrame is a named frame.
type StackFrame struct {
	Function string `json:"function"` // demangled; "" when no symbol covers it
	File     string `json:"file"`
	Line     int    `json:"line"`
	Module   string `json:"module"` // base name of the file
	BuildID  string `json:"build_id"`
	Offset   uint64 `json:"offset"` // in the module's file
	Inlined  bool   `json:"inlined"`
}

// Normalize fills the schema and turns nil slices into empty ones, so that a
// renderer can rely on both.
func (r *Report) Normalize() {
	r.Schema = Schema
	r.Targets = nonNil(r.Targets)
	r.Findings = nonNil(r.Findings)
	r.Notes = nonNil(r.Notes)
	r.Gaps = nonNil(r.Gaps)
	r.Observed.PauseMS = nonNil(r.Observed.PauseMS)
	for i := range r.Targets {
		r.Targets[i].Held = nonNil(r.Targets[i].Held)
		r.Targets[i].Gaps = nonNil(r.Targets[i].Gaps)
		r.Targets[i].Descriptors.normalize()
	}
	for i := range r.Services {
		r.Services[i].normalize()
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Processes = max(f.Processes, 1)
		f.Stack = nonNil(f.Stack)
		f.Related = nonNil(f.Related)
		f.Evidence = nonNil(f.Evidence)
		f.Advice = nonNil(f.Advice)
		for j := range f.Related {
			f.Related[j].Stack = nonNil(f.Related[j].Stack)
		}
	}
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
