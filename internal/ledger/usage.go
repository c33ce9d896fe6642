package ledger

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
)

// UsageSeries is the last that was said of a limited resource, and how its use
// moved.
type UsageSeries struct {
	leak.Usage
	FirstMax uint64        // the limit when it was first said
	RaisedAt time.Duration // when it was last found raised; negative when it never was
	Points   []Point       // of what is used, at most 256
}

// The most resources, failing calls, inputs and sorts of ownerless sockets of
// one process that are kept. Those beyond them are left out, and counted.
const (
	maxUsages      = 1024
	maxUsagePoints = 256
	maxFailures    = 1024
	maxInputs      = 1024
	maxOwnerless   = 4096
)

// resources are what a process uses of limited things, and what failed when
// they had run out.
type resources struct {
	usages    map[usageKey]*usage
	failures  map[failureKey]leak.Failure
	inputs    []leak.Input
	ownerless []leak.Ownerless // all of one moment
}

type usageKey struct {
	name         leak.UsageName
	scope, limit string
}

type usage struct {
	last     leak.Usage
	firstMax uint64
	raisedAt time.Duration
	series
}

type failureKey struct {
	call, errno string
	stack       leak.StackID
}

func newResources() resources {
	return resources{usages: map[usageKey]*usage{}, failures: map[failureKey]leak.Failure{}}
}

// The methods report whether there was room.

func (r *resources) use(x leak.Usage) bool {
	k := usageKey{x.Name, x.Scope, x.Limit}
	u := r.usages[k]
	if u == nil {
		if len(r.usages) >= maxUsages {
			return false
		}
		u = &usage{last: x, firstMax: x.Max, raisedAt: -1, series: series{max: maxUsagePoints}}
		r.usages[k] = u
	}
	if x.At >= u.last.At {
		if x.Max > u.last.Max && u.last.Max > 0 {
			u.raisedAt = x.At
		}
		u.last = x
	}
	u.add(Point{x.At, float64(x.Used)})
	return true
}

func (r *resources) fail(x leak.Failure) bool {
	k := failureKey{x.Call, x.Errno, x.Stack}
	old, known := r.failures[k]
	if !known && len(r.failures) >= maxFailures {
		return false
	}
	if !known || x.At >= old.At {
		r.failures[k] = x
	}
	return true
}

func (r *resources) input(x leak.Input) bool {
	known := func(i leak.Input) bool {
		return i.Size == x.Size && i.Stack == x.Stack && i.Num == x.Num && i.Source == x.Source
	}
	switch {
	case slices.ContainsFunc(r.inputs, known):
	case len(r.inputs) >= maxInputs:
		return false
	default:
		r.inputs = append(r.inputs, x)
	}
	return true
}

func (r *resources) orphan(x leak.Ownerless) bool {
	if n := len(r.ownerless); n > 0 {
		switch at := r.ownerless[0].At; {
		case x.At < at:
			return true
		case x.At > at:
			r.ownerless = r.ownerless[:0]
		case n >= maxOwnerless:
			return false
		}
	}
	r.ownerless = append(r.ownerless, x)
	return true
}

func (r *resources) view(p *Process) {
	p.Inputs, p.Ownerless = slices.Clone(r.inputs), slices.Clone(r.ownerless)
	for _, k := range slices.SortedFunc(maps.Keys(r.usages), func(a, b usageKey) int {
		return cmp.Or(strings.Compare(string(a.name), string(b.name)), strings.Compare(a.scope, b.scope), strings.Compare(a.limit, b.limit))
	}) {
		u := r.usages[k]
		p.Usages = append(p.Usages, UsageSeries{u.last, u.firstMax, u.raisedAt, slices.Clone(u.points)})
	}
	for _, k := range slices.SortedFunc(maps.Keys(r.failures), func(a, b failureKey) int {
		return cmp.Or(cmp.Compare(r.failures[b].N, r.failures[a].N), strings.Compare(a.call, b.call), strings.Compare(a.errno, b.errno), cmp.Compare(a.stack, b.stack))
	}) {
		p.Failures = append(p.Failures, r.failures[k])
	}
}

// Listing takes all open descriptors of a process.
func (l *Ledger) Listing(x leak.Listing) {
	l.seen(x.At)
	l.books(x.Proc).fds.list(x)
}

// Use notes the last call on a descriptor.
func (l *Ledger) Use(x leak.Use) {
	l.seen(x.At)
	if x.Ref.Kind == leak.KindDescriptor {
		l.books(x.Ref.Proc).fds.use(x)
	}
}

// Ownerless notes sockets without an owner: those of the latest moment count.
func (l *Ledger) Ownerless(x leak.Ownerless) {
	l.seen(x.At)
	l.kept(l.books(x.Proc).orphan(x))
}

// Usage notes how much of a resource is in use.
func (l *Ledger) Usage(x leak.Usage) {
	l.seen(x.At)
	b := l.books(x.Proc)
	if x.Name == leak.UsageDescriptors {
		b.fds.heard(x.At)
	}
	l.kept(b.use(x))
}

// Failure notes calls that failed.
func (l *Ledger) Failure(x leak.Failure) {
	l.seen(x.At)
	l.kept(l.books(x.Proc).fail(x))
}

// Input notes where the bytes of a suspicious size came from.
func (l *Ledger) Input(x leak.Input) {
	l.seen(x.At)
	l.kept(l.books(x.Proc).input(x))
}

// kept counts what there was no room for.
func (l *Ledger) kept(room bool) {
	if !room {
		l.crowded++
	}
}
