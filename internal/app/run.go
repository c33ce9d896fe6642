package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/detect"
	"stanch/internal/leak"
	"stanch/internal/ledger"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/source/heap"
	"stanch/internal/source/probe"
	"stanch/internal/source/sampler"
)

// Exit codes of run for what env(1) and its like have them for: stanch itself
// failed, the program cannot be executed, the program was not found.
const (
	exitRunFault    = 125
	exitNotRunnable = 126
	exitNotFound    = 127
)

// runFlags are the command line of run.
type runFlags struct {
	look         lookFlags
	mode         string
	noChildren   bool
	leakExitCode int
	sampleBytes  bytesFlag
	maxOverhead  float64
	reachable    bool
	checkEvery   time.Duration
	saveEvery    time.Duration
	fds          string
	own          hookFlags
	hooks        []probe.Hook
}

func (a *app) run() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Start a program, check it and its children to their exit (the probe is inside from the start)",
		Long: `run starts a program and follows it and all that it starts, through fork and exec, until the last of
them ends. Every allocation is recorded with its stack from before the first initializer on; as each
process exits, its heap is searched once, and what nothing points to is reported with its line.

The program keeps its standard streams, signals and terminal; the report goes to standard error, or
to the file of -o. run needs no privileges for one's own programs.

Exit codes: the program's own when it is not 0 (128 + N after signal N), else 3 when something was
found, else 0; 125 when stanch failed, 126 and 127 when the program could not be started.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("'stanch run' takes a command: stanch run -- ./tests.sh")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.runProgram(cmd.Context(), args, &f)
		},
	}
	cmd.Flags().SetInterspersed(false)
	f.look.out.flags(cmd)
	f.look.detectFlags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.mode, "mode", "exact", "exact records every block, sample about one in so many bytes")
	fl.BoolVar(&f.noChildren, "no-children", false, "check the program itself only, not what it starts")
	fl.IntVar(&f.leakExitCode, "leak-exit-code", ExitFound, "the exit code when something was found and the program's own is 0")
	fl.Float64Var(&f.maxOverhead, "max-overhead", 0, "the most CPU the probe may use, in percent of the program's own; 0 for no limit")
	fl.BoolVar(&f.reachable, "reachable", false, "also list the blocks that were still reachable at the exit")
	fl.DurationVar(&f.checkEvery, "check-every", 0, "also look while it runs, so often, and say what is lost since the look before")
	fl.DurationVar(&f.saveEvery, "save-every", 60*time.Second, "write the report as it stands to the file of -o so often, so that little is lost when stanch is killed; 0 for never")
	fl.BoolVar(&f.look.showContents, "show-contents", false, "show the first bytes of lost blocks (they may hold secrets)")
	f.own.flags(cmd)
	fl.StringVar(&f.fds, "fds", "", "also record who opens and closes descriptors: bpf in the kernel, probe for calls through the C library, ptrace for every call (slow; all end with stanch); auto takes the first that is allowed of bpf and probe")
	fl.Lookup("fds").NoOptDefVal = fdsAuto
	f.sampleBytes = 512 << 10
	fl.Var(&f.sampleBytes, "sample-bytes", "with --mode sample: mean distance of samples in allocated bytes; K, M, G allowed")
	return cmd
}

func (f *runFlags) check() error {
	switch {
	case f.mode != "exact" && f.mode != "sample":
		return usagef("--mode is exact or sample, not %q", f.mode)
	case f.leakExitCode < 0 || f.leakExitCode > 255:
		return usagef("--leak-exit-code is 0 to 255, not %d", f.leakExitCode)
	case f.checkEvery != 0 && f.checkEvery < leastCheck:
		return usagef("--check-every is %v; it takes two snapshots at least a second apart, so 5s is the least", f.checkEvery)
	case f.saveEvery < 0:
		return usagef("--save-every takes a time such as 60s, not %v", f.saveEvery)
	case f.maxOverhead < 0:
		return usagef("--max-overhead is a percentage, or 0 for no limit, not %g", f.maxOverhead)
	case f.sampleBytes < 4<<10:
		return usagef("--sample-bytes is %d; below 4K use --mode exact", f.sampleBytes)
	}
	err := checkFDs(f.fds)
	if err != nil {
		return err
	}
	if f.hooks, err = f.own.hooks(); err != nil {
		return err
	}
	return f.look.out.check()
}

// runProgram starts the program and makes the exit code.
func (a *app) runProgram(ctx context.Context, args []string, f *runFlags) error {
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return cannotStart(args[0], err)
	}
	if os.Geteuid() != 0 && raisesRights(path) {
		return codeError{exitNotRunnable, fmt.Errorf("%s is a set-user-ID program, which the kernel starts without its rights when it is traced; run stanch as root (sudo stanch run ...)", path)}
	}
	// Ctrl-Z is the program's: when that has stopped, stanch stops too.
	signal.Notify(make(chan os.Signal, 1), stops...)
	r := newRun(f)
	if r.openers, err = r.newOpeners(f.fds); err != nil {
		return codeError{exitRunFault, err}
	}
	family, err := ptrace.Launch(ptrace.Command{Path: path, Args: args, Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Watch: r.openers.watch()})
	if err != nil {
		return cannotStart(args[0], err)
	}
	defer family.Close()
	r.family = family
	stop := r.forward()
	defer stop()
	ctx = context.WithoutCancel(ctx) // a signal is the program's to take
	meanwhile := background(ctx, func(ctx context.Context) error { a.meanwhile(ctx, r); return nil })
	status := r.follow(ctx)
	_ = meanwhile.end()
	if err := r.openers.end(); err != nil {
		r.note("descriptors were not followed to the end: %v", err)
	}
	report := r.report()
	if err := a.deliver(report, &f.look.out); err != nil {
		return codeError{exitRunFault, err}
	}
	switch code := f.look.out.code(report); {
	case status.Signaled():
		return codeError{128 + int(status.Signal()), nil}
	case status.ExitStatus() != 0:
		return codeError{status.ExitStatus(), nil}
	case code == ExitFound:
		return codeError{f.leakExitCode, nil}
	}
	return nil
}

// cannotStart is the error of a command that does not exist, or is no program.
func cannotStart(name string, err error) error {
	code := exitNotRunnable
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		code = exitNotFound
	case errors.Is(err, proc.ErrUnsupported), errors.Is(err, proc.ErrDenied), errors.Is(err, proc.ErrGone):
		code = exitRunFault
	}
	var named *exec.Error
	if errors.As(err, &named) {
		err = named.Err
	}
	return codeError{code, fmt.Errorf("cannot start %s: %w", name, err)}
}

// raisesRights reports whether a file is set-user-ID or set-group-ID.
func raisesRights(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0
}

// deliver writes the report of a run: standard output is the program's.
func (a *app) deliver(r *leak.Report, out *output) error {
	r.Normalize()
	if err := out.write(a.std.Err, r); err != nil {
		return err
	}
	if filepath.Ext(out.file) == ".json" {
		fmt.Fprintf(a.std.Err, "stanch: send %s, and on any machine: stanch report %s\n", out.file, filepath.Base(out.file))
	}
	return nil
}

// run is one program under observation, with all that it starts.
type run struct {
	family *ptrace.Family
	flags  *runFlags
	clock  *proc.Clock
	atlas  *leak.Atlas // its view is of no process; those of the processes stand beside it
	lock   *sync.Mutex // of books
	books  *ledger.Ledger
	sink   leak.Sink
	hooked atomic.Bool // some program has all functions of --alloc and --free

	openers *openers // nil without --fds

	mu       sync.Mutex // of what follows
	programs map[leak.ProcID]*program
	// What the last program of a process, which has executed another one, had opened.
	executed map[leak.ProcID]*probe.Openers
	reports  []*leak.Report // one of each process that has ended
	notes    []string       // of the whole run
	working  sync.WaitGroup
}

// program is one process of the run, from the moment its program was loaded to
// the moment it ends or executes another.
type program struct {
	*observation
	probe  *probe.Probe
	probed *task
	placed chan struct{} // closed once it is decided whether there is a probe
	forked bool          // it has a copy of its parent's memory

	inherited *probe.Openers // of what the program before it in the process has opened

	looking sync.Mutex        // held during a look
	over    bool              // it has been concluded
	told    map[string]uint64 // blocks that were said to be lost, by the finding's key
}

func newRun(f *runFlags) *run {
	r := &run{flags: f, clock: proc.NewClock(), lock: &sync.Mutex{}, books: ledger.New(), programs: map[leak.ProcID]*program{}, executed: map[leak.ProcID]*probe.Openers{}}
	r.sink = leak.SerialBy(r.lock, r.books)
	r.atlas = leak.NewAtlas(r.sink, nil)
	return r
}

// note adds a sentence about the whole run.
func (r *run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// forward passes on what somebody sends to stanch instead of to the program.
func (r *run) forward() (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, Heeded(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT, syscall.SIGQUIT)...)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				r.family.Forward(s.(syscall.Signal))
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(signals); close(done) }
}

// follow takes every event until all processes have ended, and gives how the
// program itself did.
func (r *run) follow(ctx context.Context) (status syscall.WaitStatus) {
	for e := range r.family.Events() {
		switch e.Moment {
		case ptrace.Ready:
			r.ready(ctx, e)
		case ptrace.Born:
			r.born(ctx, e)
		case ptrace.Loaded:
			r.loaded(ctx, e)
		case ptrace.Replaced:
			r.replaced(e)
		case ptrace.Exiting:
			r.exiting(ctx, e)
		case ptrace.Tracing:
			r.tracing(ctx, e)
		case ptrace.Ended:
			if e.Target.ID.PID == r.family.PID() {
				status = e.Status
			}
			r.ended(e)
		}
	}
	r.working.Wait()
	return status
}

// program finds what is known of a process.
func (r *run) program(id leak.ProcID) *program {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.programs[id]
}

// add notes a new program.
func (r *run) add(t *proc.Target) *program {
	o := &observation{
		target: t, clock: r.clock, lock: r.lock, books: r.books, sink: r.sink, one: true, unheld: !r.flags.reachable,
		atlas: r.atlas.Beside(t.BuildID), subject: subjectOf(t, r.clock),
		progress: newProgress(io.Discard, true), budget: &budget{max: runPause}, show: r.flags.look.showContents,
	}
	o.program, _ = t.ExecID() // that of a process that is killed just now does not matter
	p := &program{observation: o, placed: make(chan struct{})}
	r.mu.Lock()
	r.programs[t.ID] = p
	p.inherited = r.executed[t.ID]
	delete(r.executed, t.ID)
	r.mu.Unlock()
	return p
}

// runPause bounds the stops of a process of a run: nobody waits for it but who
// called stanch.
const runPause = 10 * time.Second

// resume lets a process go on.
func (r *run) resume(t *proc.Target) {
	// It can only fail when the process was killed where it stood.
	_ = r.family.Resume(t)
}

// ready places the probe in a program that is loaded and has not begun.
func (r *run) ready(ctx context.Context, e ptrace.Event) {
	skip := r.flags.noChildren && e.Target.ID.PID != r.family.PID()
	if e.Err != nil || skip {
		if !skip {
			p := r.add(e.Target)
			r.sink.Gap(leak.Gap{At: r.clock.Now(), Proc: e.Target.ID, Source: "run", What: fmt.Sprintf("not recorded: %v", e.Err)})
			close(p.placed) // there will be no probe
		}
		if e.Err == nil {
			r.resume(e.Target)
		}
		return
	}
	p := r.add(e.Target)
	if os.Geteuid() != 0 && raisesRights(e.Target.Path("exe")) {
		p.note("%s is a set-user-ID program and ran without its rights, since it was traced; run stanch as root", p.name())
	}
	r.place(ctx, p, true)
}

// place puts a probe into a program that stands still, and lets it go on.
func (r *run) place(ctx context.Context, p *program, fromStart bool) {
	r.working.Go(func() {
		defer r.resume(p.target)
		defer close(p.placed)
		r.descriptors(p)
		r.openers.ready(ctx, r, p)
		o := probe.Options{
			Atlas: p.atlas, Clock: r.clock, Exact: r.flags.mode == "exact", FromStart: fromStart, Mappings: true,
			SampleBytes: uint64(r.flags.sampleBytes), MaxOverhead: r.overhead(), MaxPause: runPause, Hooks: r.flags.hooks,
			Descriptors: r.openers.probed(), Openers: p.inherited, Inputs: true, Source: sourceOf(p.target),
		}
		placed, err := probe.Place(ctx, p.target, o)
		if errors.Is(err, probe.ErrNoFunction) {
			o.Hooks = nil // another program of the run has them
			placed, err = probe.Place(ctx, p.target, o)
		} else if err == nil {
			r.hooked.Store(true)
		}
		if err != nil {
			if !errors.Is(err, proc.ErrGone) {
				p.note("no probe: %v; lines are not named", err)
			}
			return
		}
		p.probe = placed
		p.probed = background(ctx, func(ctx context.Context) error { return placed.Watch(ctx, p.target, r.sink) })
	})
}

// descriptors counts those of a process, at its start and at its exit.
func (r *run) descriptors(p *program) {
	(&sampler.Sampler{Clock: r.clock}).Descriptors(p.target, r.sink)
}

// overhead is --max-overhead as the probe takes it.
func (r *run) overhead() float64 {
	if r.flags.maxOverhead == 0 {
		return -1
	}
	return r.flags.maxOverhead / 100
}

// born gives a forked process a probe of its own: the copy of its parent's is
// quiet. What it inherited is its parent's to lose, which may have ended by now.
func (r *run) born(ctx context.Context, e ptrace.Event) {
	if r.flags.noChildren {
		r.resume(e.Target)
		return
	}
	p := r.add(e.Target)
	p.forked = true
	r.place(ctx, p, false)
}

// loaded tells the probe of libraries that came or went.
func (r *run) loaded(ctx context.Context, e ptrace.Event) {
	p := r.program(e.Target.ID)
	if p == nil || p.probe == nil {
		r.resume(e.Target)
		return
	}
	r.working.Go(func() {
		defer r.resume(e.Target)
		if err := p.probe.Reload(ctx, r.sink); err != nil {
			p.note("stacks through libraries that were loaded later may be cut: %v", err)
		}
	})
}

// replaced ends the observation of a program that executed another one. What
// it had not freed went with it.
func (r *run) replaced(e ptrace.Event) {
	p := r.program(e.Target.ID)
	if p == nil {
		return
	}
	r.mu.Lock()
	delete(r.programs, e.Target.ID)
	r.mu.Unlock()
	// The new program has the same identity: all of the old one must be
	// forgotten before anything is said of the new.
	p.quit()
	p.looking.Lock()
	defer p.looking.Unlock()
	p.over = true
	if p.probe != nil && r.openers.probed() {
		r.mu.Lock()
		r.executed[e.Target.ID] = p.probe.Openers()
		r.mu.Unlock()
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	r.books.Exec(e.Target.ID)
}

// tracing lets a process go that a debugger is about to trace: it can have one
// tracer only.
func (r *run) tracing(ctx context.Context, e ptrace.Event) {
	r.working.Go(func() {
		if p := r.program(e.Other.ID); p != nil {
			p.note("%s is traced by a program of the run itself: it was let go, and is not checked from there on", p.name())
			p.quit()
			if p.probe != nil {
				if err := p.probe.Remove(ctx); err != nil {
					p.note("the probe is off, but not removed: %v", err)
				}
			}
			r.conclude(p)
		}
		// Each fails only when the process was killed where it stood.
		_ = r.family.Release(e.Other)
		if e.Other.ID != e.Target.ID {
			_ = r.family.Resume(e.Target)
		}
	})
}

// quit ends the watch over the probe. An error would only say that the program
// is gone.
func (p *program) quit() {
	<-p.placed
	if p.probed != nil {
		_ = p.probed.end()
	}
}

// exiting takes the last look at a process.
func (r *run) exiting(ctx context.Context, e ptrace.Event) {
	p := r.program(e.Target.ID)
	if p == nil {
		r.resume(e.Target)
		return
	}
	r.working.Go(func() {
		defer r.resume(e.Target)
		p.quit()
		p.looking.Lock()
		defer p.looking.Unlock()
		p.ending = e.Ending()
		if err := r.lastLook(ctx, p); err != nil {
			r.unseen(p, fmt.Sprintf("not looked into at its exit: %v", err))
		}
		r.conclude(p)
	})
}

// lastLook reads the probe's books and searches the heap.
func (r *run) lastLook(ctx context.Context, p *program) error {
	threads, err := r.family.Threads(p.target)
	if err != nil {
		return err
	}
	r.descriptors(p)
	r.openers.settle(ctx, r, p)
	o := p.heapOptions()
	o.Progress = nil
	sink := r.sink
	if p.probe != nil {
		// It may have lived too short for the watch to have seen its mappings.
		maps, err := p.target.Maps()
		if err != nil {
			return err
		}
		p.atlas.Update(maps)
		own := &inheritance{Sink: r.sink, recorded: map[uint64]struct{}{}}
		if p.forked && r.flags.mode == "exact" {
			sink = own
		}
		if err := p.probe.Books(nil, sink); err != nil {
			p.note("the probe's books cannot be read: %v", err)
		}
		o.Exclude = p.probe.Ranges
	}
	return heap.ScanExit(ctx, p.target, threads, o, sink)
}

// inheritance is a sink that leaves out the lost blocks of a forked process
// that it has from its parent: those that its own books do not hold.
type inheritance struct {
	leak.Sink
	recorded map[uint64]struct{}
}

// Acquire notes the block.
func (i *inheritance) Acquire(a leak.Acquire) {
	if a.Ref.Kind == leak.KindMemory {
		i.recorded[a.Ref.ID] = struct{}{}
	}
	i.Sink.Acquire(a)
}

// Verdicts passes on those over blocks that are the process's own, or that
// such a block leads to.
func (i *inheritance) Verdicts(vs []leak.Verdict) {
	own := vs[:0:0]
	for _, v := range vs {
		_, mine := i.recorded[v.Ref.ID]
		if _, owned := i.recorded[v.Owner]; mine || owned && v.Owner != 0 {
			own = append(own, v)
		}
	}
	i.Sink.Verdicts(own)
}

// ended concludes what a process left that was killed without a last look.
func (r *run) ended(e ptrace.Event) {
	p := r.program(e.Target.ID)
	if p == nil {
		return
	}
	r.working.Go(func() {
		p.quit()
		r.mu.Lock()
		over := r.programs[e.Target.ID] != p
		r.mu.Unlock()
		if over {
			return
		}
		p.ending = e.Ending()
		r.unseen(p, leak.GapKilled)
		r.conclude(p)
	})
}

// unseen says that a process ended and nobody could look at its heap.
func (r *run) unseen(p *program, why string) {
	now := r.clock.Now()
	r.sink.Look(leak.Look{N: 1, At: now, Proc: p.target.ID, Final: true})
	r.sink.Gap(leak.Gap{At: now, Proc: p.target.ID, Source: "run", What: why})
}

// conclude adds the report of a process to the whole.
func (r *run) conclude(p *program) {
	c := r.flags.look.config()
	c.Reachable = r.flags.reachable
	report := p.conclude(c)
	p.over = true
	r.lock.Lock()
	r.books.Forget(p.target.ID)
	r.lock.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.programs, p.target.ID)
	r.reports = append(r.reports, report)
}

// report is that of all processes that have ended; more are reports of others.
func (r *run) report(more ...*leak.Report) *leak.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	whole := detect.Join(append(more, r.reports...)...)
	if len(r.flags.hooks) > 0 && !r.hooked.Load() {
		whole.Notes = append(whole.Notes, "no program of the run has all functions of --alloc and --free, so none of its own allocators was watched")
	}
	whole.Notes = append(whole.Notes, r.notes...)
	whole.Observed.Start = r.clock.Wall
	whole.Observed.DurationS = r.clock.Now().Seconds()
	return whole
}
