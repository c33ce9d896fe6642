package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"stanch/internal/detect"
	"stanch/internal/leak"
	"stanch/internal/ledger"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/source/heap"
	"stanch/internal/source/probe"
	"stanch/internal/source/sampler"
	"stanch/internal/symbol"
)

// observation is one pipeline: sources say what they see to its sink, the
// ledger keeps the books, and conclude makes the report of them.
type observation struct {
	subject  subject
	target   *proc.Target // nil when the events come from a file
	program  proc.ExecID  // what the target ran when the observation began
	core     *proc.Core   // when they come from a core file
	clock    *proc.Clock
	lock     *sync.Mutex // of books, while sources say to them
	books    *ledger.Ledger
	one      bool      // the books hold other processes too
	unheld   bool      // nobody asks who holds what is reachable, and naming the variables takes long
	sink     leak.Sink // the books and, when recording, the file
	atlas    *leak.Atlas
	progress *progress
	budget   *budget
	looks    int
	show     bool                    // --show-contents
	each     bool                    // each descriptor is asked for, not groups alone
	family   map[leak.ProcID]subject // the processes to report on when there are several that live; nil for all
	plan     time.Duration           // the predicted pause of one look
	notes    []string
	file     *recording                       // takes the names of what was concluded; nil when none was asked for
	given    map[leak.Frame][]leak.StackFrame // names that a recording holds
	ending   string                           // how the target ended, "" while it lives
	removed  *bool                            // whether the probe was removed; nil when none was placed
}

// subject is who an observation is about.
type subject struct {
	comm, exe string
	uptime    time.Duration // when the observation began; zero when unknown
	began     time.Time
}

// budget is what --max-pause leaves. It is also a sink: every stop of the
// target that a source tells of is charged to it.
type budget struct {
	leak.Ignore
	max   time.Duration
	used  time.Duration
	looks int // said so far
	all   []time.Duration
}

// Look counts the looks.
func (b *budget) Look(leak.Look) { b.looks++ }

// Gauge charges a stop.
func (b *budget) Gauge(g leak.Gauge) {
	if g.Name == leak.GaugePause {
		d := time.Duration(g.Value * float64(time.Second))
		b.used += d
		b.all = append(b.all, d)
	}
}

func (b *budget) left() time.Duration { return b.max - b.used }

// observe begins an observation of a live process, refused where the preflight
// says so. More sinks get every event too.
func (a *app) observe(ctx context.Context, t *proc.Target, f *lookFlags, more ...leak.Sink) (*observation, error) {
	o := newObservation(newProgress(a.std.Err, f.quiet), f, more...)
	o.target = t
	o.atlas = leak.NewAtlas(o.sink, t.BuildID)
	o.subject = subjectOf(t, o.clock)
	humble()
	program, err := t.ExecID()
	if err != nil {
		return nil, err
	}
	o.program = program
	preflight := ptrace.Preflight
	if f.noSnapshot {
		preflight = ptrace.PreflightCalls
	}
	plan, err := preflight(t, ptrace.Options{MaxPause: f.maxPause})
	if err != nil {
		return nil, err
	}
	if len(plan.Refusals) > 0 {
		return nil, fmt.Errorf("%s: %s", o.name(), plan.Refusals[0])
	}
	o.plan = plan.Pause
	o.notes = append(o.notes, plan.Notes...)
	cleaned, err := clean(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("remove what an interrupted stanch left: %w", err)
	}
	if len(cleaned) > 0 {
		o.note("an interrupted stanch had left something behind: %s", strings.Join(cleaned, ", "))
	}
	return o, nil
}

func newObservation(p *progress, f *lookFlags, more ...leak.Sink) *observation {
	o := &observation{clock: proc.NewClock(), lock: &sync.Mutex{}, books: ledger.New(), progress: p, budget: &budget{max: f.maxPause}, show: f.showContents}
	o.subject.began = o.clock.Wall
	o.sink = leak.SerialBy(o.lock, leak.Tee(append([]leak.Sink{o.books, o.budget}, more...)...))
	return o
}

func subjectOf(t *proc.Target, clock *proc.Clock) subject {
	s := subject{began: clock.Wall, uptime: t.Uptime()}
	if st, err := t.Stat(); err == nil {
		s.comm = st.Comm
	}
	if exe, _, err := t.Exe(); err == nil {
		s.exe = exe
	}
	return s
}

