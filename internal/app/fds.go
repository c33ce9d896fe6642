package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/detect"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/source/descriptors"
	"stanch/internal/source/fdtrace"
	"stanch/internal/source/sampler"
)

// fdsFlags are the command line of fds.
type fdsFlags struct {
	look   lookFlags
	watch  time.Duration
	each   bool
	peer   string
	module string
	tree   bool
	cgroup bool
}

func (a *app) fds() *cobra.Command {
	var f fdsFlags
	cmd := &cobra.Command{
		Use:   "fds TARGET",
		Short: "Descriptors and sockets: what is open, in which state, which limit comes when (reads only, unless --for)",
		Long: `fds lists the descriptors of a process in groups of what is alike, its sockets with state, peer, queues
and how long they are silent, and what can run out: descriptors, ports, backlogs, tasks, memory. It
only reads /proc and asks the kernel for its socket tables.

With --for it also watches: each descriptor that is opened meanwhile and stays open gets the stack that
opened it, from tracepoints in the kernel (eBPF; root, or CAP_BPF and CAP_PERFMON). Those already open
get the opener that was seen for the same kind since, as likely.`,
		Args: one("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			t, err := a.resolve(args[0])
			if err != nil {
				return err
			}
			r, err := a.runFDs(cmd.Context(), t, &f)
			return a.finish(r, err, &f.look.out)
		},
	}
	f.look.out.flags(cmd)
	fl := cmd.Flags()
	fl.DurationVar(&f.watch, "for", 0, "watch so long, and name who opens what stays open")
	fl.BoolVar(&f.each, "all", false, "each descriptor on a line of its own")
	fl.StringVar(&f.peer, "peer", "", "only sockets with this peer: HOST:PORT, HOST or :PORT")
	fl.StringVar(&f.module, "module", "", "only descriptors opened by this library, such as libcurl.so (with --for)")
	fl.BoolVar(&f.tree, "children", false, "with --for: watch its descendants too")
	fl.BoolVar(&f.cgroup, "cgroup", false, "with --for: watch all processes of its cgroup")
	fl.StringArrayVar(&f.look.wrappers, "wrapper", nil, "a function that only wraps open or socket, skipped when naming the line")
	fl.BoolVarP(&f.look.quiet, "quiet", "q", false, "no progress on standard error")
	return cmd
}

func (f *fdsFlags) check() error {
	switch {
	case f.watch < 0:
		return usagef("--for takes a time such as 60s, not %v", f.watch)
	case f.watch == 0 && (f.tree || f.cgroup || f.module != ""):
		return usagef("--children, --cgroup and --module need to see who opens: add --for 60s")
	case f.tree && f.cgroup:
		return usagef("--children and --cgroup exclude one another")
	}
	return f.look.out.check()
}

// runFDs lists the descriptors of a process, and watches it when asked to.
func (a *app) runFDs(ctx context.Context, t *proc.Target, f *fdsFlags) (*leak.Report, error) {
	o := newObservation(newProgress(a.std.Err, f.look.quiet), &f.look)
	defer o.progress.done()
	o.target = t
	o.atlas = leak.NewAtlas(o.sink, t.BuildID)
	o.subject = subjectOf(t, o.clock)
	o.each = f.each
	program, err := t.ExecID()
	if err != nil {
		return nil, err
	}
	o.program = program
	if f.watch == 0 {
		if err := (&sampler.Sampler{Clock: o.clock, CountOnly: true}).Scan(ctx, t, o.sink); err != nil {
			return nil, err
		}
		if err := (&descriptors.Lister{Clock: o.clock}).Scan(ctx, t, o.sink); err != nil {
			return nil, err
		}
	} else if err := o.ended(o.watchFDs(ctx, f)); err != nil {
		return nil, err
	}
	if f.tree || f.cgroup {
		o.listFamily(context.WithoutCancel(ctx))
	}
	o.progress.say("naming the lines")
	return o.conclude(f.config(t)), nil
}

// scope is what --for watches.
func (f *fdsFlags) scope() fdtrace.Scope {
	switch {
	case f.tree:
		return fdtrace.Tree
	case f.cgroup:
		return fdtrace.Cgroup
	}
	return fdtrace.OneProcess
}

func (f *fdsFlags) config(t *proc.Target) detect.Config {
	c := f.look.config()
	c.Peer, c.Module = f.peer, f.module
	c.ImportsSelect = importsSelect(t)
	return c
}

// importsSelect reports whether a program uses select(2), which cannot take
// descriptors above 1,023.
func importsSelect(t *proc.Target) bool {
	return t.Imports("select", "__select", "pselect", "__fdelt_chk")
}

// watchFDs watches for --for, or until Ctrl-C.
func (o *observation) watchFDs(ctx context.Context, f *fdsFlags) error {
	w := o.watchDescriptors(ctx, f.scope(), f.watch)
	samples := background(ctx, func(ctx context.Context) error {
		return (&sampler.Sampler{Clock: o.clock}).Watch(ctx, o.target, o.sink)
	})
	o.progress.say("watching %s", o.name())
	err := o.pass(ctx, f.watch)
	return errors.Join(err, samples.end(), w.end())
}

