// Package series is the vocabulary of history: what is measured of whom, as
// points in time. It is pure: the sampler says samples, a store keeps them,
// package trend concludes from them.
package series

import (
	"cmp"
	"slices"
)

// Metric is the name of what is measured, as Prometheus names metrics: the
// unit is its suffix, and what only ever counts up ends in _total.
type Metric string

// Key says of what a series is. It is comparable. A process is named by its
// service and its place among the workers of it, not by its PID: that is a
// value, PID, and a restart changes it while the series goes on.
type Key struct {
	Metric  Metric
	Service string // "nginx.service", "docker/1f2e3d4c5b6a", "collectd -C /etc/collectd.conf"; "" for the host itself
	Worker  string // "0", "1", ... of a process; "" for what a service has once: its cgroup
	Part    string // value of the metric's own label, where it has one: see Info.Part
}

// Sample is one value of one series. At is Unix time in milliseconds.
type Sample struct {
	Key   Key
	At    int64
	Value float64
}

// Point is one value of a series at a time; At is Unix time in milliseconds.
type Point struct {
	At    int64
	Value float64
}

// Series is what was measured, in order of time, one point a time.
type Series struct {
	Key    Key
	Points []Point
}

// Between gives the points with from <= At <= to. It shares the array of s.
func (s Series) Between(from, to int64) Series {
	low, _ := slices.BinarySearchFunc(s.Points, from, func(p Point, at int64) int { return cmp.Compare(p.At, at) })
	high, _ := slices.BinarySearchFunc(s.Points, to+1, func(p Point, at int64) int { return cmp.Compare(p.At, at) })
	return Series{s.Key, s.Points[low:max(low, high)]}
}

// Last is the newest value; ok is false when there is none.
func (s Series) Last() (p Point, ok bool) {
	if len(s.Points) == 0 {
		return Point{}, false
	}
	return s.Points[len(s.Points)-1], true
}
