package main

import (
	"context"
	"log"
	"math"
	"math/rand/v2"
	"time"
)

// shape is how the load goes over a recording: at says, of a moment between 0
// (the beginning) and 1 (the end), what part of the full rate is asked for.
type shape struct {
	doc string
	at  func(moment float64) float64
}

var (
	steady = shape{"steady", func(float64) float64 { return 1 }}
	waves  = shape{"five waves, from nearly nothing to the full rate and back", func(m float64) float64 {
		return 0.5 - 0.48*math.Cos(2*math.Pi*5*m)
	}}
	shifts = shape{"work and idle by turns, with a burst of four times the rate in the middle", func(m float64) float64 {
		switch {
		case m < 0.20, m >= 0.30 && m < 0.48, m >= 0.52 && m < 0.70, m >= 0.85:
			return 1
		case m >= 0.48 && m < 0.52:
			return 4
		}
		return 0
	}}
	turns     = shape{"work and idle by turns", func(m float64) float64 { return min(shifts.at(m), 1) }}
	idleFirst = shape{"idle for the first quarter, then work that doubles in three steps", func(m float64) float64 {
		switch {
		case m < 0.25:
			return 0
		case m < 0.50:
			return 0.5
		case m < 0.75:
			return 1
		}
		return 2
	}}
)

// load does work on s until ctx ends: units of it, one after the other, that
// begin at random as those of many independent clients do.
func (s *subject) load(ctx context.Context, length time.Duration) {
	if s.drive != nil {
		s.drive(ctx, length)
		return
	}
	start, failed := time.Now(), 0
	for {
		rate := s.rate * s.shape.at(float64(time.Since(start))/float64(length))
		wait, work := time.Second/4, false
		if rate > 0 {
			// What has no memory may be drawn anew: no wait sleeps through a
			// change of the shape.
			next := time.Duration(rand.ExpFloat64() / rate * float64(time.Second))
			wait, work = min(next, time.Second), next < time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if !work {
			continue
		}
		if err := s.work(); err != nil && ctx.Err() == nil {
			if failed++; failed <= 3 {
				log.Printf("%s: %v", s.name, err)
			}
		}
	}
}
