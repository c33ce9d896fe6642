package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"stanch/internal/leak"
	"stanch/internal/metrics"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/source/sampler"
)

// watch is a running watch: sampler -> store -> jury, with what asks it beside.
type watch struct {
	flags  *watchFlags
	say    func(format string, args ...any)
	host   *sampler.Host
	stamps sampler.Stamper
	store  *tsdb.Store
	remote *tsdb.Remote // nil without --remote-write
	page   *metrics.Page
	logs   *logBook
	keys   map[place]map[series.Key]bool // of the series that go on
	// trigger is nil without --diagnose-on.
	trigger *trigger

	mu     sync.Mutex // holds the jury, which the tick and the answers share
	jury   *jury
	said   map[string]bool // what need not be said twice
	failed string          // why the store took nothing at the last tick, "" when it did
	last   time.Time       // when the last tick ended
	stats  metrics.Stats
	server []*task
}

// place is a worker of a service.
type place struct{ service, worker string }

// judgedSince is how far back the jury looks.
const judgedSince = 7 * 24 * time.Hour

// newWatch makes a watch; nothing runs yet.
func (a *app) newWatch(ctx context.Context, word string, f *watchFlags) (*watch, error) {
	w := &watch{flags: f, say: a.sayer(), said: map[string]bool{}, keys: map[place]map[series.Key]bool{}, logs: newLogBook()}
	w.host = &sampler.Host{MinAge: f.minAge}
	if f.minAge == 0 {
		w.host.MinAge = -1 // none
	}
	if word != "" {
		if err := w.only(ctx, a, word); err != nil {
			return nil, err
		}
	}
	var err error
	if w.store, err = tsdb.Open(f.data, tsdb.Options{MaxBytes: int64(f.maxSize), Retention: f.retention, Log: logger(w.say)}); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = codeError{ExitUsage, fmt.Errorf("%w; --data takes a directory that may be written", err)}
		}
		return nil, err
	}
	if f.remote != "" {
		w.remote, err = tsdb.NewRemote(f.remote, tsdb.RemoteOptions{TokenFile: f.remoteToken, Version: a.version, Log: logger(w.say)})
		if err != nil {
			return nil, errors.Join(codeError{ExitUsage, err}, w.store.Close())
		}
	}
	w.page = metrics.NewPage(metrics.Options{Version: a.version})
	w.jury = newJury(w.store, f.judge, judgedSince)
	if err := w.resume(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	if f.diagnoseOn == "leak" {
		w.trigger = &trigger{dir: f.reportsDir(), every: f.diagnoseEvery, long: f.diagnoseFor, exe: "/proc/self/exe", say: w.say}
	}
	return w, nil
}

// only keeps to the service of one process.
func (w *watch) only(ctx context.Context, a *app, word string) error {
	t, err := a.resolve(word)
	if err != nil {
		return err
	}
	all := &sampler.Host{MinAge: -1}
	now, _ := (&sampler.Stamper{}).Now() // the watch's own has not begun
	if _, err := all.Sweep(ctx, now); err != nil {
		return errors.Join(err, all.Close())
	}
	for _, p := range all.Processes() {
		if p.ID == t.ID {
			w.host.Only = func(other *sampler.Process) bool { return other.Service == p.Service }
			return all.Close()
		}
	}
	return errors.Join(fmt.Errorf("%s has ended", word), all.Close())
}

// resumeSince is how far back an earlier watch's places are looked for.
const resumeSince = 24 * time.Hour

// smallStep is how far behind the history the clock may be and its times go
// on nevertheless.
const smallStep = time.Minute

// resume goes on where the last watch ended: with its times, its places, its
// services and its log templates.
func (w *watch) resume(ctx context.Context) error {
	newest := w.store.Newest()
	if newest == 0 {
		return nil
	}
	// A clock that was set back by more is for the store: it puts aside what is
	// from the future.
	if time.Since(time.UnixMilli(newest)) > -smallStep {
		w.stamps.After = newest
	}
	all, err := w.lastOf(ctx, []series.Metric{series.PID, series.Started}, newest, resumeSince)
	if err != nil {
		return err
	}
	known := map[place]*sampler.Process{}
	for _, s := range all {
		last, _ := s.Last()
		at := place{s.Key.Service, s.Key.Worker}
		if known[at] == nil {
			known[at] = &sampler.Process{Service: at.service, Worker: at.worker}
		}
		if s.Key.Metric == series.PID {
			known[at].ID.PID = int(last.Value)
		} else {
			known[at].Started = time.UnixMilli(int64(last.Value * 1000))
		}
	}
	for at, p := range known {
		w.host.Known = append(w.host.Known, *p)
		w.jury.resume(at, newest)
	}
	templates, err := w.lastOf(ctx, []series.Metric{series.Log}, newest, judgedSince)
	if err != nil {
		return err
	}
	w.logs.seed(templates)
	return nil
}

