package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/detect"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/render"
	"stanch/internal/source/probe"
	"stanch/internal/source/sampler"
	"stanch/internal/symbol"
)

// recordFlags are the command line of record.
type recordFlags struct {
	out         output
	show        profileFlags
	mode        string
	sizes       sizesFlag
	watch       time.Duration
	sampleBytes bytesFlag
	maxOverhead float64
	maxPause    time.Duration
	maxFrames   int
	maxSize     bytesFlag
	dryRun      bool
	quiet       bool
	own         hookFlags
	hooks       []probe.Hook
}

// Bounds of the flags: the frames of a stack and the ranges of sizes that a
// probe takes, and the smallest recording that holds anything.
const (
	mostFrames  = 64
	mostSizes   = 32
	leastRecord = 64 << 10
)

func (a *app) record() *cobra.Command {
	var f recordFlags
	cmd := &cobra.Command{
		Use:   "record TARGET",
		Short: "Watch who allocates and who frees, with stacks (a probe inside while it watches)",
		Long: `record places a probe in a live process and watches what is allocated and freed, by call site, until
Ctrl-C or --for; then the probe is removed. It takes no snapshot, so it says what is held, and not
what is lost. What was held before it began is not known.

-o x.json and -o x.pb.gz (pprof) write the table to a file; -o x.rec keeps the recording itself, which
'stanch report x.rec' shows on any machine. To place and to remove the probe the process is stopped
three times, for milliseconds.`,
		Args: one("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags().Changed("mode")); err != nil {
				return err
			}
			t, err := a.resolve(args[0])
			if err != nil {
				return err
			}
			if f.dryRun {
				return a.recordDryRun(t, &f)
			}
			release, err := lock(t)
			if err != nil {
				return err
			}
			defer release()
			return a.runRecord(cmd.Context(), t, &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.mode, "mode", leak.RecordSample, "exact: every block with its stack; sample: blocks by chance, in proportion to their bytes")
	fl.Var(&f.sizes, "size", "record every block of this size, or of these: 400, 64K-1M; and no other (repeatable)")
	fl.DurationVar(&f.watch, "for", 0, "how long to watch; without it until Ctrl-C")
	f.sampleBytes = probe.DefaultSampleBytes
	fl.Var(&f.sampleBytes, "sample-bytes", "mean distance of samples in allocated bytes; K, M, G allowed")
	f.show.flags(cmd, "bytes")
	fl.StringArrayVar(&f.show.wrappers, "wrapper", nil, "a function that only wraps the allocator, skipped when naming the line (xmalloc and its like are known)")
	fl.StringVar(&f.out.format, "format", "", "text, json or pprof; without it, what the extension of -o says, else text")
	fl.StringVarP(&f.out.file, "output", "o", "", "write to this file (mode 0600) instead of standard output; x.rec keeps the recording and prints the table")
	fl.BoolVar(&f.out.force, "force", false, "overwrite the output file")
	f.maxSize = 256 << 20
	fl.Var(&f.maxSize, "max-size", "the largest recording (-o x.rec); when it is reached no more is written, and the watch goes on")
	fl.Float64Var(&f.maxOverhead, "max-overhead", 3, "the most CPU the probe may use, in percent of the target's own; above it, it records less and says so; 100 for no limit")
	fl.DurationVar(&f.maxPause, "max-pause", 250*time.Millisecond, "the longest the target may stand still while the probe is placed, and while it is removed")
	fl.IntVar(&f.maxFrames, "max-frames", mostFrames, "the most frames of a stack")
	f.own.flags(cmd)
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the predicted pause and memory, and whether it would refuse; touch nothing")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	return cmd
}

// check finds mistakes before the target is touched.
func (f *recordFlags) check(modeGiven bool) error {
	switch {
	case f.mode != leak.RecordExact && f.mode != leak.RecordSample:
		return usagef("--mode is exact or sample, not %q", f.mode)
	case len(f.sizes) > 0 && modeGiven && f.mode == leak.RecordSample:
		return usagef("--size records every block of these sizes and no other; leave out --mode sample")
	case len(f.sizes) > mostSizes:
		return usagef("--size may be given %d times, not %d", mostSizes, len(f.sizes))
	case f.watch < 0:
		return usagef("--for takes a time such as 30s, not %v", f.watch)
	case f.maxOverhead <= 0 || f.maxOverhead > 100:
		return usagef("--max-overhead is a percentage above 0 and up to 100, not %g", f.maxOverhead)
	case f.sampleBytes < 4<<10:
		return usagef("--sample-bytes is %d; below 4K use --mode exact", f.sampleBytes)
	case f.maxPause <= 0:
		return usagef("--max-pause must be more than zero, not %v", f.maxPause)
	case f.maxFrames < 1 || f.maxFrames > mostFrames:
		return usagef("--max-frames is 1 to %d, not %d", mostFrames, f.maxFrames)
	case f.maxSize < leastRecord:
		return usagef("--max-size is %d; a recording needs 64K or more", f.maxSize)
	}
	var err error
	if f.hooks, err = f.own.hooks(); err != nil {
		return err
	}
	if err := f.show.check(); err != nil {
		return err
	}
	if _, err := f.out.profileFormat(); err != nil {
		return err
	}
	return f.out.checkFile()
}

// plan says what will be recorded.
func (f *recordFlags) plan() leak.Recorded {
	r := leak.Recorded{Mode: f.mode, Through: f.show.through, Sort: f.show.sort}
	switch {
	case len(f.sizes) > 0:
		r.Mode, r.Sizes = leak.RecordSizes, f.sizes
	case f.mode == leak.RecordSample:
		r.SampleBytes = uint64(f.sampleBytes)
	}
	return r
}

// probe says the same to the probe.
func (f *recordFlags) probe(o *observation) probe.Options {
	p := probe.Options{
		Atlas: o.atlas, Clock: o.clock, SampleBytes: uint64(f.sampleBytes), MaxFrames: f.maxFrames,
		MaxOverhead: f.maxOverhead / 100, MaxPause: f.maxPause, Hooks: f.hooks,
	}
	if f.maxOverhead == 100 {
		p.MaxOverhead = -1 // what the probe measures may be more, by its own error
	}
	if len(f.sizes) > 0 {
		p.NoSampling, p.Aim = true, leak.Aim{Sizes: f.sizes}
		return p
	}
	p.Exact = f.mode == leak.RecordExact
	return p
}

// recorder is one run of record.
type recorder struct {
	*observation
	flags *recordFlags
	plan  leak.Recorded
	file  *recording // nil without -o x.rec
	probe *probe.Probe
	stops int // of the target by the probe that are charged already
}

func (a *app) runRecord(ctx context.Context, t *proc.Target, f *recordFlags) error {
	var file *recording
	if f.out.recording() {
		var err error
		if file, err = startRecording(f.out.file, f.out.force, a.header(t), uint64(f.maxSize)); err != nil {
			return err
		}
	}
	o, err := a.observe(ctx, t, &lookFlags{maxPause: f.maxPause, quiet: f.quiet, noSnapshot: true}, file.sinks()...)
	if err != nil {
		file.discard()
		return err
	}
	defer o.progress.done()
	r := &recorder{observation: o, flags: f, plan: f.plan(), file: file}
	if err := r.place(ctx); err != nil {
		file.discard()
		return err
	}
	r.watchAll(ctx)
	p := r.profile(&f.show, r.plan, r.file)
	o.progress.done()
	return errors.Join(a.writeProfile(p, f.show.top, &f.out), file.close(o.progress))
}

// place puts the probe in.
func (r *recorder) place(ctx context.Context) error {
	r.progress.say("placing the probe in %s", r.name())
	err := patiently(ctx, func() (err error) {
		r.probe, err = probe.Place(ctx, r.target, r.flags.probe(r.observation))
		return err
	})
	if err != nil {
		return fmt.Errorf("place the probe in %s: %w", r.name(), err)
	}
	r.pauses()
	for _, n := range r.probe.Placement().Notes {
		r.note("%s", n)
	}
	r.plan.Allocator = r.probe.Placement().Allocator
	r.file.plan(r.plan)
	return nil
}

// watchAll watches until the end and takes the probe out again.
func (r *recorder) watchAll(ctx context.Context) {
	began := r.clock.Now()
	samples := background(ctx, func(ctx context.Context) error {
		return (&sampler.Sampler{Clock: r.clock}).Watch(ctx, r.target, r.sink)
	})
	probed := background(ctx, func(ctx context.Context) error { return r.probe.Watch(ctx, r.target, r.sink) })
	r.wait(ctx, began)
	if err := samples.end(); err != nil {
		r.note("memory and CPU were not sampled to the end: %v", err)
	}
	if err := probed.end(); err != nil {
		r.note("the probe was not read to the end: %v", err)
	}
	// The probe goes also after Ctrl-C: removal must not hang on a context
	// that has ended.
	ctx = context.WithoutCancel(ctx)
	err := r.present()
	if err == nil {
		err = errors.Join(r.probe.Books(nil, r.sink), r.gauges(ctx))
	}
	if err = r.ended(err); err != nil {
		r.note("the last look at the books failed: %v; the numbers are those of a second before", err)
	}
	r.progress.say("removing the probe")
	r.remove(ctx)
	r.plan.Removed = r.removed
}

// pauses charges the stops of the probe since the last time: its placement, a
// change of what it does, its removal.
func (r *recorder) pauses() {
	all := r.probe.Placement().Pauses
	for _, p := range all[r.stops:] {
		r.sink.Gauge(leak.Gauge{At: r.clock.Now(), Proc: r.target.ID, Name: leak.GaugePause, Value: p.Seconds()})
	}
	r.stops = len(all)
}

// remove takes the probe out again.
func (r *recorder) remove(ctx context.Context) {
	err := patiently(ctx, func() error { return r.probe.Remove(ctx) })
	r.pauses()
	removed := err == nil || errors.Is(err, proc.ErrGone)
	r.removed = &removed
	if !removed {
		r.note("the probe is off, but not removed: %v; run: stanch detach %d", err, r.target.ID.PID)
	}
}

// wait lets the target run until --for or ctx ends, or the target does.
func (r *recorder) wait(ctx context.Context, began time.Duration) {
	r.progress.say("recording %s", r.name())
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		elapsed := r.clock.Now() - began
		if r.present() != nil || r.flags.watch > 0 && elapsed >= r.flags.watch {
			return
		}
		rest := "Ctrl-C ends it"
		if r.flags.watch > 0 {
			rest = fmt.Sprintf("%v left; %s", (r.flags.watch - elapsed).Round(time.Second), rest)
		}
		r.progress.left("%v so far; %s", elapsed.Round(time.Second), rest)
	}
}

