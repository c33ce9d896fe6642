package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/unwind"
)

// Probe is a placed probe. Its methods may be called from several goroutines.
type Probe struct {
	placed
	o     Options
	clock *clock
	mem   live
	data  tables
	info  Placement
	exec  proc.ExecID
	musl  bool

	islands   []*island    // for Options.Hooks
	complete  bool         // every block since the start is recorded
	before    []leak.Range // where there may be some from before
	allocator region       // its file's place
	inside    region       // of it, what surely is the allocator's own code
	libc      region       // libc's, when its mmap is hooked
	sites     []callSite   // system calls of libc, when they are to be hooked
	stayed    []region     // an island for them that is there from before
	sited     region       // where those are, when the text can be within reach
	unseen    bool         // how descriptors close is not seen, so that no opener is kept

	mu     sync.Mutex // of what follows
	code   *code
	books  reader
	watch  watch
	events events
	mapped mappings

	descriptors descriptors
	inputs      inputs
	removed     bool
}

// Place puts a probe into t and starts recording. What an earlier stanch left
// there is removed first; ErrPlaced when that one still runs. The target
// stands still twice, for a few milliseconds together.
//
// Errors wrap ErrNoAllocator, ErrNoRoom, ErrPlaced, ErrBusy, proc.ErrGone,
// ErrDenied, ErrUnsupported or those of ptrace; after each of them the target
// is as it was, but for quiet memory that may stay.
func Place(ctx context.Context, t *proc.Target, o Options) (*Probe, error) {
	o = o.withDefaults()
	p := &Probe{o: o, clock: startClock(o.Clock)}
	p.t = t
	stops := &pauses{t: t, max: o.MaxPause}
	old, err := p.clear(ctx, stops)
	if err != nil {
		return nil, err
	}
	if p.exec, err = t.ExecID(); err != nil {
		return nil, err
	}
	if p.mem, err = openLive(t); err != nil {
		return nil, err
	}
	if err := p.place(ctx, stops, old); err != nil {
		return nil, errors.Join(err, p.mem.Close())
	}
	p.info.Pauses = stops.took
	return p, nil
}

// clear removes what is left from before. A text that stays can serve again.
func (p *Probe) clear(ctx context.Context, stops *pauses) (*placed, error) {
	maps, err := p.t.Maps()
	if err != nil {
		return nil, err
	}
	mem, err := p.t.Mem()
	if err != nil {
		return nil, err
	}
	defer func() { _ = mem.Close() }()
	var quiet *placed
	for _, old := range findPlaced(p.t, maps, mem) {
		if !old.quiet() {
			if err := old.ownerGone(); err != nil {
				return nil, err
			}
			if p.o.Descriptors {
				p.inherit(old, mem)
			}
			if err := old.remove(ctx, stops); err != nil {
				return nil, fmt.Errorf("remove what an earlier stanch left: %w", err)
			}
		}
		if old.used && old.head.build == buildID() && len(p.o.Hooks) == 0 && old.callsOnly() {
			quiet = old
		}
	}
	return quiet, nil
}

// ownerGone returns ErrPlaced when the stanch that placed p still lives. It is
// looked for in our own PID namespace; a start time tells PIDs apart.
func (p *placed) ownerGone() error {
	o := p.head.owner
	if o.PID == os.Getpid() {
		return nil // this process; its Probe is not used any more
	}
	t, err := p.t.Root.Open(o.PID)
	if err != nil || t.ID != o || t.Check() != nil {
		return nil
	}
	return fmt.Errorf("pid %d is watched by stanch %d: %w", p.t.ID.PID, o.PID, ErrPlaced)
}

func (p *Probe) place(ctx context.Context, stops *pauses, old *placed) error {
	maps, err := p.t.Maps()
	if err != nil {
		return err
	}
	v := &view{t: p.t, mem: p.mem, maps: maps}
	pl, err := v.planned()
	if err != nil {
		return err
	}
	a := pl.alloc
	if err := p.forbidden(pl); err != nil {
		return err
	}
	p.musl = a.musl
	lo, hi := span(maps, &a.m)
	p.allocator = region{lo, hi - lo}
	p.inside = p.allocator
	if a.exe { // the rest of the program is no allocator
		p.inside = a.ends
	}
	if p.o.Exact && p.o.FromStart && len(pl.notes) == 0 && p.inside.size > 0 {
		p.complete, p.before = true, beforeIt(v, maps)
	}
	if err := p.others(v, pl); err != nil {
		return err
	}
	defer func() {
		for _, f := range v.close {
			_ = f.Close()
		}
	}()
	if err := p.pools(v); err != nil {
		return err
	}
	p.code = newCode(p.t)
	p.code.static = a.alone
	modules, err := p.code.modules(ctx, p.mem, maps)
	if err != nil {
		return err
	}
	if err := p.planSites(v, pl); err != nil {
		return err
	}
	if err := p.budget(rowBytes(modules)); err != nil {
		return err
	}
	p.clock.ready()
	if err := stops.patiently(ctx, func(h held) error { return p.mapAll(h, old) }); err != nil {
		return p.abandon(ctx, err)
	}
	if err := p.fillAndPatch(ctx, stops, pl, modules); err != nil {
		return p.abandon(ctx, err)
	}
	p.describe(pl)
	return nil
}

// others adds to the plan what Options.Mappings asks for.
func (p *Probe) others(v *view, pl *plan) error {
	if !p.o.Mappings {
		return nil
	}
	more, err := v.plannedOthers()
	if err != nil {
		return err
	}
	if more == nil || pl.alloc.exe {
		pl.notes = append(pl.notes, "mappings and threads are not recorded: the allocator, which maps too, is part of the program")
		return nil
	}
	lo, hi := span(v.maps, &more.alloc.m)
	p.libc = region{lo, hi - lo}
	pl.sites = append(pl.sites, more.sites...)
	pl.notes = append(pl.notes, more.notes...)
	for i := range v.maps {
		if v.maps[i].Path == "[heap]" {
			p.mapped.brk = uint64(v.maps[i].End)
		}
	}
	return nil
}

