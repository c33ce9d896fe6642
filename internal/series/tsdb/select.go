package tsdb

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"stanch/internal/series"
)

// Reader is history that can be read: a Store, or a Prometheus elsewhere.
type Reader interface {
	// Select gives the series that match, in order of their keys, with the
	// points from <= At <= to, Unix ms. Those without such a point are left out.
	Select(ctx context.Context, m Match, from, to int64) ([]series.Series, error)
	// Services lists, in order, of whom there is something in that time; "" is
	// the host itself.
	Services(ctx context.Context, from, to int64) ([]string, error)
}

var _ Reader = (*Store)(nil)

// Match says which series are wanted; the zero value wants all.
type Match struct {
	Service string
	Host    bool // what belongs to no service: the host itself; Service is ignored
	Worker  string
	Metrics []series.Metric
	// Step thins out: of each step of so many ms, counted from 1970, the first, the
	// smallest, the largest and the last point are given, as they are. 0: every point.
	Step int64
}

func (m Match) matchers() ([]*labels.Matcher, error) {
	var list []*labels.Matcher
	var failed error
	add := func(kind labels.MatchType, name, value string) {
		matcher, err := labels.NewMatcher(kind, name, value)
		if err != nil {
			failed = err
		}
		list = append(list, matcher)
	}
	switch {
	case m.Host:
		add(labels.MatchEqual, serviceLabel, "")
	case m.Service != "":
		add(labels.MatchEqual, serviceLabel, escape(m.Service))
	}
	if m.Worker != "" {
		add(labels.MatchEqual, workerLabel, escape(m.Worker))
	}
	switch len(m.Metrics) {
	case 0:
		add(labels.MatchNotEqual, nameLabel, "")
	case 1:
		add(labels.MatchEqual, nameLabel, escape(string(m.Metrics[0])))
	default:
		names := make([]string, len(m.Metrics))
		for i, name := range m.Metrics {
			names[i] = regexp.QuoteMeta(escape(string(name)))
		}
		add(labels.MatchRegexp, nameLabel, strings.Join(names, "|"))
	}
	return list, failed
}

// Select implements Reader. A damaged block found on the way is set aside, and
// the rest is given.
func (s *Store) Select(ctx context.Context, m Match, from, to int64) ([]series.Series, error) {
	found, err := s.selectOnce(ctx, m, from, to)
	if err != nil && ctx.Err() == nil && s.removeDamaged() {
		return s.selectOnce(ctx, m, from, to)
	}
	return found, err
}

func (s *Store) selectOnce(ctx context.Context, m Match, from, to int64) ([]series.Series, error) {
	matchers, err := m.matchers()
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	q, err := s.querier(from, to)
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }()
	set := q.Select(ctx, true, &storage.SelectHints{Start: from, End: to}, matchers...)
	var found []series.Series
	var it chunkenc.Iterator
	room := 0
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one := set.At()
		it = one.Iterator(it)
		points := collect(it, m.Step, room)
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", one.Labels(), err)
		}
		if len(points) == 0 {
			continue
		}
		room = len(points) + len(points)/64
		found = append(found, series.Series{Key: keyOf(one.Labels()), Points: points})
	}
	if err := set.Err(); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	slices.SortFunc(found, func(a, b series.Series) int { return compareKeys(a.Key, b.Key) })
	return found, nil
}

func compareKeys(a, b series.Key) int {
	return cmp.Or(
		cmp.Compare(a.Service, b.Service), cmp.Compare(a.Metric, b.Metric),
		cmp.Compare(len(a.Worker), len(b.Worker)), cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Part, b.Part),
	)
}

// collect reads the points of one series, about so many.
func collect(it chunkenc.Iterator, step int64, about int) []series.Point {
	if step > 0 {
		return collectSteps(it, step)
	}
	points := make([]series.Point, 0, about)
	for it.Next() == chunkenc.ValFloat {
		at, v := it.At()
		points = append(points, series.Point{At: at, Value: v})
	}
	return points
}

// collectSteps reads the first, smallest, largest and last point of each step.
func collectSteps(it chunkenc.Iterator, step int64) (points []series.Point) {
	var first, low, high, last series.Point
	end := int64(math.MinInt64)
	put := func() {
		if low.At > high.At {
			low, high = high, low
		}
		for _, p := range [...]series.Point{first, low, high, last} {
			if len(points) == 0 || points[len(points)-1].At < p.At {
				points = append(points, p)
			}
		}
	}
	began := false
	for it.Next() == chunkenc.ValFloat {
		at, v := it.At()
		p := series.Point{At: at, Value: v}
		if at >= end {
			if began {
				put()
			}
			began = true
			first, low, high = p, p, p
			end = at - mod(at, step) + step
		}
		if v < low.Value {
			low = p
		}
		if v > high.Value {
			high = p
		}
		last = p
	}
	if began {
		put()
	}
	return points
}

// mod is the remainder, never below zero.
func mod(a, n int64) int64 { return ((a % n) + n) % n }

// Services implements Reader.
func (s *Store) Services(ctx context.Context, from, to int64) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	q, err := s.querier(from, to)
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }()
	set := q.Select(ctx, false, &storage.SelectHints{Start: from, End: to, Func: "series"}, labels.MustNewMatcher(labels.MatchNotEqual, nameLabel, ""))
	seen := make(map[string]bool)
	for set.Next() {
		if name := set.At().Labels().Get(serviceLabel); !seen[name] {
			seen[strings.Clone(name)] = true
		}
	}
	if err := set.Err(); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, unescape(name))
	}
	slices.Sort(names)
	return names, nil
}