// profileFlags say how a profile is shown.
type profileFlags struct {
	sort     string
	top      int
	through  []string
	wrappers []string
}

func (f *profileFlags) flags(cmd *cobra.Command, sort string) {
	fl := cmd.Flags()
	fl.StringVar(&f.sort, "sort", sort, "order the sites by bytes held, count of blocks held, age of the oldest, or growth")
	fl.IntVar(&f.top, "top", 0, "show so many sites at most; text shows 20 without it, other formats all")
	fl.StringArrayVar(&f.through, "site", nil, "show only stacks that go through this function (repeatable)")
}

func (f *profileFlags) check() error {
	switch {
	case f.sort != "" && !detect.ProfileOrder(f.sort):
		return usagef("--sort is bytes, count, age or growth, not %q", f.sort)
	case f.top < 0:
		return usagef("--top takes a number of sites, not %d", f.top)
	}
	return nil
}

// profile makes the profile of what was recorded, and gives the recording the
// names of its places.
func (o *observation) profile(f *profileFlags, recorded leak.Recorded, file *recording) *leak.Profile {
	view := o.view()
	names := symbol.New(o.symbols())
	defer func() { _ = names.Close() }() // it only read
	c := detect.Config{Name: o.namer(names, view), Wrappers: f.wrappers, Uptime: o.subject.uptime}
	p := detect.Profile(view, c, recorded, 0)
	for i, proc := range view.Procs {
		t := o.describe(i+1, view, proc, c)
		t.Allocator = recorded.Allocator
		p.Targets = append(p.Targets, t)
	}
	p.Observed = o.observed(view)
	if len(view.Procs) > 0 && view.Procs[0].ProbeAt > 0 {
		p.Observed.DurationS = (view.End - view.Procs[0].ProbeAt).Seconds()
	}
	notes := append([]string(nil), o.notes...)
	if o.given == nil {
		notes = append(notes, names.Notes()...)
	}
	file.end(view, c.Name, recorded, notes)
	p.Notes = append(notes, p.Notes...)
	for _, g := range view.Gaps {
		what := g.What
		if g.Lost > 0 {
			what += fmt.Sprintf(" (%s)", leak.FormatCount(g.Lost))
		}
		p.Gaps = append(p.Gaps, what)
	}
	p.Normalize()
	return p
}

