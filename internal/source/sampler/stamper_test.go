package sampler

import (
	"math"
	"testing"
	"time"

	"stanch/internal/series"
)

// clocks are played: what passes, and what is done to the wall clock.
type clocks struct {
	Clocks
	stamper Stamper
	t       *testing.T
	last    int64
	said    map[series.Metric][]float64
}

func playClocks(t *testing.T) *clocks {
	c := &clocks{Clocks: Clocks{Wall: time.Unix(1_700_000_000, 0), Boot: time.Hour, Mono: time.Hour}, t: t, said: map[series.Metric][]float64{}}
	c.stamper.Read = func() Clocks { return c.Clocks }
	return c
}

// pass lets time pass in steps of 10 s.
func (c *clocks) pass(d time.Duration) {
	for ; d > 0; d -= 10 * time.Second {
		c.Wall, c.Boot, c.Mono = c.Wall.Add(10*time.Second), c.Boot+10*time.Second, c.Mono+10*time.Second
		c.stamp()
	}
}

func (c *clocks) stamp() Time {
	c.t.Helper()
	now, said := c.stamper.Now()
	if now.At <= c.last {
		c.t.Fatalf("a stamp of %d comes after %d", now.At, c.last)
	}
	if now.Boot != c.Boot {
		c.t.Fatalf("the stamp's CLOCK_BOOTTIME is %v, read was %v", now.Boot, c.Boot)
	}
	c.last = now.At
	for _, s := range said {
		if s.At != now.At {
			c.t.Errorf("%v is not of this stamp, %d", s, now.At)
		}
		c.said[s.Key.Metric] = append(c.said[s.Key.Metric], s.Value)
	}
	return now
}

// ahead is by how many seconds the last stamp is ahead of the wall clock.
func (c *clocks) ahead() float64 {
	d := float64(c.last)/1000 - float64(c.Wall.UnixNano())/1e9
	if math.Abs(d-c.stamper.Ahead().Seconds()) > 0.002 {
		c.t.Errorf("Ahead is %v, the stamp is %f s ahead", c.stamper.Ahead(), d)
	}
	return d
}

func (c *clocks) wantSaid(m series.Metric, want ...float64) {
	c.t.Helper()
	if len(c.said[m]) != len(want) {
		c.t.Fatalf("%s: %v, want %v", m, c.said[m], want)
	}
	for i := range want {
		if math.Abs(c.said[m][i]-want[i]) > 0.01 {
			c.t.Errorf("%s: %v, want %v", m, c.said[m], want)
		}
	}
}

func TestStamperFollows(t *testing.T) {
	c := playClocks(t)
	c.stamp()
	c.pass(time.Hour)
	if c.ahead() != 0 {
		t.Errorf("with good clocks it is %f s ahead", c.ahead())
	}
	// NTP at its fastest, 500 ppm, for a day either way.
	for _, drift := range []time.Duration{5 * time.Millisecond, -5 * time.Millisecond} {
		for range 8640 {
			c.Wall = c.Wall.Add(drift)
			c.pass(10 * time.Second)
			if math.Abs(c.ahead()) > 0.01 {
				t.Fatalf("while NTP corrects it is %f s ahead", c.ahead())
			}
		}
	}
	// A step that is too small to be called one.
	c.Wall = c.Wall.Add(-1500 * time.Millisecond)
	c.pass(10 * time.Minute)
	if math.Abs(c.ahead()) > 0.01 {
		t.Errorf("after 10 minutes it is %f s ahead", c.ahead())
	}
	c.wantSaid(series.ClockJumps)
	c.wantSaid(series.Suspended)
}

func TestStamperForward(t *testing.T) {
	c := playClocks(t)
	c.stamp()
	c.Wall = c.Wall.Add(time.Hour)
	c.pass(10 * time.Second)
	if c.ahead() != 0 {
		t.Errorf("after a jump forward it is %f s ahead", c.ahead())
	}
	c.pass(time.Minute)
	c.wantSaid(series.ClockJumps, 3600)
}

func TestStamperBackward(t *testing.T) {
	c := playClocks(t)
	c.stamp()
	c.Wall = c.Wall.Add(-time.Minute)
	c.pass(10 * time.Second)
	c.wantSaid(series.ClockJumps, -60)
	if a := c.ahead(); a < 54 || a > 56 {
		t.Errorf("10 s after a jump of a minute backward it is %f s ahead", a)
	}
	c.pass(2 * time.Minute)
	if a := c.ahead(); a < 0 || a > 2 {
		t.Errorf("it has not caught up, and is %f s ahead", a)
	}
	c.pass(10 * time.Minute)
	if math.Abs(c.ahead()) > 0.01 {
		t.Errorf("it is %f s ahead for good", c.ahead())
	}
	// Back and forth again before it has caught up.
	c.Wall = c.Wall.Add(-time.Hour)
	c.pass(time.Minute)
	c.Wall = c.Wall.Add(time.Hour)
	c.pass(10 * time.Second)
	c.wantSaid(series.ClockJumps, -60, -3600, 3600)
	if math.Abs(c.ahead()) > 0.01 {
		t.Errorf("after the clock was set right it is %f s ahead", c.ahead())
	}
}

func TestStamperSuspend(t *testing.T) {
	c := playClocks(t)
	c.stamp()
	c.pass(time.Minute)
	c.Wall, c.Boot = c.Wall.Add(8*time.Hour), c.Boot+8*time.Hour
	c.pass(10 * time.Second)
	c.wantSaid(series.Suspended, 8*3600)
	c.wantSaid(series.ClockJumps)
	if c.ahead() != 0 {
		t.Errorf("after a suspend it is %f s ahead", c.ahead())
	}
}

// TestStamperAfter begins after what the store has.
func TestStamperAfter(t *testing.T) {
	c := playClocks(t)
	c.stamper.After = c.Wall.UnixMilli() - 5000
	c.stamp()
	if c.ahead() != 0 {
		t.Errorf("it begins %f s ahead", c.ahead())
	}
	c.wantSaid(series.ClockJumps)

	c = playClocks(t)
	c.stamper.After = c.Wall.UnixMilli() + 100_000
	if now := c.stamp(); now.At <= c.stamper.After {
		t.Errorf("the first stamp is %d, the store has %d", now.At, c.stamper.After)
	}
	c.wantSaid(series.ClockJumps, -100)
	c.pass(4 * time.Minute)
	if math.Abs(c.ahead()) > 1 {
		t.Errorf("it has not caught up: %f s ahead", c.ahead())
	}
}

// TestStamperReal reads the clocks of the system, also twice at one moment.
func TestStamperReal(t *testing.T) {
	var s Stamper
	last := int64(0)
	for range 1000 {
		now, said := s.Now()
		if now.At <= last || len(said) != 0 {
			t.Fatalf("%d after %d, said %v", now.At, last, said)
		}
		last = now.At
	}
	if ahead := s.Ahead(); ahead > 2*time.Second {
		t.Errorf("1000 stamps at once are %v ahead", ahead)
	}
}
