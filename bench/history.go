package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"time"

	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/trend"
)

// history measures what a week of 50 processes takes on the disk, and how long
// it takes to read one service of it and to judge. The store is the one of a
// watch, that gets a week within a minute.
func history(b *bench) []figure {
	const (
		week  = 7 * 24 * time.Hour
		every = 10 * time.Second
	)
	dir := b.TempDir()
	s, err := tsdb.Open(dir, tsdb.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	from := time.Date(2026, 9, 7, 8, 30, 7, 0, time.UTC).UnixMilli()
	to := from + week.Milliseconds()
	began := time.Now()
	busy := newCrowd(50)
	for at := from; at < to; at += every.Milliseconds() {
		// A ticker wakes late, by some milliseconds.
		if err := s.Append(busy.tick(at + rand.Int64N(4))); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	stats := s.Stats()
	bytes := diskBytes(b, dir)
	b.Logf("%d samples in %v, %d dropped, %.1f MB", stats.Appended, time.Since(began).Round(time.Second), stats.Dropped, float64(bytes)/1e6)

	var opens, reads, judges, totals []float64
	points := 0
	for range 7 {
		began := time.Now()
		past, err := tsdb.OpenReadOnly(dir)
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Now()
		h := &trend.History{Service: "service-7.service", From: from, To: past.Newest()}
		if h.Series, err = past.Select(context.Background(), tsdb.Match{Service: h.Service}, h.From, h.To); err != nil {
			b.Fatal(err)
		}
		if h.Host, err = past.Select(context.Background(), tsdb.Match{Host: true}, h.From, h.To); err != nil {
			b.Fatal(err)
		}
		read := time.Now()
		result := trend.Judge(h)
		judged := time.Now()
		if len(result.Trends) == 0 {
			b.Fatal("nothing is concluded of a week")
		}
		points = 0
		for _, one := range h.Series {
			points += len(one.Points)
		}
		if err := past.Close(); err != nil {
			b.Fatal(err)
		}
		opens = append(opens, ms(opened.Sub(began)))
		reads = append(reads, ms(read.Sub(opened)))
		judges = append(judges, ms(judged.Sub(read)))
		totals = append(totals, ms(judged.Sub(opened)))
	}
	return []figure{{
		name: "history, a week of 50 processes at 10 s", value: float64(bytes) / float64(stats.Appended), bound: 2, unit: "B/sample",
		beside: fmt.Sprintf("%.0f MB in all, index and log included", float64(bytes)/1e6),
	}, {
		name: "history, one service over a week read and judged", value: median(totals), bound: 300, unit: "ms",
		beside: fmt.Sprintf("%d points; reading %.0f ms, judging %.0f ms; opening it where no watch runs %.0f ms", points, median(reads), median(judges), median(opens)),
	}}
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// diskBytes sums up what a directory holds.
func diskBytes(b *bench, dir string) (n int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// crowd is made-up processes that behave as real ones do: most numbers stay for
// a while, some make noise in pages, counters go up by a bit more or less.
type crowd struct {
	random *rand.Rand
	list   []*worker
	ticks  int
	out    []series.Sample
}

// worker is one process.
type worker struct {
	service                                string
	busy                                   float64 // the chance that it did something in a tick
	leak                                   float64 // pages a tick
	heap, mapped, fds, threads             float64
	cpu, minor, major, started, read, sent float64
	pid                                    float64
}

func newCrowd(n int) *crowd {
	c := &crowd{random: rand.New(rand.NewPCG(1, 2))}
	for i := range n {
		w := &worker{
			service: fmt.Sprintf("service-%d.service", i), busy: []float64{0.02, 0.1, 0.3, 0.8, 1}[i%5],
			heap: float64(2_000 + c.random.IntN(100_000)), mapped: float64(100_000 + c.random.IntN(1_000_000)),
			fds: float64(8 + c.random.IntN(200)), threads: float64(1 + c.random.IntN(40)),
			started: 1_788_000_000 + float64(c.random.IntN(100_000)), pid: float64(300 + i*17),
		}
		if i%10 == 7 {
			w.leak = 0.5
		}
		c.list = append(c.list, w)
	}
	return c
}

const pageSize = 4096

// tick gives the samples of one sweep.
func (c *crowd) tick(at int64) []series.Sample {
	c.out = c.out[:0]
	r := c.random
	for i, w := range c.list {
		key := series.Key{Service: w.service, Worker: "0"}
		put := func(m series.Metric, v float64) {
			key.Metric, key.Part = m, ""
			c.out = append(c.out, series.Sample{Key: key, At: at, Value: v})
		}
		if r.Float64() < w.busy {
			w.work(r)
		}
		put(series.RSS, (w.heap+3000)*pageSize)
		put(series.Anonymous, w.heap*pageSize)
		put(series.Virtual, w.mapped*pageSize)
		put(series.FDs, w.fds)
		put(series.Threads, w.threads)
		put(series.CPU, w.cpu/100)
		put(series.Minor, w.minor)
		put(series.Major, w.major)
		put(series.Started, w.started)
		put(series.PID, w.pid)
		if c.ticks%6 == i%6 { // once a minute
			put(series.Data, (w.heap+9000)*pageSize)
			put(series.Swap, 0)
			put(series.PSS, (w.heap+700)*pageSize)
			put(series.PrivateDirty, w.heap*pageSize)
			put(series.FDLimit, 1024)
			put(series.Received, w.read)
			put(series.Sent, w.sent)
		}
	}
	c.host(at)
	c.ticks++
	return c.out
}

// work is what a process does in a tick in which it does something.
func (w *worker) work(r *rand.Rand) {
	w.heap += w.leak
	if r.Float64() < 0.4 {
		w.heap += float64(r.IntN(64) - 32)
	}
	if w.heap < 500 {
		w.heap = 500
	}
	if r.Float64() < 0.01 {
		w.mapped += float64(r.IntN(512) - 256)
	}
	if r.Float64() < 0.2 {
		w.fds = max(4, w.fds+float64(r.IntN(3)-1))
	}
	if r.Float64() < 0.01 {
		w.threads = max(1, w.threads+float64(r.IntN(3)-1))
	}
	w.cpu += float64(r.IntN(1 + int(w.busy*40))) // in ticks of 10 ms
	w.minor += float64(r.IntN(200))
	if r.Float64() < 0.001 {
		w.major++
	}
	w.read += float64(r.IntN(100_000))
	w.sent += float64(r.IntN(100_000))
}

// host is what is said of the host itself.
func (c *crowd) host(at int64) {
	for _, v := range []struct {
		metric series.Metric
		value  float64
	}{
		{series.HostMemory, 16 << 30}, {series.HostAvailable, 8<<30 + float64(c.random.IntN(20_000))*pageSize},
		{series.HostCommitted, 12<<30 + float64(c.random.IntN(9_000))*pageSize}, {series.HostCommitLimit, 24 << 30},
		{series.HostFiles, 3000 + float64(c.random.IntN(30)*32)}, {series.HostFilesMax, 1 << 20},
		{series.HostProcesses, 200 + float64(c.random.IntN(4))},
	} {
		c.out = append(c.out, series.Sample{Key: series.Key{Metric: v.metric}, At: at, Value: v.value})
	}
}
