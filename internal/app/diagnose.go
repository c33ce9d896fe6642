package app

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/source/fdtrace"
	"stanch/internal/source/probe"
	"stanch/internal/source/sampler"
)

// diagnoseFlags are the command line of diagnose.
type diagnoseFlags struct {
	look        lookFlags
	watch       time.Duration
	until       int
	noProbe     bool
	maxOverhead float64
	sampleBytes bytesFlag
	noFDs       bool
}

// The parts of a diagnosis that take their share of --for.
const (
	// lookApart is how far two looks must lie apart to prove a loss.
	lookApart = time.Second
	// firmAt is when a diagnosis first looks whether its verdict is firm.
	firmAt = 10 * time.Second
	// firmCount is how many lost blocks of each size, recorded with their
	// stack, make a verdict firm.
	firmCount = 5
)

func (a *app) diagnose() *cobra.Command {
	var f diagnoseFlags
	cmd := &cobra.Command{
		Use:   "diagnose TARGET",
		Short: "Say what it is losing, where, how fast (short pauses, and a probe inside while it watches)",
		Long: `diagnose proves what a live process loses and names the line that loses it: a snapshot and a heap
scan, a probe aimed at the sizes being lost, a watch, two more snapshots; then the probe is removed.
Each snapshot stops the process for about 12 ms per GB. Ctrl-C ends the watch with what there is.`,
		Args: one("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.onTarget(args[0], &f.look, func(t *proc.Target) (*leak.Report, error) {
				return a.runDiagnose(cmd.Context(), t, &f)
			})
		},
	}
	f.look.flags(cmd)
	fl := cmd.Flags()
	fl.DurationVar(&f.watch, "for", 30*time.Second, "how long to watch; ends earlier once the verdict is firm")
	fl.IntVar(&f.until, "until", 0, "watch until this many lost blocks of each lost size are recorded with their line, hours if need be")
	fl.BoolVar(&f.noProbe, "no-probe", false, "place nothing in the target: snapshots and /proc only, no lines")
	fl.Float64Var(&f.maxOverhead, "max-overhead", 3, "the most CPU the probe may use, in percent of the target's own")
	fl.BoolVar(&f.noFDs, "no-fds", false, "do not list descriptors and sockets, nor trace in the kernel who opens them")
	f.sampleBytes = 512 << 10
	fl.Var(&f.sampleBytes, "sample-bytes", "mean distance of samples in allocated bytes; K, M, G allowed")
	return cmd
}

func (f *diagnoseFlags) check() error {
	switch {
	case f.watch < 2*time.Second:
		return usagef("--for is %v; two snapshots at least a second apart need 2s or more", f.watch)
	case f.until < 0:
		return usagef("--until takes a number of blocks, not %d", f.until)
	case f.until > 0 && f.noProbe:
		return usagef("--until counts what the probe records; it cannot go with --no-probe")
	case f.maxOverhead <= 0 || f.maxOverhead > 100:
		return usagef("--max-overhead is a percentage above 0 and up to 100, not %g", f.maxOverhead)
	case f.sampleBytes < 4<<10:
		return usagef("--sample-bytes is %d; below 4K use a larger number", f.sampleBytes)
	}
	return f.look.check()
}

// longest is how long it may watch.
func (f *diagnoseFlags) longest() time.Duration {
	if f.until > 0 {
		return math.MaxInt64 // until so many are recorded
	}
	return f.watch
}

