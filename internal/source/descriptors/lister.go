// Package descriptors tells what a process has open, without touching it, and
// what can run out: descriptors from /proc/PID/fd, sockets from the kernel's
// tables in the network namespace of the process, limits from wherever they
// are set.
package descriptors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Lister says what one process has open and what can run out. It is a
// leak.Scanner and a leak.Watcher.
type Lister struct {
	Clock *proc.Clock
	Every time.Duration // between two looks at the limits; zero means one second
	// ListEvery is the time between two listings; zero means five seconds. Of a
	// process with very many descriptors listings are rarer, see Watch.
	ListEvery time.Duration
}

// Scan says one leak.Listing, the leak.Ownerless of the network namespace,
// each leak.Usage, and a leak.Gap for whatever could not be read. The error is
// not nil when the descriptors themselves may not be listed.
func (l *Lister) Scan(ctx context.Context, t *proc.Target, sink leak.Sink) error {
	w := l.watcher(t, sink)
	for _, p := range w.parts() {
		if err := p.look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// share bounds what a watch costs: what took d is done again after share times
// d at the earliest. A look keeps two processors busy at most, so that is four
// percent of one.
const share = 50

// Watch says the same again and again: limits every second, listings every few
// seconds, both less often where a look takes long, and everything once more
// at the end. It ends with ctx and with the target; neither is an error.
func (l *Lister) Watch(ctx context.Context, t *proc.Target, sink leak.Sink) error {
	w := l.watcher(t, sink)
	err := w.run(ctx)
	if err == nil { // ctx has ended: one more look
		for _, p := range w.parts() {
			if err = p.look(context.WithoutCancel(ctx)); err != nil {
				break
			}
		}
	}
	if errors.Is(err, proc.ErrGone) {
		return nil
	}
	return err
}

// watcher is one observation of one process.
type watcher struct {
	*Lister
	target *proc.Target
	sink   leak.Sink
	said   map[string]bool // gaps, which are said once

	networked bool // the last listing had sockets
	listens   bool // and one of them waits for connections
}

func (l *Lister) watcher(t *proc.Target, sink leak.Sink) *watcher {
	return &watcher{Lister: l, target: t, sink: sink, said: map[string]bool{}}
}

// part is something to look at, and how often.
type part struct {
	every time.Duration
	look  func(context.Context) error
	due   time.Duration // on the clock
}

func (w *watcher) parts() []part {
	every, list := w.Every, w.ListEvery
	if every == 0 {
		every = time.Second
	}
	if list == 0 {
		list = 5 * time.Second
	}
	return []part{{every: list, look: w.list}, {every: every, look: w.counters}, {every: every, look: w.headroom}, {every: every, look: w.mappings}}
}

// run looks at each part when it is due, until ctx ends.
func (w *watcher) run(ctx context.Context) error {
	parts := w.parts()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next := time.Duration(math.MaxInt64)
		for i := range parts {
			p := &parts[i]
			start := w.Clock.Now()
			if p.due <= start {
				if err := p.look(ctx); err != nil {
					if ctx.Err() != nil {
						return nil
					}
					return err
				}
				p.due = start + max(p.every, share*(w.Clock.Now()-start))
			}
			next = min(next, p.due)
		}
		timer.Reset(next - w.Clock.Now())
	}
}

// gap says once what could not be read.
func (w *watcher) gap(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if w.said[what] {
		return
	}
	w.said[what] = true
	w.sink.Gap(leak.Gap{At: w.Clock.Now(), Proc: w.target.ID, Source: "descriptors", What: what})
}

// unread is how a look ends that could not read what it needs: the end of the
// target ends the watch, anything else is a gap.
func (w *watcher) unread(what string, err error) error {
	if gone := w.target.Check(); gone != nil {
		return gone
	}
	w.gap("%s: %v", what, err)
	return nil
}

// usage says a limit of this moment.
func (w *watcher) usage(u leak.Usage) {
	u.At, u.Proc = w.Clock.Now(), w.target.ID
	w.sink.Usage(u)
}
