package logs

import (
	"testing"
	"time"

	"stanch/internal/series"
)

// A night of 10 hours, with a step about every 13 minutes.
var night = RankOptions{From: 1_900_000_000_000, To: 1_900_000_000_000 + 10*3600_000}

// nightSteps are at irregular times.
func nightSteps(n int) []int64 {
	var steps []int64
	at := night.From + 300_000
	for i := range n {
		at += 600_000 + int64(i*i*7919%331)*1000
		steps = append(steps, at)
	}
	return steps
}

func shifted(times []int64, by int64) []int64 {
	var out []int64
	for _, t := range times {
		out = append(out, t+by)
	}
	return out
}

// every gives times at a regular distance all night.
func every(d time.Duration) []int64 {
	var at []int64
	for t := night.From; t < night.To; t += d.Milliseconds() {
		at = append(at, t)
	}
	return at
}

func TestRank(t *testing.T) {
	steps := nightSteps(44)
	failed := lines("collecting from * failed: data truncated", shifted(steps[:41], -400)...)
	noise := []series.Series{
		lines("collected * values", every(10*time.Second)...),
		lines("checkpoint", every(5*time.Minute)...),
		lines("session of * ended", shifted(nightSteps(30), 171_000)...),
		lines("never"),
	}
	claims := Rank(append(noise, failed), steps, night)
	if len(claims) != 1 {
		t.Fatalf("claims: %+v", claims)
	}
	c := claims[0]
	if c.Template != failed.Key.Part || c.Steps != 44 || c.Before != 41 || c.Lines != 41 || c.Other != 0 || c.LeadS < 0.4 || c.LeadS > 0.5 || c.P > 1e-20 {
		t.Errorf("got %+v", c)
	}
}

func TestRankSilent(t *testing.T) {
	steps := nightSteps(44)
	for about, s := range map[string]series.Series{
		"a template of every window":       lines("often", every(time.Second)...),
		"one that comes after":             lines("after", shifted(steps, 60_000)...),
		"before less than half":            lines("few", shifted(steps[:20], -400)...),
		"no lines at all":                  lines("none"),
		"lines beyond the time looked at":  lines("beyond", shifted(steps, 100*3600_000)...),
		"a burst that has nothing to it":   lines("burst", every(time.Hour)[3:4]...),
		"one line before one of the steps": lines("once", steps[3]-400),
	} {
		if claims := Rank([]series.Series{s}, steps, night); len(claims) != 0 {
			t.Errorf("%s: %+v", about, claims)
		}
	}
	cause := lines("cause", shifted(steps, -400)...)
	if claims := Rank([]series.Series{cause}, steps[:2], night); len(claims) != 0 {
		t.Errorf("two steps: %+v", claims)
	}
	if claims := Rank([]series.Series{cause}, nil, RankOptions{}); len(claims) != 0 {
		t.Errorf("no steps, no time: %+v", claims)
	}
}

// TestRankOfClocks has steps every ten minutes, and lines every minute that
// are always just before: of two clocks that is as likely as not.
func TestRankOfClocks(t *testing.T) {
	steps := every(10 * time.Minute)[1:]
	for _, d := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute} {
		if claims := Rank([]series.Series{lines("tick", shifted(every(d), -400)...)}, steps, night); len(claims) != 0 {
			t.Errorf("every %v: %+v", d, claims)
		}
	}
}

// TestRankOrder has lines that come together: the one with fewer elsewhere is
// first, then the earlier.
func TestRankOrder(t *testing.T) {
	steps := nightSteps(30)
	claims := Rank([]series.Series{
		lines("b later", shifted(steps, -300)...),
		lines("c earlier", shifted(steps, -2000)...),
		lines("a elsewhere too", append(shifted(steps, -3000), shifted(steps[5:15], 250_000)...)...),
	}, steps, night)
	var order []string
	for _, c := range claims {
		order = append(order, c.Template)
	}
	if len(order) != 3 || order[0] != "c earlier" || order[1] != "b later" || order[2] != "a elsewhere too" {
		t.Errorf("got %q", order)
	}
}

// TestRankFolds holds that lines from before a word was found to be variable
// count to the template that has it so; and that one growth that several
// numbers show is one step.
func TestRankFolds(t *testing.T) {
	steps := nightSteps(12)
	causes := shifted(steps, -1000)
	claims := Rank([]series.Series{
		lines("login of anna ok", causes[0:3]...),
		lines("login of * ok", causes[6:]...),
		lines("login of bert ok", causes[3:6]...),
	}, append(shifted(steps, 4000), steps...), night)
	if len(claims) != 1 || claims[0].Template != "login of * ok" || claims[0].Before != 12 || claims[0].Lines != 12 || claims[0].Steps != 12 {
		t.Errorf("got %+v", claims)
	}
}