// defaultTop is how many sites the text shows.
const defaultTop = 20

// writeProfile writes a profile to where the flags say. A recording is written
// elsewhere; beside it the profile goes to standard output.
func (a *app) writeProfile(p *leak.Profile, top int, out *output) error {
	format, err := out.profileFormat()
	if err != nil {
		return err
	}
	if top == 0 && format.Name == "text" {
		top = defaultTop
	}
	if top > 0 {
		p.Sites = p.Sites[:min(top, len(p.Sites))]
	}
	if out.file == "" || out.recording() {
		if format.Name == "pprof" && terminal(a.std.Out) {
			return usagef("pprof is not for a terminal; write it to a file with -o x.pb.gz")
		}
		return format.Write(a.std.Out, p)
	}
	f, err := create(out.file, out.force)
	if err != nil {
		return err
	}
	if err := format.Write(f, p); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", out.file, err)
	}
	return f.Close()
}

// recording reports whether the output file is a recording.
func (o *output) recording() bool { return strings.HasSuffix(o.file, ".rec") }

// profileFormat finds the format of a profile.
func (o *output) profileFormat() (render.ProfileFormat, error) {
	var names []string
	for _, f := range render.ProfileFormats {
		if o.format == f.Name || o.format == "" && o.file != "" && strings.HasSuffix(o.file, f.Ext) {
			return f, nil
		}
		names = append(names, f.Name)
	}
	if o.format != "" {
		return render.ProfileFormat{}, usagef("there is no format %q; the formats are %s", o.format, strings.Join(names, ", "))
	}
	return render.ProfileFormats[0], nil
}