// lastOf reads series for their last points: of the others, which would be a
// gigabyte for thousands of processes, only a few come.
func (w *watch) lastOf(ctx context.Context, metrics []series.Metric, newest int64, since time.Duration) ([]series.Series, error) {
	all, err := w.store.Select(ctx, tsdb.Match{Metrics: metrics, Step: since.Milliseconds()}, newest-since.Milliseconds(), newest)
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	return all, nil
}

// serve opens what asks the watch: the unix socket in the data directory, the
// one that suspects finds by itself unless another watch has it, and --listen.
func (w *watch) serve(ctx context.Context) error {
	h := answer(w.answer)
	own, err := listenUnix(filepath.Join(w.flags.data, socketName))
	if err != nil {
		return err
	}
	w.serveOn(ctx, own, h)
	if l, err := listenUnix(filepath.Join(runDir(), socketName)); err == nil {
		w.serveOn(ctx, l, h)
	} else {
		w.say("'stanch suspects' finds this watch with --data %s only: %v", w.flags.data, err)
	}
	if w.flags.listen == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", w.page.Handler())
	mux.Handle("/api/v1/", queryAPI(w.store))
	l, err := metrics.Listen(w.flags.listen, w.flags.webConfig)
	if err != nil {
		return err
	}
	w.server = append(w.server, background(ctx, func(ctx context.Context) error {
		if err := metrics.Serve(ctx, l, w.flags.webConfig, mux); err != nil {
			w.say("%s is not served any more: %v", w.flags.listen, err)
		}
		return nil
	}))
	return nil
}

// serveOn answers on a unix socket until the watch ends.
func (w *watch) serveOn(ctx context.Context, l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	w.server = append(w.server, background(ctx, func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // who still waits for an answer sees the end
		defer stop()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			w.say("%s does not answer any more: %v", l.Addr(), err)
		}
		return nil
	}))
}

// run samples on each tick until ctx ends.
func (w *watch) run(ctx context.Context) error {
	w.logs.follow(ctx, w.flags, w.say)
	defer w.logs.end()
	dog := background(ctx, func(ctx context.Context) error { return watchdog(ctx, w.alive) })
	defer func() { _ = dog.end() }() // it has nothing to tell
	if err := w.tick(ctx); err != nil {
		return err
	}
	w.notify(notifyReady("watching, history in " + w.flags.data))
	defer func() { w.notify(notifyStopping()) }()
	ticker := time.NewTicker(w.flags.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := w.tick(ctx); err != nil {
			return err
		}
	}
}

// alive reports whether ticks go on, for systemd's watchdog.
func (w *watch) alive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last.IsZero() || time.Since(w.last) < 3*w.flags.every+time.Minute
}

// notify says what the service manager could not be told; the watch goes on.
func (w *watch) notify(err error) {
	if err != nil {
		w.once("%v", err)
	}
}

// tick takes one sample of everything and keeps it, and judges whose turn it
// is. Only what leaves nothing to watch with is an error.
func (w *watch) tick(ctx context.Context) error {
	began := time.Now()
	now, jumps := w.stamps.Now()
	sweep, err := w.host.Sweep(ctx, now)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("sample the host: %w", err)
	}
	for _, n := range sweep.Notes {
		w.once("%s", n)
	}
	for _, j := range jumps {
		w.say("%s", clockWords(j))
	}
	samples := append(append(sweep.Samples, jumps...), w.logs.take(now.At)...)
	w.kept(w.store.Append(samples))
	w.page.Update(samples)
	if w.remote != nil {
		w.remote.Send(samples)
	}
	gone, left := w.gone(samples, sweep.Ended)
	w.store.Forget(gone)

	w.mu.Lock()
	w.jury.note(samples)
	w.jury.leave(left, now.At)
	changes, err := w.jury.sit(ctx, now.At)
	growing := w.jury.growing()
	w.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		w.once("%v", err)
	}
	for _, c := range changes {
		w.say("%s", c)
	}
	w.page.Verdicts(growing)
	w.diagnose(ctx, growing)
	w.count(samples, time.Since(began))
	return nil
}

