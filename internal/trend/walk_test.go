package trend_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/trend"
)

// walked is a history that is judged again and again while it gets longer, as
// a watch does.
type walked struct {
	name  string
	leaks bool
	// bent is from when on a bend is many times the noise, for what bends; from
	// then on it is not growing. still is until when it still rises by much
	// more than the noise: until then it is not steady.
	bent, still time.Duration
	value       func(at time.Duration) float64 // pages, without noise
}

func filling(tau time.Duration) walked {
	return walked{
		name: "cache " + tau.String(), bent: max(tau/2, 20*time.Minute), still: 2 * tau,
		value: func(at time.Duration) float64 { return 2000 + 9000*(1-math.Exp(-float64(at)/float64(tau))) },
	}
}

func walkedHistories() (out []walked) {
	for _, tau := range []time.Duration{20 * time.Minute, 45 * time.Minute, 2 * time.Hour, 6 * time.Hour} {
		out = append(out, filling(tau))
	}
	out = append(out, walked{name: "warm-up in stages", bent: 25 * time.Minute, value: func(at time.Duration) float64 {
		v := 2000.0
		for _, from := range []time.Duration{0, 6 * time.Minute, 14 * time.Minute} {
			v += 1500 * min(1, max(0, (at-from).Minutes()/3))
		}
		return v
	}})
	for _, period := range []time.Duration{5 * time.Minute, 20 * time.Minute, time.Hour} {
		out = append(out, walked{name: "collector " + period.String(), bent: 2*period + period/2, value: func(at time.Duration) float64 {
			return 8000 + 3000*float64(at%period)/float64(period)
		}})
	}
	for _, perHour := range []float64{100, 1000} {
		out = append(out, walked{name: fmt.Sprintf("leak of %g pages an hour", perHour), leaks: true, value: func(at time.Duration) float64 {
			return 5000 + perHour*at.Hours()
		}})
	}
	return out
}

// TestLongerWindows judges histories while they get longer. What was growing
// and is no longer, or the other way round, is a flip: each may wake somebody.
func TestLongerWindows(t *testing.T) {
	const noise, length, stride = 15, 24 * time.Hour, 5 * time.Minute
	for k, w := range walkedHistories() {
		r := rand.New(rand.NewPCG(77, uint64(k)))
		all := of(series.Anonymous, int(length/(10*time.Second)), 10_000, func(i int) float64 {
			return 4096 * math.Round(w.value(time.Duration(i)*10*time.Second)+noise*r.NormFloat64())
		})
		flips, wrong, before := 0, 0, ""
		var story []string
		for age := stride; age <= length; age += stride {
			if age > 4*time.Hour && age%(20*time.Minute) != 0 {
				continue // what changes slowly is looked at less often
			}
			s := all.Between(begin, begin+age.Milliseconds())
			got := only(t, history(s))
			verdict := got.Verdict
			if verdict != before {
				story = append(story, fmt.Sprintf("%v %s", age, verdict))
			}
			if before != "" && trend.Grows(verdict) != trend.Grows(before) {
				flips++
			}
			before = verdict
			switch {
			case w.leaks:
				if age >= 3*time.Hour && !trend.Grows(verdict) {
					wrong++
				}
			case trend.Grows(verdict) && age >= w.bent, verdict == leak.VerdictSteady && age >= 20*time.Minute && age <= w.still:
				wrong++
			}
		}
		t.Logf("%s: %d flips, %d wrong: %s", w.name, flips, wrong, strings.Join(story, ", "))
		if flips > 2 || wrong > 0 {
			t.Errorf("%s: %d flips, %d wrong: %s", w.name, flips, wrong, strings.Join(story, ", "))
		}
	}
}
