// Package detect turns the books into findings. Each detector is a value: a
// name, an explanation, a function over a frozen view. It reads no clock and
// touches nothing, so the same recording gives the same findings anywhere.
//
// Words are used with care. "leak" needs proof: the same block unreachable in
// two looks at least a second apart and not given back between, or in one look
// at the exit of its process. What is held and grows is "growth", whatever it
// looks like. After a gap a detector says
// less, never more.
package detect

import (
	"cmp"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// Detector draws one kind of conclusion.
type Detector struct {
	Name string // the rule; it is forever: a flag, a key, a URL
	Doc  string // one line
	Run  func(*Pass)
}

// All are the detectors, in the order in which they run.
var All = []*Detector{
	InvalidFree, Unreachable, Reachable, HeldAtEnd, Growth, Mappings, Threads, Pools,
	CloseWait, Accumulating, Descriptors, Unclosed, Silent, Inherited, FDLimit, Failing, MemoryLimit, SuspiciousSize,
}

// Config is what detectors need to know beside the books. The zero value
// works: places are then named by file and offset.
type Config struct {
	// Name gives the functions at a place, innermost first, inlined ones
	// expanded.
	Name func(leak.Frame) []leak.StackFrame
	// Object gives the data symbol at a place: "vtable for Conn"; "" when none
	// covers it.
	Object func(leak.Frame) string
	// Wrappers are functions that only wrap an allocator, beside the known.
	Wrappers []string
	// Limits are limits beyond those that the gauges tell of.
	Limits []Limit
	// ShowContents allows the first bytes of lost blocks in evidence.
	ShowContents bool
	// MinBytes leaves out memory findings below it.
	MinBytes uint64
	// Reachable lists also what was still reachable at the exit.
	Reachable bool
	// Peer lets only descriptors of sockets to it into DescriptorsOf:
	// "10.0.0.5:5432", a host alone, or ":5432"; and Module only those that a
	// library whose name begins so has opened.
	Peer, Module string
	// ImportsSelect says that the program calls select(2), which cannot take
	// descriptors from 1,024 on.
	ImportsSelect bool
	// Uptime is how long the target had run when the observation began; zero
	// when unknown.
	Uptime time.Duration
}

// Limit is a limit on memory: how much of it is used, and how much there is.
type Limit struct {
	Name      string
	Used, Max uint64
}

// Pass is one run of one detector over one process.
type Pass struct {
	View   *ledger.View
	Proc   *ledger.Process
	Target int // for Finding.Target
	Config *Config

	rule   string
	names  *names
	shared *shared
	report func(leak.Finding)
}

// shared is what detectors of one process tell those that run after them.
type shared struct {
	lost map[string]siteLoss // by site key: what heap.unreachable explains
	rate float64             // bytes per hour that findings explain

	sizes map[uint64]bool // suspicious sizes that were said already
	fds   *fds            // nil until one asks for them
}

type siteLoss struct{ bytes float64 }

// Report adds a finding. Rule, target and the nil parts are filled in. A
// process that has ended loses nothing more, and meets no limit.
func (p *Pass) Report(f leak.Finding) {
	f.Rule, f.Target, f.Processes = p.rule, p.Target, 1
	if p.Proc.Ended() {
		f.Rate, f.Exhaustion = nil, nil
	}
	f.Key, f.NameKey = p.rule+":"+f.Key, p.rule+":"+f.NameKey
	p.report(f)
}

// Run runs every detector over every process of the view and gives the
// findings in the order of urgency.
func Run(v *ledger.View, c Config) []leak.Finding {
	var out []leak.Finding
	names := newNames(v, &c)
	for i, proc := range v.Procs {
		share := &shared{lost: map[string]siteLoss{}, sizes: map[uint64]bool{}}
		for _, d := range All {
			d.Run(&Pass{
				View: v, Proc: proc, Target: i + 1, Config: &c,
				rule: d.Name, names: names, shared: share,
				report: func(f leak.Finding) { out = append(out, f) },
			})
		}
	}
	slices.SortStableFunc(out, urgency)
	return out
}

// urgency orders errors before all else, then by time to exhaustion, rate,
// severity, bytes, count.
func urgency(a, b leak.Finding) int {
	switch {
	case (a.Severity == leak.SeverityError) != (b.Severity == leak.SeverityError):
		return -cmp.Compare(a.Severity.Rank(), b.Severity.Rank())
	case a.Exhaustion != nil && b.Exhaustion != nil && a.Exhaustion.InS != b.Exhaustion.InS:
		return cmp.Compare(a.Exhaustion.InS, b.Exhaustion.InS)
	case (a.Exhaustion != nil) != (b.Exhaustion != nil):
		if a.Exhaustion != nil {
			return -1
		}
		return 1
	}
	return cmp.Or(
		-cmp.Compare(perHour(&a), perHour(&b)),
		-cmp.Compare(a.Severity.Rank(), b.Severity.Rank()),
		-cmp.Compare(total(&a), total(&b)),
		-cmp.Compare(a.Count, b.Count),
		cmp.Compare(a.Key, b.Key),
	)
}

func perHour(f *leak.Finding) float64 {
	if f.Rate == nil {
		return 0
	}
	return f.Rate.BytesPerHour
}

// total is all bytes of a finding, before and after the attach.
func total(f *leak.Finding) uint64 {
	if f.BeforeAttach != nil {
		return f.Bytes + f.BeforeAttach.Bytes
	}
	return f.Bytes
}
