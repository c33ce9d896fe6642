package tsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"stanch/internal/series"
)

// RemoteOptions say how samples are sent. Zero values mean the defaults.
type RemoteOptions struct {
	TokenFile  string            // a bearer token, read for each request, so that it may be replaced
	Version    string            // of stanch, for the User-Agent
	Labels     map[string]string // added to all series, to tell hosts apart: {"instance": "web1"}
	MaxPending int               // samples that wait at most; 250,000, of some 100 bytes
	MaxBatch   int               // samples of one request at most; 5,000
	Timeout    time.Duration     // of one request; 30 s
	Flush      time.Duration     // how long Close goes on sending; 5 s
	Log        *slog.Logger      // what an operator must know; nil: nobody is told
}

func (o RemoteOptions) withDefaults() RemoteOptions {
	if o.MaxPending <= 0 {
		o.MaxPending = 250_000
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 5_000
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Flush <= 0 {
		o.Flush = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Remote sends samples to a server that takes Prometheus' remote write 1.0
// (https://prometheus.io/docs/specs/prw/remote_write_spec/): Prometheus itself, Mimir,
// Thanos, VictoriaMetrics. Its methods may be called by several goroutines.
type Remote struct {
	o      RemoteOptions
	target string // the URL without user, password and query: those are secrets
	url    string // the URL without user and password
	user   *url.Userinfo
	client *http.Client

	mu     sync.Mutex
	queue  []series.Sample // those that wait, the oldest first
	flight int             // samples of the request that is on its way
	behind bool            // it was said that samples are dropped, and the queue was not empty since
	over   bool            // samples were dropped since that request was taken from the queue
	stats  RemoteStats
	closed bool

	// Of run alone:
	failures int               // in a row
	refusals map[int]time.Time // by status code, when a refusal was said last

	more   chan struct{}
	closes chan struct{} // closed by Close
	cancel context.CancelFunc
	done   chan struct{}
}

// RemoteStats is what a Remote has done so far.
type RemoteStats struct {
	Sent    uint64 // samples that the server has taken
	Dropped uint64 // samples that it refused, or that waited too long
	Pending int    // samples that wait
	Err     error  // of the last request, nil when it went well
}

// NewRemote makes a Remote that sends to a URL: http or https, with a user and a
// password for basic authentication in it if need be. Nothing is sent before
// Send. The error never tells the password.
func NewRemote(address string, o RemoteOptions) (*Remote, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil: // its text would tell all of the URL
		return nil, errors.New("remote write: the URL cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("remote write: want a URL like https://HOST:9090/api/v1/write, not one of scheme %q and host %q", u.Scheme, u.Host)
	}
	if o.TokenFile != "" {
		if u.User != nil {
			return nil, errors.New("remote write: a user in the URL and a token file: only one can be used")
		}
		if _, err := token(o.TokenFile); err != nil {
			return nil, fmt.Errorf("remote write: %w", err)
		}
	}
	r := &Remote{
		o: o.withDefaults(), user: u.User, more: make(chan struct{}, 1), closes: make(chan struct{}), done: make(chan struct{}),
		refusals: make(map[int]time.Time),
		client: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 10 * time.Second,
		},
			// A redirected POST may come out as a GET, which a server would thank for.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	u.User = nil
	r.url = u.String()
	u.RawQuery, u.Fragment = "", ""
	r.target = u.String()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go r.run(ctx)
	return r, nil
}

// token reads a bearer token.
func token(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("token: %s does not hold one line", path)
	}
	return text, nil
}

// Send takes samples to be sent. It never waits. What is too much for the queue
// pushes the oldest out, which is counted.
func (r *Remote) Send(samples []series.Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.stats.Dropped += uint64(len(samples))
		return
	}
	r.queue = append(r.queue, samples...)
	if over := len(r.queue) + r.flight - r.o.MaxPending; over > 0 {
		r.drop(min(over, len(r.queue)))
	}
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// drop forgets the oldest that wait; mu is held.
func (r *Remote) drop(n int) {
	if !r.behind {
		r.behind = true
		r.o.Log.Warn("remote write is too slow, the oldest samples are dropped", "url", r.target)
	}
	r.over = true
	r.stats.Dropped += uint64(n)
	r.cut(n)
}

// cut takes the first n from the queue; mu is held. The array goes on being used, and is
// given back when little of it is.
func (r *Remote) cut(n int) {
	left := len(r.queue) - n
	if cap(r.queue) > 4*left+r.o.MaxBatch {
		r.queue = append(make([]series.Sample, 0, left+r.o.MaxBatch), r.queue[n:]...)
		return
	}
	copy(r.queue, r.queue[n:])
	clear(r.queue[left:])
	r.queue = r.queue[:left]
}

// take gives the next batch, nil when nothing waits.
func (r *Remote) take() []series.Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.queue), r.o.MaxBatch)
	if n == 0 {
		return nil
	}
	batch := append([]series.Sample(nil), r.queue[:n]...)
	r.cut(n)
	r.flight, r.over = n, false
	return batch
}

// settle notes what became of a batch.
func (r *Remote) settle(n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flight = 0
	r.stats.Err = err
	if err != nil {
		r.stats.Dropped += uint64(n)
		return
	}
	r.stats.Sent += uint64(n)
	if len(r.queue) == 0 {
		r.behind = false
	}
}

// Stats tells what was sent.
func (r *Remote) Stats() RemoteStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Pending = len(r.queue) + r.flight
	return s
}

// Close sends what waits, for as long as RemoteOptions.Flush says, and ends. The error
// tells how many samples were not sent.
func (r *Remote) Close() error {
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	if !again {
		close(r.closes)
		late := time.AfterFunc(r.o.Flush, r.cancel)
		defer late.Stop()
	}
	<-r.done
	r.cancel()
	r.client.CloseIdleConnections()
	if n := r.Stats().Pending; n > 0 && !again {
		return fmt.Errorf("remote write to %s: %d samples were not sent", r.target, n)
	}
	return nil
}
