package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/source/heap"
	"stanch/internal/source/probe"
)

// harmRounds is how many snapshots the harm suite takes, and how often it
// places and removes a probe; STANCH_SOAK (a duration) sets a time instead.
const harmRounds = 100

// TestHarm lets stanch work on a program that would notice any disturbance:
// checksums in every block, every blocking system call, signals at 1 kHz,
// connections and locks whose end others wait for. Nothing of it may show.
func TestHarm(t *testing.T) {
	privileged(t)
	p := fixture.Start(t, fixture.Build(t, "harm"))
	p.Ask("load off", "ok")
	before := settled(t, p.PID())
	p.Ask("load low", "ok")

	soak, _ := time.ParseDuration(os.Getenv("STANCH_SOAK"))
	began := time.Now()
	s := beginFor(t, 4*limit+soak, func(c *exec.Cmd) {
		c.Path, c.Args[0] = command(t, harmCommand), harmCommand
	}, pid(p), soak.String())
	defer func() {
		if t.Failed() {
			t.Logf("what was done:\n%s%s", s.stderr(), s.out.String())
		}
	}()
	for s.running() {
		p.Ask("check", "ok")
		s.next() // a few rounds later
	}
	o := s.wait()
	t.Logf("%s in %v", strings.TrimSpace(o.out), time.Since(began).Round(time.Second))
	t.Log(p.Ask("check", "ok"))
	o.wantCode(t, 0)
	p.Ask("load off", "ok")
	untouched(t, p.PID(), before)
	p.Ask("load low", "ok")
	p.Ask("check", "ok")
	p.Quit()
}

// harmCommand is this binary as a process that only does what TestHarm is
// about. It is not the parent of the target: a parent's wait for its child
// would take the stops away from a tracer in the same process.
const harmCommand = "stanch-harm"

// harmMain is harmCommand: PID SOAK.
func harmMain() {
	target, err := func() (*proc.Target, error) {
		pid, err := strconv.Atoi(os.Args[1])
		if err != nil {
			return nil, err
		}
		return proc.Default.Open(pid)
	}()
	var soak time.Duration
	if err == nil {
		soak, err = time.ParseDuration(os.Args[2])
	}
	if err == nil {
		h := &harm{target: target, clock: proc.NewClock(), refused: map[string]int{}}
		h.atlas = leak.NewAtlas(&h.seen, nil)
		err = h.run(soak)
		fmt.Printf("%d snapshots, %d placements, longest pauses %v and %v; refused at a bad moment: %v\n",
			h.snapshots, h.placements, h.seen.pause, h.pause, h.refused)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// harm counts what was done to the target.
type harm struct {
	target                *proc.Target
	clock                 *proc.Clock
	atlas                 *leak.Atlas
	seen                  counter
	snapshots, placements int
	pause                 time.Duration // the longest of a placement
	refused               map[string]int
}

// counter is a sink that counts what a look found.
type counter struct {
	leak.Ignore
	blocks, tallies uint64
	pause           time.Duration
}

func (c *counter) Look(l leak.Look) {
	c.blocks = l.Blocks
	c.pause = max(c.pause, l.Pause)
}

func (c *counter) Tally(leak.Tally) { c.tallies++ }

// run goes on until enough was done or the time is over. A moment at which
// stanch rather refuses is no harm, but must be rare.
func (h *harm) run(soak time.Duration) error {
	began := time.Now()
	for round := 1; ; round++ {
		switch {
		case soak > 0 && time.Since(began) > soak, soak == 0 && h.snapshots >= harmRounds && h.placements >= harmRounds:
			return nil
		case soak == 0 && round > 2*harmRounds:
			return fmt.Errorf("%d snapshots and %d placements in %d rounds; refused: %v", h.snapshots, h.placements, round, h.refused)
		}
		if err := h.lucky("snapshot", h.snapshot(nil)); err != nil {
			return err
		}
		if err := h.lucky("probe", h.probe(round%10 == 0)); err != nil {
			return err
		}
		if round%10 == 0 {
			fmt.Fprintf(os.Stderr, "round %d\n", round)
		}
	}
}

// lucky counts an error that says that the moment was bad and nothing was done.
func (h *harm) lucky(what string, err error) error {
	for _, moment := range []error{ptrace.ErrStuck, ptrace.ErrPause, probe.ErrBusy} {
		if errors.Is(err, moment) {
			h.refused[what+": "+moment.Error()]++
			fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// snapshot takes one look at the heap, with the probe's books when there is
// one.
func (h *harm) snapshot(p *probe.Probe) error {
	s := &heap.Scanner{Options: heap.Options{Atlas: h.atlas, Clock: h.clock}}
	if p != nil {
		s.Exclude = p.Ranges
		s.OnSnapshot = func(mem leak.Memory, _ []leak.Mapping) error { return p.Books(mem, &h.seen) }
	}
	h.seen.blocks = 0
	if err := s.Scan(context.Background(), h.target, &h.seen); err != nil {
		return err
	}
	if h.seen.blocks == 0 {
		return errors.New("there is no block in it")
	}
	h.snapshots++
	return nil
}

// probe places and removes a probe; when it is to stay for a while, its books
// are read meanwhile, and a snapshot is taken with it.
func (h *harm) probe(stay bool) error {
	p, err := probe.Place(context.Background(), h.target, probe.Options{
		Atlas: h.atlas, Clock: h.clock, Every: 100 * time.Millisecond,
		Aim: leak.Aim{Sizes: []leak.SizeRange{{Min: 100, Max: 131}}},
	})
	if err != nil {
		return err
	}
	for _, d := range p.Placement().Pauses {
		h.pause = max(h.pause, d)
	}
	if stay {
		err = h.stay(p)
	}
	for try := 0; ; try++ {
		rerr := p.Remove(context.Background())
		if rerr == nil {
			break
		}
		if again := h.lucky("remove", rerr); again != nil || try == 20 {
			return errors.Join(err, rerr)
		}
	}
	h.placements++
	return err
}

func (h *harm) stay(p *probe.Probe) error {
	ctx, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer stop()
	h.seen.tallies = 0
	if err := p.Watch(ctx, h.target, &h.seen); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if h.seen.tallies == 0 {
		return errors.New("the books are empty after half a second of allocations")
	}
	return h.lucky("snapshot with a probe", h.snapshot(p))
}