// planned finds the allocator and decides about its functions, by what is known
// of its file when there is such.
func (v *view) planned() (*plan, error) {
	for _, fresh := range []bool{false, true} {
		a, file, err := v.findAllocator(fresh)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		if pl, ok := v.planOf(a); ok {
			return pl, nil
		}
		if a.file == nil {
			continue // not as it was known
		}
		pl, err := v.plan(a)
		if err == nil {
			v.keep(pl)
		}
		return pl, err
	}
	return nil, fmt.Errorf("the allocator's file changes while it is read: %w", proc.ErrUnsupported)
}

// abandon removes what was placed so far, and says why.
func (p *Probe) abandon(ctx context.Context, why error) error {
	if p.head == nil || p.t.Check() != nil {
		return why
	}
	// ctx may be what ended; the target must not wait for it.
	return errors.Join(why, p.remove(context.WithoutCancel(ctx), &pauses{t: p.t, max: p.o.MaxPause}))
}

// forbidden looks for what makes our code impossible in this target.
func (p *Probe) forbidden(pl *plan) error {
	status, err := os.ReadFile(p.t.Path("status"))
	if err != nil {
		return err
	}
	// x86_Thread_features of proc(5), Linux 6.6: a shadow stack compares each
	// return with its call, and a moved call pushes by hand.
	_, features, _ := strings.Cut(string(status), "\nx86_Thread_features:")
	features, _, _ = strings.Cut(features, "\n")
	if strings.Contains(features, "shstk") {
		for i := range pl.sites {
			if d := pl.sites[i].moved; d != nil && d.calls {
				return fmt.Errorf("%s begins with a call, and the process has a shadow stack: %w", pl.sites[i].def().name, proc.ErrUnsupported)
			}
		}
	}
	if n, err := p.mapCount(); err == nil && n.now+16 > n.max {
		return fmt.Errorf("the process has %d of %d mappings (vm.max_map_count): %w", n.now, n.max, ErrNoRoom)
	}
	return nil
}

type mapCount struct{ now, max uint64 }

func (p *Probe) mapCount() (mapCount, error) {
	limit, ok := p.t.Root.Sysctl("vm/max_map_count")
	if !ok {
		return mapCount{}, proc.ErrUnsupported
	}
	maps, err := p.t.Maps()
	return mapCount{uint64(len(maps)), limit}, err
}

// budget decides how much memory the probe may take, and lays the tables out.
func (p *Probe) budget(rows uint64) error {
	room := p.o.MaxMemory
	head, err := p.t.Headroom()
	if err != nil {
		return err
	}
	least := head.Least()
	if room == 0 {
		room = min(defaultMax, least.Left/20)
		if p.o.Exact {
			room = min(defaultExact, least.Left/4)
		}
	}
	if room > least.Left/2 {
		return fmt.Errorf("%w: it may take %d MiB, and %s leaves %d MiB", ErrNoRoom, room>>20, least, least.Left>>20)
	}
	fixed := uint64(textRegion) + nearSize(filterLarge)
	if room < fixed+minData {
		return fmt.Errorf("%w: it needs %d KiB, 5 %% of what %s leaves are %d KiB", ErrNoRoom, (fixed+minData)>>10, least, room>>10)
	}
	p.data, err = layOut(room-fixed, rows, p.fdCount(room-fixed))
	p.info.Memory = fixed + p.data.size
	return err
}

// fillAndPatch writes the probe's memory while the target runs, then stops it
// once more to redirect the functions.
func (p *Probe) fillAndPatch(ctx context.Context, stops *pauses, pl *plan, modules []unwind.Module) error {
	text, patches, err := p.textFor(pl)
	if err != nil {
		return err
	}
	if err := p.putBooks(modules); err != nil {
		return err
	}
	if err := p.putState(); err != nil {
		return err
	}
	if p.used {
		if err := p.sameText(text); err != nil {
			return err
		}
	}
	late := p.putText(p.mem, text) != nil // the kernel wants forced writes from a tracer only
	p.head.patches = patches
	p.ownPages()
	if err := stops.patiently(ctx, func(h held) error { return p.redirect(h, text, late) }); err != nil {
		return err
	}
	return p.verify()
}

// describe fills in what Placement tells.
func (p *Probe) describe(pl *plan) {
	p.info.Allocator, p.info.Module, p.info.Notes = pl.alloc.title(), pl.alloc.m.Path, pl.notes
	for i := range p.o.Hooks {
		p.info.Functions = append(p.info.Functions, p.o.Hooks[i].Name)
	}
	for i := range pl.sites {
		if pl.sites[i].moved != nil {
			p.info.Functions = append(p.info.Functions, pl.sites[i].def().name)
		}
	}
	p.info.Notes = append(p.info.Notes, p.code.notes()...)
	if !steady(p.t.Root) {
		p.info.Notes = append(p.info.Notes, "the processor's time stamp counter is not constant: ages are inexact")
	}
}

// Placement says what was done.
func (p *Probe) Placement() Placement {
	p.mu.Lock()
	defer p.mu.Unlock()
	info := p.info
	info.Pauses = append([]time.Duration(nil), info.Pauses...)
	return info
}

// Ranges are the probe's own mappings in the target, to be left out of a heap
// scan's roots.
func (p *Probe) Ranges() []leak.Range {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []leak.Range
	for _, r := range p.regions() {
		out = append(out, r.leak())
	}
	return out
}