// runDiagnose is the one loop of stanch: scan, aim, watch, scan.
func (a *app) runDiagnose(ctx context.Context, t *proc.Target, f *diagnoseFlags) (*leak.Report, error) {
	o, err := a.observe(ctx, t, &f.look)
	if err != nil {
		return nil, err
	}
	defer o.progress.done()
	samples := background(ctx, func(ctx context.Context) error {
		return (&sampler.Sampler{Clock: o.clock}).Watch(ctx, t, o.sink)
	})
	defer func() { _ = samples.end() }() // a second end; the first tells the error
	var fds *descriptorWatch
	if !f.noFDs {
		o.progress.say("listing descriptors and sockets of %s", o.name())
		fds = o.watchDescriptors(ctx, fdtrace.OneProcess, f.longest())
		fds.hold(ctx, o, f.maxOverhead/100)
		defer func() { _ = fds.end() }() // likewise
	}

	o.progress.say("snapshot 1 of %s, then the heap scan", o.name())
	if err := o.scan(ctx, nil); err != nil {
		return nil, err
	}
	d := &diagnosis{observation: o, flags: f, blind: !o.walked()}
	if !f.noProbe {
		err = d.place(ctx)
	}
	if err == nil {
		err = d.watch(ctx)
	}
	// The probe goes before anything else is done, also after an error or a
	// signal: removal must not hang on a context that has ended.
	d.remove(context.WithoutCancel(ctx))
	if serr := samples.end(); serr != nil {
		o.note("memory and descriptors were not sampled to the end: %v", serr)
	}
	if ferr := fds.end(); ferr != nil {
		o.note("descriptors were not followed to the end: %v", ferr)
	}
	if fds != nil && fds.costly != "" {
		o.note("%s", fds.costly)
	}
	if err := o.ended(err); err != nil {
		return nil, err
	}
	o.progress.say("naming the lines")
	c := f.look.config()
	c.ImportsSelect = importsSelect(t)
	return o.conclude(c), nil
}

// diagnosis is one run of diagnose after its first look.
type diagnosis struct {
	*observation
	flags  *diagnoseFlags
	probe  *probe.Probe
	probed *task
	began  time.Duration // when the watch began
	blind  bool          // the first look could not walk the heap: further ones would not either
}

// place puts the probe in, aimed at what the first look proved lost. A target
// that cannot take it is still watched from outside, and the report says so.
func (d *diagnosis) place(ctx context.Context) error {
	d.progress.say("placing the probe")
	var p *probe.Probe
	err := patiently(ctx, func() (err error) {
		p, err = probe.Place(ctx, d.target, probe.Options{
			Atlas: d.atlas, Clock: d.clock,
			SampleBytes: uint64(d.flags.sampleBytes), Aim: d.aim(),
			MaxOverhead: d.flags.maxOverhead / 100, MaxPause: d.budget.left(),
			Inputs: true, Source: sourceOf(d.target),
		})
		return err
	})
	switch {
	case errors.Is(err, proc.ErrGone):
		return err
	case err != nil:
		d.note("no probe: %v; lines are not named", err)
		return nil
	}
	d.probe = p
	d.pausesOf(0)
	for _, n := range p.Placement().Notes {
		d.note("%s", n)
	}
	d.probed = background(ctx, func(ctx context.Context) error { return p.Watch(ctx, d.target, d.sink) })
	return nil
}

// pausesOf charges the stops of the probe's placement or removal, from the
// given one on.
func (d *diagnosis) pausesOf(from int) {
	for _, p := range d.probe.Placement().Pauses[from:] {
		d.sink.Gauge(leak.Gauge{At: d.clock.Now(), Proc: d.target.ID, Name: leak.GaugePause, Value: p.Seconds()})
	}
}

// aim makes the sizes lost so far the probe's aim: a lost block of u usable
// bytes was requested with u-31 to u bytes, 16 less when an alignment was asked
// for (glibc's _int_memalign), and up to a page less when it is a mapping of
// its own.
func (d *diagnosis) aim() leak.Aim {
	var aim leak.Aim
	for _, usable := range d.view().LostSizes() {
		slack := uint64(31 + 16)
		if usable >= 64<<10 {
			slack += 4096
		}
		aim.Sizes = append(aim.Sizes, leak.SizeRange{Min: usable - min(usable, slack), Max: usable})
	}
	return aim
}

