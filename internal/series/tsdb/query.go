package tsdb

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"stanch/internal/series"
)

// What one query may cost.
const (
	queryTimeout = 30 * time.Second
	querySamples = 2_000_000 // in memory at once, of 16 bytes and more: 140 MB were measured
	queryPoints  = 11_000    // per series of QueryRange, as in Prometheus
)

// Answer is the answer to a query in the form of Prometheus' HTTP API
// (https://prometheus.io/docs/prometheus/latest/querying/api/).
type Answer struct {
	Status    string   `json:"status"` // "success" or "error"
	Data      *Data    `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"` // "bad_data", "timeout", "canceled" or "execution"
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// Data is the result of a query that succeeded.
type Data struct {
	ResultType parser.ValueType `json:"resultType"` // "matrix", "vector", "scalar" or "string"
	Result     parser.Value     `json:"result"`
}

func newEngine() *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples:           querySamples,
		Timeout:              queryTimeout,
		LookbackDelta:        5 * time.Minute,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		Parser:               parser.NewParser(parser.Options{}),
	})
}

// Query evaluates PromQL at one time. The lines of logs are not there.
func (s *Store) Query(ctx context.Context, query string, at time.Time) Answer {
	return s.run(ctx, func(q storage.Queryable) (promql.Query, error) {
		return s.engine.NewInstantQuery(ctx, q, nil, query, at)
	})
}

// QueryRange evaluates PromQL at each step from one time to another.
func (s *Store) QueryRange(ctx context.Context, query string, from, to time.Time, step time.Duration) Answer {
	return s.run(ctx, func(q storage.Queryable) (promql.Query, error) {
		switch {
		case step <= 0:
			return nil, errors.New("the step must be more than zero")
		case to.Before(from):
			return nil, errors.New("the end is before the start")
		case to.Sub(from)/step > queryPoints:
			return nil, errors.New("more than 11,000 points per series: take a larger step")
		}
		return s.engine.NewRangeQuery(ctx, q, nil, query, from, to, step)
	})
}

func (s *Store) run(ctx context.Context, prepare func(storage.Queryable) (promql.Query, error)) Answer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	q, err := prepare(storage.QueryableFunc(s.public))
	if err != nil {
		return Answer{Status: "error", ErrorType: "bad_data", Error: err.Error()}
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return Answer{Status: "error", ErrorType: errorType(res.Err), Error: res.Err.Error()}
	}
	a := Answer{Status: "success", Data: &Data{res.Value.Type(), clone(res.Value)}}
	for _, w := range res.Warnings.AsErrors() {
		a.Warnings = append(a.Warnings, w.Error())
	}
	return a
}

// public reads all but what logs say: whoever may connect asks queries, and
// logs may be open to root alone.
func (s *Store) public(from, to int64) (storage.Querier, error) {
	q, err := s.querier(from, to)
	if err != nil {
		return nil, err
	}
	return withoutLogs{q}, nil
}

type withoutLogs struct{ storage.Querier }

var notLog = labels.MustNewMatcher(labels.MatchNotEqual, nameLabel, string(series.Log))

func (q withoutLogs) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	return q.Querier.Select(ctx, sorted, hints, append(slices.Clip(matchers), notLog)...)
}

func errorType(err error) string {
	var timeout promql.ErrQueryTimeout
	var canceled promql.ErrQueryCanceled
	switch {
	case errors.As(err, &timeout):
		return "timeout"
	case errors.As(err, &canceled):
		return "canceled"
	}
	return "execution"
}

// clone copies what a query gives: its points are used again by the next, and
// its labels may point into a block that goes.
func clone(v parser.Value) parser.Value {
	switch v := v.(type) {
	case promql.Vector:
		c := make(promql.Vector, len(v))
		for i, sample := range v {
			c[i] = sample
			c[i].Metric = sample.Metric.Copy()
		}
		return c
	case promql.Matrix:
		c := make(promql.Matrix, len(v))
		for i, one := range v {
			c[i] = promql.Series{Metric: one.Metric.Copy(), Floats: append([]promql.FPoint(nil), one.Floats...)}
		}
		return c
	}
	return v
}
