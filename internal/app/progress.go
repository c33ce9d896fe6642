package app

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress says on stderr what happens now and how long it still takes: one
// line that is rewritten on a terminal, a line per step elsewhere.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool // a terminal: rewrite the line
	quiet bool
	last  time.Time
	step  string
}

func newProgress(w io.Writer, quiet bool) *progress {
	return &progress{w: w, live: terminal(w), quiet: quiet}
}

// say begins a step.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet {
		return
	}
	p.step = fmt.Sprintf(format, args...)
	p.last = time.Now()
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K%s", p.step)
		return
	}
	fmt.Fprintln(p.w, p.step)
}

// left says how far the step is; on a terminal only, and five times a second
// at most.
func (p *progress) left(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet || !p.live || time.Since(p.last) < 200*time.Millisecond {
		return
	}
	p.last = time.Now()
	fmt.Fprintf(p.w, "\r\x1b[K%s  %s", p.step, fmt.Sprintf(format, args...))
}

// done clears the line before the report.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.quiet && p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// line says something that stays.
func (p *progress) line(format string, args ...any) {
	p.done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.quiet {
		fmt.Fprintln(p.w, fmt.Sprintf(format, args...))
	}
}
