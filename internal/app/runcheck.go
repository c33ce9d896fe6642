package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// leastCheck is the least --check-every: a check takes two looks.
const leastCheck = 5 * time.Second

// meanwhile looks at the processes while they run, as often as --check-every
// says, and keeps the report's file up to date.
func (a *app) meanwhile(ctx context.Context, r *run) {
	checks := every(r.flags.checkEvery)
	defer checks.Stop()
	saves := every(r.flags.saveEvery)
	defer saves.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-checks.C:
			for _, p := range r.living() {
				if report := r.check(ctx, p); report != nil {
					fmt.Fprintf(a.std.Err, "stanch: after %s, new since the check before:\n", leak.FormatDuration(r.clock.Now()))
					report.Normalize()
					_ = (&output{}).write(a.std.Err, report) // as every other line there
				}
			}
		case <-saves.C:
			r.save(ctx)
		}
	}
}

// every is a ticker; it never ticks when d is zero.
func every(d time.Duration) *time.Ticker {
	if d > 0 {
		return time.NewTicker(d)
	}
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}

// living are the processes that run, in the order of their numbers.
func (r *run) living() []*program {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*program
	for _, p := range r.programs {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *program) int { return a.target.ID.PID - b.target.ID.PID })
	return out
}

// enter takes the right to look at the process once its probe is in, or could
// not be; without it when the process is over or ctx done.
func (p *program) enter(ctx context.Context) bool {
	select {
	case <-p.placed:
	case <-ctx.Done():
		return false
	}
	p.looking.Lock()
	if p.over {
		p.looking.Unlock()
		return false
	}
	return true
}

// check takes two looks at a running process, and gives what is lost since the
// check before; nil when nothing is.
func (r *run) check(ctx context.Context, p *program) *leak.Report {
	if !p.enter(ctx) {
		return nil
	}
	defer p.looking.Unlock()
	err := p.scan(ctx, p.probe)
	if err == nil {
		if err = p.apart(ctx); err == nil {
			err = p.scan(ctx, p.probe)
		}
	}
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, proc.ErrGone) {
			p.note("a check while it ran failed: %v", err)
		}
		return nil
	}
	report := p.conclude(r.flags.look.config())
	report.Findings = slices.DeleteFunc(report.Findings, func(f leak.Finding) bool { return !p.news(&f) })
	if len(report.Findings) == 0 {
		return nil
	}
	return report
}

// news reports whether more blocks are lost than were said before.
func (p *program) news(f *leak.Finding) bool {
	if f.Severity != leak.SeverityLeak {
		return false
	}
	if p.told == nil {
		p.told = map[string]uint64{}
	}
	before := p.told[f.Key]
	p.told[f.Key] = max(before, f.Count)
	return f.Count > before
}

// save writes the report as it stands to the file that it is meant for, in one
// piece: those of processes that have ended, and what is held by the others.
func (r *run) save(ctx context.Context) {
	out := &r.flags.look.out
	if out.file == "" {
		return
	}
	var running []*leak.Report
	for _, p := range r.living() {
		if report := r.soFar(ctx, p); report != nil {
			running = append(running, report)
		}
	}
	report := r.report(running...)
	report.Notes = append(report.Notes, fmt.Sprintf("written after %s, while the run went on: %d processes had not ended", leak.FormatDuration(r.clock.Now()), len(running)))
	report.Normalize()
	format, err := out.renderer()
	if err != nil {
		return
	}
	next := out.file + ".part"
	f, err := create(next, true)
	if err != nil {
		return // the file at the end will tell
	}
	err = format.Write(f, report)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(next, out.file)
	}
	if err != nil {
		_ = os.Remove(next)
		return
	}
	out.force = true // the file is ours
}

// soFar is what the probe's books say of a running process.
func (r *run) soFar(ctx context.Context, p *program) *leak.Report {
	if !p.enter(ctx) {
		return nil
	}
	defer p.looking.Unlock()
	if p.probe == nil {
		return nil
	}
	if err := p.probe.Books(nil, r.sink); err != nil {
		return nil // it has just ended, or executed another program
	}
	return p.conclude(r.flags.look.config())
}