// clockWords says what happened to the clock.
func clockWords(s series.Sample) string {
	long := leak.FormatDuration(time.Duration(math.Abs(s.Value) * float64(time.Second)))
	switch {
	case s.Key.Metric == series.Suspended:
		return "the host was suspended for " + long
	case s.Value > 0:
		return "the clock was set forward by " + long + "; the history goes on from there"
	}
	return "the clock was set back by " + long + "; the times in the history stay ahead of it until it has caught up"
}

// gone are the series of the places that nobody has any more, and those places;
// it notes the series of the others. With the last worker of a service goes what
// the service has once: its cgroup.
func (w *watch) gone(samples []series.Sample, ended []sampler.Process) (gone []series.Key, left []place) {
	now, running := map[place]bool{}, map[string]bool{}
	for i := range samples {
		k := &samples[i].Key
		at := place{k.Service, k.Worker}
		if w.keys[at] == nil {
			w.keys[at] = map[series.Key]bool{}
		}
		w.keys[at][*k] = true
		if k.Metric == series.PID {
			now[at], running[at.service] = true, true
		}
	}
	leave := func(at place) {
		for k := range w.keys[at] {
			gone = append(gone, k)
		}
		delete(w.keys, at)
		left = append(left, at)
		w.page.Forget(at.service, at.worker)
	}
	for _, p := range ended {
		if at := (place{p.Service, p.Worker}); !now[at] { // else another process has it
			leave(at)
		}
		if !running[p.Service] {
			leave(place{p.Service, ""})
		}
	}
	return gone, left
}

// diagnose pulls the trigger for the processes whose verdict says that they
// grow. A verdict may be minutes old, and its PID have another owner by now: the
// process must be the one that was seen at its place a moment ago.
func (w *watch) diagnose(ctx context.Context, growing []leak.ReportService) {
	if w.trigger == nil || len(growing) == 0 {
		return
	}
	living := map[place]sampler.Process{}
	for _, p := range w.host.Processes() {
		living[place{p.Service, p.Worker}] = p
	}
	for i := range growing {
		for _, t := range growing[i].Trends {
			if p, ok := living[place{growing[i].Name, t.Worker}]; ok && p.ID.PID == t.PID {
				w.trigger.pull(ctx, p, time.Now())
			}
		}
	}
}

// kept says what came of an append. A disk that is full stops nothing: it is
// said when it begins and when it ends.
func (w *watch) kept(err error) {
	why := ""
	switch {
	case errors.Is(err, tsdb.ErrFull):
		why = tsdb.ErrFull.Error() // how much is free is another each time
	case err != nil:
		why = err.Error()
	}
	switch {
	case why == w.failed:
	case err != nil:
		w.say("the history is not written: %v", err)
	default:
		w.say("the history is written again")
	}
	w.failed = why
}

// once says a line that was not said before.
func (w *watch) once(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !w.said[line] && len(w.said) < 1000 {
		w.said[line] = true
		w.say("%s", line)
	}
}

// count gives the page what it tells of the watch itself.
func (w *watch) count(samples []series.Sample, long time.Duration) {
	w.mu.Lock()
	w.last = time.Now()
	w.mu.Unlock()
	store := w.store.Stats()
	w.stats.Sweep = long
	w.stats.Samples += uint64(len(samples))
	w.stats.Store = metrics.StoreStats{Series: store.Series, Appended: store.Appended, Dropped: store.Dropped, Bytes: store.Bytes, Failed: store.Failed}
	if w.remote != nil {
		r := w.remote.Stats()
		w.stats.Remote = &metrics.RemoteStats{Sent: r.Sent, Dropped: r.Dropped, Pending: r.Pending}
	}
	w.page.Watching(w.stats)
}

// answer answers suspects.
func (w *watch) answer(ctx context.Context, q question) (*leak.Report, error) {
	newest := w.store.Newest()
	if newest == 0 {
		return nil, unknownError{errors.New("the watch has just begun, and has nothing yet")}
	}
	r, err := history(ctx, w.store, newest, q, func(service string) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.jury.steady(service, newest)
	})
	if err != nil {
		return nil, err
	}
	examples := w.logs.examples()
	for i := range r.Services {
		for j := range r.Services[i].Logs {
			l := &r.Services[i].Logs[j]
			l.Example = examples[l.Template]
		}
	}
	return r, nil
}

// close ends what asks the watch, then the watch itself.
func (w *watch) close() error {
	for _, s := range w.server {
		_ = s.end() // a server says its errors itself
	}
	err := w.trigger.end()
	if w.remote != nil {
		if failed := w.remote.Close(); failed != nil { // the history has them
			w.say("%v", failed)
		}
	}
	return errors.Join(err, w.host.Close(), w.store.Close())
}
