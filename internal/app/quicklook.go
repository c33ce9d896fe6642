package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"stanch/internal/leak"
	"stanch/internal/source/sampler"
)

// quickLook samples all processes for a while and ranks them.
func (a *app) quickLook(ctx context.Context, q question, f *suspectsFlags) (*leak.Report, error) {
	progress := newProgress(a.std.Err, f.quiet)
	defer progress.done()
	host := &sampler.Host{MinAge: -1, Slow: time.Second, Share: 1, Only: func(p *sampler.Process) bool { return p.ID.PID != os.Getpid() }}
	var stamps sampler.Stamper
	m := &sampled{}
	progress.say("there is no history to show; sampling all processes for %v", f.look)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	end := time.After(f.look)
	var notes []string
	for looking := true; looking; {
		now, _ := stamps.Now()
		sweep, err := host.Sweep(ctx, now)
		if err != nil {
			return nil, errors.Join(err, host.Close())
		}
		for _, s := range sweep.Samples {
			m.sample(s)
		}
		notes = append(notes, sweep.Notes...)
		select {
		case <-ctx.Done():
			looking = false
		case <-end:
			looking = false
		case <-ticker.C:
		}
	}
	if err := host.Close(); err != nil {
		return nil, err
	}
	q.Since = f.look + time.Minute
	r, err := history(context.WithoutCancel(ctx), m, m.newest, q, nil)
	if err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes, notes...)
	r.Notes = append(r.Notes, fmt.Sprintf("this is a look of %v, which proves nothing; 'stanch watch' keeps a history", f.look))
	return r, nil
}