// checkFile refuses a file that is there already.
func (o *output) checkFile() error {
	if o.file == "" || o.force {
		return nil
	}
	if _, err := os.Lstat(o.file); err == nil {
		return usagef("%s exists; give another name, or --force to overwrite it", o.file)
	}
	return nil
}

// sizesFlag is --size: sizes and ranges of sizes.
type sizesFlag []leak.SizeRange

func (s *sizesFlag) String() string {
	var all []string
	for _, r := range *s {
		all = append(all, fmt.Sprintf("%d-%d", r.Min, r.Max))
	}
	return strings.Join(all, ",")
}

// Type is what --help shows.
func (s *sizesFlag) Type() string { return "bytes" }

// Set takes one more size or range.
func (s *sizesFlag) Set(word string) error {
	from, to, ranged := strings.Cut(word, "-")
	least, err := parseBytes(from)
	if err != nil {
		return err
	}
	most := least
	if ranged {
		if most, err = parseBytes(to); err != nil {
			return err
		}
	}
	if most < least {
		return fmt.Errorf("%q is no range of sizes such as 64K-1M", word)
	}
	*s = append(*s, leak.SizeRange{Min: least, Max: most})
	return nil
}

// recordDryRun says what recording t would cost and whether it would be
// refused.
func (a *app) recordDryRun(t *proc.Target, f *recordFlags) error {
	plan, err := ptrace.PreflightCalls(t, ptrace.Options{MaxPause: f.maxPause})
	if err != nil {
		return err
	}
	w := a.std.Out
	fmt.Fprintf(w, "%s: nothing was touched\n", nameOf(t))
	fmt.Fprintf(w, "  pause    about %.1f ms for each stop; two to place the probe, one to remove it, within --max-pause %v\n", plan.Pause.Seconds()*1000, f.maxPause)
	if head, err := t.Headroom(); err == nil {
		least := head.Least()
		fmt.Fprintf(w, "  memory   up to %s for the probe's tables; %s left before %s\n", size(min(64<<20, least.Left/20)), size(least.Left), least)
	}
	fmt.Fprintf(w, "  cpu      held below %g %% of the target's own\n", f.maxOverhead)
	return a.tellVerdict(plan)
}
