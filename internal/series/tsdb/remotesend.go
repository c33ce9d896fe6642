package tsdb

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"stanch/internal/series"
)

// How long it is waited after a request that failed: the first time, and at
// most. A server may ask for more, but not for more than maxAsked.
const (
	// sayFrom is how many failures in a row are said: a request that works at the
	// second try is of no interest, and some servers turn away one in ten.
	sayFrom = 2

	firstPause = 500 * time.Millisecond
	longPause  = 30 * time.Second
	maxAsked   = 5 * time.Minute
)

// sayAgain is how long refusals of one status code are not said again: some servers tell a series
// and a time in each.
const sayAgain = time.Hour

// run sends batches until Close, and then what is left.
func (r *Remote) run(ctx context.Context) {
	defer close(r.done)
	for ctx.Err() == nil {
		batch := r.take()
		if batch == nil {
			select {
			case <-r.more:
				continue
			case <-r.closes:
			}
			if batch = r.take(); batch == nil {
				return
			}
		}
		r.deliver(ctx, batch)
	}
}

// deliver sends one batch until it is taken, refused for good, or pushed out by newer samples: one that makes
// a server fail must not hold up all others. When ctx ends it counts as pending.
func (r *Remote) deliver(ctx context.Context, batch []series.Sample) {
	body, err := encode(batch, r.o.Labels)
	if err != nil {
		r.refused(len(batch), errRefused{text: err.Error()})
		return
	}
	for {
		wait, err := r.post(ctx, body)
		var final errRefused
		switch {
		case err == nil:
			if r.failures >= sayFrom {
				r.o.Log.Warn("remote write works again", "url", r.target)
			}
			r.failures = 0
			r.settle(len(batch), nil)
			return
		case errors.As(err, &final):
			r.refused(len(batch), final)
			return
		case ctx.Err() != nil:
			return
		}
		if r.failures++; r.failures == sayFrom {
			r.o.Log.Warn("remote write failed, it is tried again", "url", r.target, "err", err)
		}
		r.failing(err)
		pause := min(firstPause<<min(r.failures-1, 10), longPause)
		select {
		case <-time.After(max(wait, pause)):
		case <-ctx.Done():
			return
		}
		if r.pushedOut() {
			r.settle(len(batch), err)
			return
		}
	}
}

// pushedOut says whether there is no room any more for what was taken from the queue, the oldest of all.
func (r *Remote) pushedOut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
}

// refused notes a batch that will never be taken.
func (r *Remote) refused(n int, err errRefused) {
	if last, said := r.refusals[err.code]; !said || time.Since(last) >= sayAgain {
		r.refusals[err.code] = time.Now()
		r.o.Log.Error("remote write: samples are refused and dropped", "url", r.target, "samples", n, "err", err)
	}
	r.settle(n, err)
}

func (r *Remote) failing(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Err = err
}

// errRefused is an answer that will be the same next time.
type errRefused struct {
	code int // of HTTP; 0 when nothing was sent
	text string
}

func (e errRefused) Error() string { return e.text }

// post sends one request. wait is how long the server asks to be left alone.
func (r *Remote) post(ctx context.Context, body []byte) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return 0, errRefused{text: "the request cannot be made"}
	}
	if err := r.setHeaders(req.Header); err != nil {
		return 0, err
	}
	if r.user != nil {
		password, _ := r.user.Password()
		req.SetBasicAuth(r.user.Username(), password)
	}
	res, err := r.client.Do(req)
	if err != nil {
		var wrapped *url.Error // tells the query of the URL
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	switch code := res.StatusCode; {
	case code/100 == 2:
		return 0, nil
	case code/100 == 5 || code == http.StatusTooManyRequests:
		return asked(res.Header.Get("Retry-After"), time.Now()), errors.New(answer(res.Status, text))
	}
	return 0, errRefused{res.StatusCode, answer(res.Status, text)}
}

func (r *Remote) setHeaders(h http.Header) error {
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("Content-Encoding", "snappy")
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	h.Set("User-Agent", "stanch/"+r.o.Version)
	if r.o.TokenFile == "" {
		return nil
	}
	text, err := token(r.o.TokenFile)
	if err != nil {
		return err // it may be just being replaced
	}
	h.Set("Authorization", "Bearer "+text)
	return nil
}

// asked reads a Retry-After: seconds, or a date.
func asked(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(n, 0), int(maxAsked/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), maxAsked)
	}
	return 0
}

// answer tells what a server answers, with the beginning of its text on one line.
func answer(status string, text []byte) string {
	words := strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "?")), " ")
	if words == "" {
		return "the server answers " + status
	}
	return "the server answers " + status + ": " + words
}

// encode makes the body of a request: a series once, its samples in order of time.
func encode(samples []series.Sample, extra map[string]string) ([]byte, error) {
	var req prompb.WriteRequest
	at := make(map[series.Key]int)
	for _, s := range samples {
		i, ok := at[s.Key]
		if !ok {
			i = len(req.Timeseries)
			at[s.Key] = i
			req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: remoteLabels(s.Key, extra)})
		}
		req.Timeseries[i].Samples = append(req.Timeseries[i].Samples, prompb.Sample{Timestamp: s.At, Value: s.Value})
	}
	for _, ts := range req.Timeseries {
		slices.SortStableFunc(ts.Samples, func(a, b prompb.Sample) int {
			return int(min(max(a.Timestamp-b.Timestamp, -1), 1))
		})
	}
	raw, err := req.Marshal()
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, raw), nil
}

// remoteLabels are the labels of a series and those of this host, in order of
// their names; the series' own win.
func remoteLabels(k series.Key, extra map[string]string) []prompb.Label {
	own := labelsOf(k)
	list := make([]prompb.Label, 0, own.Len()+len(extra))
	own.Range(func(l labels.Label) { list = append(list, prompb.Label{Name: l.Name, Value: l.Value}) })
	for name, value := range extra {
		if !own.Has(name) && value != "" {
			list = append(list, prompb.Label{Name: name, Value: escape(value)})
		}
	}
	slices.SortFunc(list, func(a, b prompb.Label) int { return strings.Compare(a.Name, b.Name) })
	return list
}