// listFamily lists what the other processes have open that were watched and
// live.
func (o *observation) listFamily(ctx context.Context) {
	o.family = map[leak.ProcID]subject{o.target.ID: o.subject}
	for _, p := range o.view().Procs {
		if p.ID == o.target.ID {
			continue
		}
		t, err := o.target.Root.Open(p.ID.PID)
		if err != nil || t.ID != p.ID {
			continue // it has ended
		}
		if err := (&descriptors.Lister{Clock: o.clock}).Scan(ctx, t, o.sink); err == nil {
			o.family[p.ID] = subjectOf(t, o.clock)
		} else if !errors.Is(err, proc.ErrGone) {
			o.note("pid %d: %v", p.ID.PID, err)
		}
	}
}

// pass lets the target run for a while, or until Ctrl-C or its end.
func (o *observation) pass(ctx context.Context, long time.Duration) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	began := o.clock.Now()
	for left := long; left > 0; left = long - (o.clock.Now() - began) {
		o.progress.left("%v left; Ctrl-C reports what there is", left.Round(time.Second))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(left):
			return nil
		case <-tick.C:
			if err := o.present(); err != nil {
				return err
			}
		}
	}
	return nil
}

// sourceOf says what a descriptor of t is.
func sourceOf(t *proc.Target) func(int) string {
	return func(num int) string { return descriptors.Source(t, num) }
}

// descriptorWatch lists what a target has open while it is watched, and sees
// who opens and closes it, where the kernel lets stanch.
type descriptorWatch struct {
	lists  *task
	tracer *fdtrace.Tracer // nil when nobody sees who opens
	traced *task
	guard  *task  // ends the tracing when it costs too much; nil without a bound
	costly string // that it did
}

// watchDescriptors begins it. Without the right to trace, the report says so
// and what is left.
func (o *observation) watchDescriptors(ctx context.Context, scope fdtrace.Scope, long time.Duration) *descriptorWatch {
	w := &descriptorWatch{}
	if tracer, err := o.trace(scope, long); err != nil {
		o.note("who opens descriptors is not seen: %v", err)
	} else {
		w.tracer = tracer
		w.traced = background(ctx, func(ctx context.Context) error { return tracer.Watch(ctx, o.target, o.sink) })
	}
	w.lists = background(ctx, func(ctx context.Context) error {
		return (&descriptors.Lister{Clock: o.clock}).Watch(ctx, o.target, o.sink)
	})
	return w
}

// rawBelow is how long a watch must be for tracepoints of single calls.
const rawBelow = 5 * time.Minute

// trace makes a tracer that sees every call from now on, for so long.
func (o *observation) trace(scope fdtrace.Scope, long time.Duration) (*fdtrace.Tracer, error) {
	// Tracepoints of single calls cost other processes less while they are
	// there, and take seconds to be left.
	raw := long < rawBelow
	tracer, err := fdtrace.Load(fdtrace.Options{Clock: o.clock, Atlas: o.atlas, Scope: scope, Raw: raw})
	if err != nil {
		return nil, err
	}
	if err := tracer.Start(o.target); err != nil {
		return nil, errors.Join(err, tracer.Close())
	}
	return tracer, nil
}

// eventCost is what a traced call with its stack costs the thread that makes it
// (docs/BENCHMARKS.md: an open and a close take 2 to 4 microseconds more).
const eventCost = 2 * time.Microsecond

// hold ends the tracing once it takes more than a share of the target's CPU, as
// a second's calls tell.
func (w *descriptorWatch) hold(ctx context.Context, o *observation, most float64) {
	if w.tracer == nil {
		return
	}
	w.guard = background(ctx, func(ctx context.Context) error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		events, cpu := w.tracer.Stats().Events, time.Duration(0)
		if st, err := o.target.Stat(); err == nil {
			cpu = st.CPU()
		}
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-w.traced.done:
				return nil
			case <-tick.C:
			}
			st, err := o.target.Stat()
			if err != nil {
				return nil // it has ended, and the watch with it
			}
			nowEvents, nowCPU := w.tracer.Stats().Events, st.CPU()
			cost, used := time.Duration(nowEvents-events)*eventCost, nowCPU-cpu
			if float64(cost) > most*float64(used) && cost > leastCost {
				w.costly = fmt.Sprintf("who opens descriptors was seen for a part of the watch only: %s calls in a second cost %.0f %% of the CPU of %s, more than --max-overhead",
					leak.FormatCount(nowEvents-events), 100*cost.Seconds()/max(used, cost).Seconds(), o.name())
				// Closed, or the kernel would go on noting what nobody reads.
				return errors.Join(w.traced.end(), w.tracer.Close())
			}
			events, cpu = nowEvents, nowCPU
		}
	})
}

// leastCost is what a second of tracing may always cost: the clock of a
// process's CPU time is coarse.
const leastCost = 5 * time.Millisecond

// end ends it with a last listing. It may be called twice, and of no watch.
func (w *descriptorWatch) end() error {
	if w == nil {
		return nil
	}
	var err error
	if w.tracer != nil {
		// The last listing comes after the last call that was seen, so that each
		// of these is known by what it opened.
		err = w.traced.end()
	}
	err = errors.Join(err, w.lists.end())
	if w.tracer == nil {
		return err
	}
	if w.guard != nil {
		err = errors.Join(err, w.guard.end())
	}
	return errors.Join(err, w.tracer.Close())
}