// view is what the books hold now.
func (o *observation) view() *ledger.View {
	o.lock.Lock()
	defer o.lock.Unlock()
	if o.one {
		return o.books.ViewOf(o.target.ID)
	}
	return o.books.View()
}

// name is "comm[pid]".
func (o *observation) name() string {
	if o.target == nil {
		return o.subject.comm
	}
	return fmt.Sprintf("%s[%d]", o.subject.comm, o.target.ID.PID)
}

func (o *observation) note(format string, args ...any) {
	note := fmt.Sprintf(format, args...)
	for _, n := range o.notes {
		if n == note {
			return
		}
	}
	o.notes = append(o.notes, note)
}

// affordable reports whether the pause budget has room for this many more
// looks, judged by the longest so far or, before the first, by the prediction.
func (o *observation) affordable(looks int) bool {
	each := o.plan
	if len(o.budget.all) > 0 {
		each = 0
		for _, p := range o.budget.all {
			each = max(each, p)
		}
	}
	return time.Duration(looks)*each <= o.budget.left()
}

// scan takes one look at the heap. With a probe, the probe's books are read
// from the very same snapshot, so that books and heap agree.
func (o *observation) scan(ctx context.Context, p *probe.Probe) error {
	o.looks++
	s := &heap.Scanner{Options: o.heapOptions(), N: o.looks}
	if p != nil {
		s.Exclude = p.Ranges
		s.OnSnapshot = func(mem leak.Memory, _ []leak.Mapping) error { return p.Books(mem, o.sink) }
	}
	err := patiently(ctx, func() error {
		if err := o.present(); err != nil {
			return err
		}
		before := o.budget.looks
		err := s.Scan(ctx, o.target, o.sink)
		if errors.Is(err, ptrace.ErrStuck) && o.budget.looks > before {
			// The look is complete; what is left of its snapshot can be removed.
			_, err = ptrace.Clean(ctx, o.target)
		}
		return err
	})
	if errors.Is(err, ptrace.ErrPause) {
		err = fmt.Errorf("%w; raise --max-pause from %v if the target can bear that", err, o.budget.max)
	}
	return err
}

// heapOptions are those of the next look.
func (o *observation) heapOptions() heap.Options {
	return heap.Options{
		Atlas: o.atlas, Clock: o.clock, MaxPause: o.budget.left(), ShowContents: o.show,
		Progress: func(stage string, done, total uint64) {
			if total > 0 {
				o.progress.left("%s, %d %%", stage, 100*done/total)
			} else {
				o.progress.left("%s", stage)
			}
		},
	}
}

// walked reports whether the last look understood the heap.
func (o *observation) walked() bool {
	for _, p := range o.view().Procs {
		if look := p.LastLook(); look != nil && look.Walked {
			return true
		}
	}
	return false
}

