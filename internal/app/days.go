package app

import (
	"fmt"
	"time"

	"github.com/prometheus/common/model"
)

// daysFlag is a time of hours or days on the command line: 90m, 36h, 7d, 2w.
type daysFlag struct{ to *time.Duration }

// String writes it as Set reads it.
func (d daysFlag) String() string {
	if d.to == nil { // pflag asks a zero value
		return ""
	}
	return model.Duration(*d.to).String()
}

// Type is what --help shows.
func (d daysFlag) Type() string { return "duration" }

// Set reads what time.ParseDuration knows, and days, weeks and years as
// Prometheus does.
func (d daysFlag) Set(s string) error {
	t, err := time.ParseDuration(s)
	if err != nil {
		long, err := model.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is no time such as 90m, 36h or 7d", s)
		}
		t = time.Duration(long)
	}
	*d.to = t
	return nil
}
