package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/source/descriptors"
	"stanch/internal/source/fdcalls"
	"stanch/internal/source/fdtrace"
)

// The ways of run --fds to see who opens descriptors.
const (
	fdsAuto   = "auto"   // the kernel where that is allowed, else the probe
	fdsBPF    = "bpf"    // tracepoints in the kernel: every call
	fdsProbe  = "probe"  // the probe: calls through the C library
	fdsPtrace = "ptrace" // stops at each call: every call, and the program ends with stanch
)

// openers sees who opens descriptors in a run, in one of the ways; nil when
// nobody asked for it.
type openers struct {
	way   string
	calls *fdcalls.Tracer // of fdsPtrace

	begin  sync.Once
	tracer *fdtrace.Tracer // of fdsBPF, once the program is there
	traced *task
}

// newOpeners chooses a way. What cannot be had is an error when it was asked
// for by name.
func (r *run) newOpeners(way string) (*openers, error) {
	switch way {
	case "":
		return nil, nil
	case fdsAuto:
		way = fdsBPF
		if err := fdtrace.Available(); err != nil {
			way = fdsProbe
			r.note("descriptors are seen through the C library only, since the kernel's tracepoints cannot be had (%v); system calls that a program makes by itself, as Go programs do, need --fds=ptrace", err)
		}
	case fdsBPF:
		if err := fdtrace.Available(); err != nil {
			return nil, fmt.Errorf("--fds=bpf: %w", err)
		}
	}
	o := &openers{way: way}
	if way == fdsPtrace {
		o.calls = fdcalls.New(fdcalls.Options{Clock: r.clock, Atlas: func(t *proc.Target) *leak.Atlas { return r.atlas.Beside(t.BuildID) }, Sink: r.sink})
	}
	return o, nil
}

// watch is what the family must tell of.
func (o *openers) watch() *ptrace.Watch {
	if o == nil || o.calls == nil {
		return nil
	}
	return o.calls.Watch()
}

// probed reports whether the probe is to see descriptors.
func (o *openers) probed() bool { return o != nil && o.way == fdsProbe }

// ready is called when a program is loaded and stands still. What it has open
// then is not its own. The first one is traced in the kernel from there on, with
// what it starts.
func (o *openers) ready(ctx context.Context, r *run, p *program) {
	if o == nil {
		return
	}
	if err := (&descriptors.Lister{Clock: r.clock}).Scan(ctx, p.target, r.sink); err != nil && !errors.Is(err, proc.ErrGone) {
		p.note("its descriptors were not listed: %v", err)
	}
	switch {
	case o.calls != nil:
		o.calls.Begin(p.target)
		return
	case o.way != fdsBPF:
		return
	}
	o.begin.Do(func() {
		tracer, err := fdtrace.Load(fdtrace.Options{Clock: r.clock, Atlas: p.atlas, Scope: fdtrace.Tree, Raw: true})
		if err == nil {
			if err = tracer.Start(p.target); err != nil {
				err = errors.Join(err, tracer.Close())
			}
		}
		if err != nil {
			p.note("who opens descriptors is not seen: %v", err)
			return
		}
		o.tracer = tracer
		o.traced = background(ctx, func(ctx context.Context) error { return tracer.Watch(ctx, p.target, r.sink) })
	})
}

// settle says all that has happened to the descriptors of a process that stands
// at its exit, and lists them.
func (o *openers) settle(ctx context.Context, r *run, p *program) {
	if o == nil {
		return
	}
	var err error
	switch {
	case o.calls != nil:
		err = o.calls.Settle(p.target)
	case o.tracer != nil:
		err = o.tracer.Settle(p.target)
	}
	if err == nil {
		err = (&descriptors.Lister{Clock: r.clock}).Scan(ctx, p.target, r.sink)
	}
	if err != nil && !errors.Is(err, proc.ErrGone) {
		p.note("its descriptors were not followed to the end: %v", err)
	}
}

// end ends the tracing; it may be called twice.
func (o *openers) end() error {
	if o == nil || o.tracer == nil {
		return nil
	}
	return errors.Join(o.traced.end(), o.tracer.Close())
}

// checkFDs finds mistakes in --fds.
func checkFDs(way string) error {
	switch way {
	case "", fdsAuto, fdsBPF, fdsProbe, fdsPtrace:
		return nil
	}
	return usagef("--fds is %s, %s, %s or %s, not %q", fdsAuto, fdsBPF, fdsProbe, fdsPtrace, strings.TrimSpace(way))
}
