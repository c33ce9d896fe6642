package trend

import (
	"fmt"
	"time"

	"stanch/internal/series"
)

// Periodic takes out a rhythm: the time of day, a job every hour.
var Periodic = &Detector{
	Name:    "trend.periodic",
	Doc:     "goes up and down in an even rhythm",
	Assumes: "the rhythm is even and was seen 2.2 times at least",
	Run:     periodic,
}

func periodic(p *Pass) {
	c := &p.curve
	r, ok := series.FindRhythm(c.x, c.mean)
	if !ok {
		return
	}
	for i := range r.Wave {
		c.low[i] -= r.Wave[i]
		c.mean[i] -= r.Wave[i]
	}
	p.rhythm(fmt.Sprintf("goes up and down every %s, which is taken out", since(time.Duration(r.Period*float64(time.Hour)))))
}