// watch waits for --for or --until, with looks in between when they can end it
// early and the pause budget has room for them.
func (d *diagnosis) watch(ctx context.Context) error {
	d.began = d.clock.Now()
	if d.flags.until > 0 || d.flags.watch > 2*firmAt {
		for interval := firmAt; d.flags.until > 0 || d.elapsed()+interval+2*lookApart < d.flags.watch; {
			if !d.wait(ctx, interval) {
				break
			}
			if d.blind {
				continue
			}
			if !d.affordable(4) {
				d.note("no look in between: the pauses would exceed --max-pause %v", d.budget.max)
				break
			}
			if err := d.lookTwice(ctx); err != nil {
				return err
			}
			if d.firm() {
				return nil
			}
			interval *= 2
		}
	}
	if rest := d.flags.watch - d.elapsed() - lookApart; rest > 0 && d.flags.until == 0 {
		d.wait(ctx, rest)
	}
	if d.blind {
		return d.readBooks()
	}
	// Also after Ctrl-C: the two last looks are what proves anything.
	err := d.lookTwice(context.WithoutCancel(ctx))
	if err != nil && d.target.Check() == nil {
		d.note("a snapshot was given up: %v; the report holds what was seen before", err)
		return nil
	}
	return err
}

// readBooks takes what the probe recorded from the running process: there is
// no heap scan that it would have to agree with.
func (d *diagnosis) readBooks() error {
	if d.probe == nil {
		return nil
	}
	mem, err := d.target.Mem()
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }() // it was only read
	return d.probe.Books(mem, d.sink)
}

func (d *diagnosis) elapsed() time.Duration { return d.clock.Now() - d.began }

// wait lets the target run for a while; false when the watch was ended by the
// user or by the target.
func (d *diagnosis) wait(ctx context.Context, long time.Duration) bool {
	d.progress.say("watching %s", d.name())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	end := time.NewTimer(long)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return true
		case <-tick.C:
			if d.present() != nil {
				return false
			}
			if d.flags.until > 0 {
				d.progress.left("%v so far, until %d blocks of each lost size are recorded; Ctrl-C reports what there is", d.elapsed().Round(time.Second), d.flags.until)
			} else {
				d.progress.left("%v left; Ctrl-C reports what there is", (d.flags.watch - d.elapsed()).Round(time.Second))
			}
		}
	}
}

// lookTwice takes two looks that are far enough apart, so that what was
// recorded during the watch is proved lost too.
func (d *diagnosis) lookTwice(ctx context.Context) error {
	d.progress.say("snapshot %d of %s, then the heap scan", d.looks+1, d.name())
	if err := d.scan(ctx, d.probe); err != nil {
		return err
	}
	if !d.affordable(1) {
		d.note("no further snapshot: the pauses would exceed --max-pause %v; blocks lost during the watch were seen unreachable once only", d.budget.max)
		return nil
	}
	if d.probe != nil {
		// What came to be lost since the first look is aimed at from now on.
		if err := d.probe.SetAim(d.aim()); err != nil {
			return err
		}
	}
	if err := d.apart(ctx); err != nil {
		return err
	}
	d.progress.say("snapshot %d of %s, then the heap scan", d.looks+1, d.name())
	return d.scan(ctx, d.probe)
}

// firm reports whether every lost size has enough blocks recorded with their
// stack for the verdict not to change.
func (d *diagnosis) firm() bool {
	want := uint64(firmCount)
	if d.flags.until > 0 {
		want = uint64(d.flags.until)
	}
	lost := 0
	for _, f := range d.findings(d.flags.look.config()) {
		if f.Rule != "heap.unreachable" {
			continue
		}
		lost++
		if f.SiteCertainty != leak.CertaintyProved || f.Count < want {
			return false
		}
	}
	return lost > 0
}

// remove takes the probe out again.
func (d *diagnosis) remove(ctx context.Context) {
	if d.probe == nil {
		return
	}
	d.progress.say("removing the probe")
	if err := d.probed.end(); err != nil {
		d.note("the probe was not read to the end: %v", err)
	}
	placed := len(d.probe.Placement().Pauses)
	err := patiently(ctx, func() error { return d.probe.Remove(ctx) })
	d.pausesOf(placed)
	gone := errors.Is(err, proc.ErrGone)
	removed := err == nil || gone
	d.removed = &removed
	if !removed {
		// What was seen is worth having all the same.
		d.note("the probe is off, but not removed: %v; run: stanch detach %d", err, d.target.ID.PID)
	}
}