// apart waits until another look can prove what this one saw.
func (o *observation) apart(ctx context.Context) error {
	select {
	case <-time.After(lookApart):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gauges reads the numbers of the target once.
func (o *observation) gauges(ctx context.Context) error {
	return (&sampler.Sampler{Clock: o.clock}).Scan(ctx, o.target, o.sink)
}

// findings runs the detectors without names: enough to count.
func (o *observation) findings(c detect.Config) []leak.Finding {
	return detect.Run(o.view(), c)
}

// conclude makes the report of what was observed.
func (o *observation) conclude(c detect.Config) *leak.Report {
	view := o.view()
	if o.family != nil {
		view.Procs = slices.DeleteFunc(view.Procs, func(p *ledger.Process) bool { _, lives := o.family[p.ID]; return !lives })
	}
	names := symbol.New(o.symbols())
	defer func() { _ = names.Close() }() // it only read
	c.Name = o.namer(names, view)
	c.Object = func(f leak.Frame) string {
		if given := o.given[f]; len(given) > 0 && given[0].Function != "" {
			return given[0].Function
		}
		name, _, _ := names.Object(view.Maps[f.Map], f.Off)
		return name
	}
	c.Uptime = o.subject.uptime
	r := &leak.Report{Findings: detect.Run(view, c), Notes: o.notes}
	for i, p := range view.Procs {
		r.Targets = append(r.Targets, o.describe(i+1, view, p, c))
	}
	r.Notes = append(r.Notes, detect.Unseen(view)...)
	if o.given == nil {
		r.Notes = append(r.Notes, names.Notes()...)
	}
	for _, g := range view.Gaps {
		r.Gaps = append(r.Gaps, g.What)
	}
	r.Observed = o.observed(view)
	o.file.objects(view, c.Object)
	r.Normalize()
	return r
}

// observed is how it went and what it cost.
func (o *observation) observed(view *ledger.View) leak.Observed {
	out := leak.Observed{Start: o.subject.began, DurationS: view.End.Seconds(), ProbeRemoved: o.removed}
	for _, p := range o.budget.all {
		out.PauseMS = append(out.PauseMS, float64(p.Microseconds())/1000)
	}
	for _, p := range view.Procs {
		cost(&out, p)
	}
	return out
}

// namer names places: as the recording does, unless this machine knows more of
// them.
func (o *observation) namer(names *symbol.Symbolizer, view *ledger.View) func(leak.Frame) []leak.StackFrame {
	return func(f leak.Frame) []leak.StackFrame {
		given := o.given[f]
		if known(given) == withLine {
			return given
		}
		if here := names.Frames(view.Maps[f.Map], f); len(given) == 0 || known(here) > known(given) {
			return here
		}
		return given
	}
}

// What can be known of a place.
const (
	withoutName = iota
	withName
	withLine
)

// known says how much the names of a place tell.
func known(names []leak.StackFrame) int {
	switch n := len(names); {
	case n == 0 || names[n-1].Function == "":
		return withoutName
	case names[n-1].File == "" || names[n-1].Line == 0:
		return withName
	}
	return withLine
}

// symbols says where names come from: the target's own files, those of a core
// file, or those of this machine.
func (o *observation) symbols() symbol.Options {
	if o.core != nil {
		return symbol.Options{Open: o.core.OpenFile, Memory: o.core}
	}
	return symbol.Options{Target: o.target}
}

// cost is what the probe took from the target, as its gauges measured it.
func cost(o *leak.Observed, p *ledger.Process) {
	last := func(name leak.GaugeName) (first, last float64, ok bool) {
		points := p.Gauges[name]
		if len(points) == 0 {
			return 0, 0, false
		}
		return points[0].Value, points[len(points)-1].Value, true
	}
	if _, bytes, ok := last(leak.GaugeProbeBytes); ok {
		n := uint64(bytes)
		o.PeakMemoryBytes = &n
	}
	_, hooks, ok := last(leak.GaugeProbeSeconds)
	began, cpu, ok2 := last(leak.GaugeCPUSeconds)
	if ok && ok2 && cpu > began {
		percent := 100 * hooks / (cpu - began)
		o.OverheadPercent = &percent
	}
}

// describe fills the part of the report that is about one process.
func (o *observation) describe(id int, view *ledger.View, p *ledger.Process, c detect.Config) leak.ReportTarget {
	who := o.subject
	if member, ok := o.family[p.ID]; ok {
		who = member
	}
	t := leak.ReportTarget{ID: id, PID: p.ID.PID, Comm: who.comm, Exe: who.exe}
	if who.uptime > 0 {
		s := who.uptime.Seconds()
		t.UptimeS = &s
	}
	last := func(name leak.GaugeName) *uint64 {
		points := p.Gauges[name]
		if len(points) == 0 {
			return nil
		}
		n := uint64(points[len(points)-1].Value)
		return &n
	}
	t.RSSBytes = last(leak.GaugeRSS)
	switch {
	case last(leak.GaugeCgroupMax) != nil:
		t.MemoryLimit, t.MemoryLimitBytes = "cgroup memory.max", last(leak.GaugeCgroupMax)
	case last(leak.GaugeAddressLimit) != nil:
		t.MemoryLimit, t.MemoryLimitBytes = "RLIMIT_AS", last(leak.GaugeAddressLimit)
	case last(leak.GaugeHostMemory) != nil:
		t.MemoryLimit, t.MemoryLimitBytes = "host memory", last(leak.GaugeHostMemory)
	}
	if look := p.LastLook(); look != nil {
		t.Allocator = look.Allocator
		t.HeapBytes, t.HeapBlocks = &look.Bytes, &look.Blocks
		t.LostBytes, t.LostBlocks = &look.LostBytes, &look.LostBlocks
	} else if n := len(p.Blind); n > 0 {
		t.Allocator = p.Blind[n-1].Allocator
	}
	t.Descriptors = detect.DescriptorsOf(view, p, c, o.each)
	t.Ended = o.ending
	t.LostDirect, t.LostIndirect, t.StillReachable = detect.Totals(p)
	if !o.unheld {
		t.Held = detect.Holders(view, p, c, maxHeld)
	}
	return t
}

// maxHeld is how many holders a report lists.
const maxHeld = 20
