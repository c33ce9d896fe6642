package app

import (
	"testing"
	"time"
)

func TestDaysFlag(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"7d": 7 * day, "2w": 14 * day, "1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute, "-1h": -time.Hour, "90m": 90 * time.Minute, "500ms": time.Second / 2,
	} {
		var got time.Duration
		if err := (daysFlag{&got}).Set(text); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "7", "a week", "1.5d", "9999999y"} {
		got := day
		if err := (daysFlag{&got}).Set(text); err == nil || got != day {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
	for d, want := range map[time.Duration]string{7 * day: "1w", 30 * day: "30d", day: "1d", 36 * time.Hour: "1d12h"} {
		if got := (daysFlag{&d}).String(); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
}
