package app

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/detect"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/record"
	"stanch/internal/source/heap"
)

// lookFlags are what scan and diagnose share.
type lookFlags struct {
	out          output
	maxPause     time.Duration
	showContents bool
	dryRun       bool
	quiet        bool
	all          bool
	minBytes     bytesFlag
	wrappers     []string
	noSnapshot   bool // nothing is copied: what that would cost is no reason to refuse
}

func (f *lookFlags) flags(cmd *cobra.Command) {
	f.out.flags(cmd)
	fl := cmd.Flags()
	fl.DurationVar(&f.maxPause, "max-pause", 250*time.Millisecond, "the longest the target may stand still, all stops together; refused when predicted longer")
	fl.BoolVar(&f.showContents, "show-contents", false, "show the first bytes of lost blocks (they may hold secrets)")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the predicted pause and memory, the rights needed, and whether it would refuse; touch nothing")
	fl.BoolVar(&f.all, "all", false, "when TARGET means several processes, take every one, one after the other")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	f.detectFlags(cmd)
}

// detectFlags are those that also make sense for a saved recording.
func (f *lookFlags) detectFlags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.Var(&f.minBytes, "min-bytes", "leave out findings below this many bytes; K, M, G allowed")
	fl.StringArrayVar(&f.wrappers, "wrapper", nil, "a function that only wraps the allocator, skipped when naming the line (xmalloc and its like are known)")
}

func (f *lookFlags) check() error {
	if f.maxPause <= 0 {
		return usagef("--max-pause must be more than zero, not %v", f.maxPause)
	}
	return f.out.check()
}

func (f *lookFlags) config() detect.Config {
	return detect.Config{MinBytes: uint64(f.minBytes), Wrappers: f.wrappers, ShowContents: f.showContents}
}

func (a *app) scan() *cobra.Command {
	var f lookFlags
	var save string
	cmd := &cobra.Command{
		Use:   "scan TARGET|CORE",
		Short: "Prove what is unreachable now, and who holds the rest (two short pauses)",
		Long: `scan takes two snapshots of a live process, a second apart, and proves which heap blocks nothing
points to any more; each snapshot stops the process for about 12 ms per GB. Given a core file it
says what was unreachable in it. Nothing is placed in the process, so no line is named.`,
		Args: one("TARGET or core file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if isFile(args[0]) {
				r, err := a.runScanCore(cmd.Context(), args[0], &f, save)
				return a.finish(r, err, &f.out)
			}
			return a.onTarget(args[0], &f, func(t *proc.Target) (*leak.Report, error) {
				return a.runScan(cmd.Context(), t, &f, save)
			})
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&save, "save", "", "also keep the heap graph, maps and build ids, without contents, in this file for 'stanch report'")
	return cmd
}

func (a *app) runScan(ctx context.Context, t *proc.Target, f *lookFlags, save string) (*leak.Report, error) {
	rec, err := startRecording(save, f.out.force, a.header(t), 0)
	if err != nil {
		return nil, err
	}
	o, err := a.observe(ctx, t, f, rec.sinks()...)
	if err != nil {
		return nil, errors.Join(err, rec.close(nil))
	}
	o.file = rec
	if err := o.ended(o.scanTwice(ctx)); err != nil {
		o.progress.done()
		return nil, errors.Join(err, rec.close(nil))
	}
	o.progress.done()
	r := o.conclude(f.config())
	return r, rec.close(o.progress)
}

// scanTwice takes two looks, lookApart from one another.
func (o *observation) scanTwice(ctx context.Context) error {
	if err := o.gauges(ctx); err != nil {
		return err
	}
	o.progress.say("snapshot 1 of %s, then the heap scan", o.name())
	if err := o.scan(ctx, nil); err != nil {
		return err
	}
	if !o.walked() {
		return nil // a second look would not see more
	}
	if !o.affordable(1) {
		o.note("one snapshot only: two would exceed --max-pause %v, and it takes two to prove a leak", o.budget.max)
		return nil
	}
	if err := o.apart(ctx); err != nil {
		return nil // interrupted: what the first look saw is reported as such
	}
	o.progress.say("snapshot 2 of %s, then the heap scan", o.name())
	return o.scan(ctx, nil)
}

// header says in a recording whom it is of.
func (a *app) header(t *proc.Target) record.Header {
	s := subjectOf(t, proc.NewClock())
	return record.Header{Comm: s.comm, Exe: s.exe, Proc: t.ID, Start: s.began, UptimeS: s.uptime.Seconds(), Version: a.version}
}

// isFile reports whether a TARGET means a core file: it names a regular file
// and is no number.
func isFile(word string) bool {
	if _, err := strconv.Atoi(word); err == nil {
		return false
	}
	st, err := os.Stat(word)
	return err == nil && !st.IsDir()
}

// runScanCore looks at a core file. One look is all there is.
func (a *app) runScanCore(ctx context.Context, name string, f *lookFlags, save string) (*leak.Report, error) {
	if f.dryRun {
		return nil, usagef("--dry-run is about a process; %s is a file", name)
	}
	core, err := proc.OpenCore(name)
	if err != nil {
		return nil, codeError{ExitUsage, err}
	}
	defer func() { _ = core.Close() }() // it was only read
	rec, err := startRecording(save, f.out.force, record.Header{Comm: core.Comm, Proc: leak.ProcID{PID: core.PID}, Version: a.version}, 0)
	if err != nil {
		return nil, err
	}
	o := newObservation(newProgress(a.std.Err, f.quiet), f, rec.sinks()...)
	o.atlas = leak.NewAtlas(o.sink, core.BuildID)
	o.core, o.file = core, rec
	o.subject = subject{comm: core.Comm, began: o.clock.Wall}
	o.progress.say("heap scan of %s", name)
	err = heap.ScanCore(ctx, core, o.heapOptions(), o.sink)
	o.progress.done()
	if err != nil {
		return nil, errors.Join(err, rec.close(nil))
	}
	r := o.conclude(f.config())
	return r, rec.close(o.progress)
}
