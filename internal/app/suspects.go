package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/ui/term"
	"stanch/internal/ui/web"
)

// suspectsFlags are the command line of suspects.
type suspectsFlags struct {
	out      output
	since    time.Duration
	all      bool // --since was not given: of a file all is read
	look     time.Duration
	data     string
	from     string
	interval time.Duration
	quiet    bool
}

func (a *app) suspects() *cobra.Command {
	var f suspectsFlags
	cmd := &cobra.Command{
		Use:   "suspects [NAME]",
		Short: "Who on this host is leaking, ranked by time to exhaustion; one service in detail (reads only)",
		Long: `suspects ranks the services of this host by when what they hold runs out, from what a running 'stanch watch'
has seen. It asks that watch; when none runs it reads the history of the last one; where there is none either
it samples all processes for 10 seconds, which shows who grows now and proves nothing.

With NAME - a service, a unit, a program or a PID - it shows that one: its timelines with limits, steps and
restarts, and which log lines come before growth.

--from reads the lines of a shell loop instead, such as
  while sleep 10; do ps -o rss=,vsz= -p 4711; done >> memory_4711.txt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			if err := f.check(name); err != nil {
				return err
			}
			f.all = !cmd.Flags().Changed("since")
			r, err := a.findSuspects(cmd.Context(), name, &f)
			if err != nil {
				return err
			}
			return a.tellSuspects(r, &f)
		},
	}
	f.out.flags(cmd)
	fl := cmd.Flags()
	f.since = 7 * 24 * time.Hour
	fl.Var(daysFlag{&f.since}, "since", "how far back to look; of a file all when not given")
	fl.DurationVar(&f.look, "for", 10*time.Second, "how long to sample when there is no history")
	fl.StringVar(&f.data, "data", "", "read the history in this directory, or ask the watch that writes it (default "+dataDir()+")")
	fl.StringVar(&f.from, "from", "", "read a file of rss and vsz lines instead")
	fl.DurationVar(&f.interval, "interval", 10*time.Second, "with --from: the time between two lines that have none")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	return cmd
}

func (f *suspectsFlags) check(name string) error {
	switch {
	case f.since <= 0:
		return usagef("--since takes a time such as 6h or 7d, not %v", f.since)
	case f.look < 2*time.Second:
		return usagef("--for is %v; growth needs 2s or more to be seen", f.look)
	case f.interval <= 0:
		return usagef("--interval takes a time such as 10s, not %v", f.interval)
	case f.from != "" && name != "":
		return usagef("--from reads a file, so there is no NAME to look for")
	case f.from != "" && f.data != "":
		return usagef("--from and --data exclude one another")
	}
	return f.out.check()
}

// findSuspects takes the best there is: a file that was named, a watch that
// runs, the history of one that ran, or a look of its own.
func (a *app) findSuspects(ctx context.Context, name string, f *suspectsFlags) (*leak.Report, error) {
	if f.from != "" {
		return a.plainHistory(ctx, f)
	}
	q := question{Service: name, Since: f.since, Charts: f.page()}
	sockets := []string{filepath.Join(runDir(), socketName), filepath.Join(dataDir(), socketName)}
	dir := dataDir()
	if f.data != "" {
		dir = f.data
		sockets = []string{filepath.Join(dir, socketName)}
	}
	for _, socket := range sockets {
		r, err := ask(ctx, socket, q)
		var unknown unknownError
		switch {
		case errors.As(err, &unknown):
			if a.lives(name) {
				if r, lookErr := a.quickLook(ctx, q, f); lookErr == nil {
					r.Notes = append(r.Notes, err.Error())
					return r, nil
				}
			}
			return nil, codeError{ExitUsage, err}
		case !errors.Is(err, errNoWatch):
			return r, err
		}
	}
	r, err := storedHistory(ctx, dir, q)
	switch {
	case err == nil:
		return r, nil
	case f.data != "" || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission):
		return nil, err
	}
	r, err = a.quickLook(ctx, q, f)
	if err == nil && closed(dir, "/run/stanch", "/var/lib/stanch") {
		r.Notes = append(r.Notes, "root keeps a history of this host, which may not be read here; 'sudo stanch suspects' shows it")
	}
	return r, err
}

// closed reports whether one of these directories is there and may not be
// read.
func closed(dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		_, err := os.ReadDir(dir)
		return errors.Is(err, os.ErrPermission)
	})
}

// lives reports whether a word means a process that runs; no word means all.
func (a *app) lives(word string) bool {
	if word == "" {
		return true
	}
	_, err := proc.Default.Resolve(word)
	var ambiguous *proc.AmbiguousError
	return err == nil || errors.As(err, &ambiguous)
}

// page reports whether the report is to be a page, which shows charts.
func (f *suspectsFlags) page() bool {
	format, err := f.out.renderer()
	return err == nil && format.Name == web.Format.Name
}

// storedHistory reads what a watch that has ended left behind. What it says of
// the last moments is what was true then.
func storedHistory(ctx context.Context, dir string, q question) (*leak.Report, error) {
	store, err := tsdb.OpenReadOnly(dir)
	if err != nil {
		return nil, err
	}
	newest := store.Newest()
	if newest == 0 {
		return nil, errors.Join(fmt.Errorf("%s holds no history: %w", dir, os.ErrNotExist), store.Close())
	}
	r, err := history(ctx, store, newest, q, nil)
	if err = errors.Join(err, store.Close()); err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes, fmt.Sprintf("no watch runs; this is the history in %s, which ends at %s", dir, time.UnixMilli(newest).Format("2006-01-02 15:04:05 MST")))
	return r, nil
}

// history answers a question from the past that ends at a time. When all
// services are asked for, those that steady says are steady are not judged.
func history(ctx context.Context, p tsdb.Reader, to int64, q question, steady func(service string) bool) (*leak.Report, error) {
	from := to - q.Since.Milliseconds()
	h, err := newHistorian(ctx, p, from, to)
	if err != nil {
		return nil, err
	}
	names, err := h.names(ctx)
	if err != nil {
		return nil, err
	}
	chosen := names
	switch {
	case q.Service != "":
		chosen, err = h.named(ctx, names, q.Service)
		if err == nil && len(chosen) == 0 {
			err = codeError{ExitUsage, unknownError{noService(q.Service, names)}}
		}
	case !q.Ended:
		chosen, err = h.living(ctx, names)
	}
	if err != nil {
		return nil, err
	}
	// A word may be a part of a thousand names: a watch that made all their charts
	// would need much memory for it.
	charts := q.Service != "" && len(chosen) <= mostDrawn
	var services []leak.ReportService
	for _, n := range chosen {
		if q.Service == "" && steady != nil && steady(n) {
			first, last := stretch(h.host, from, to)
			services = append(services, leak.ReportService{
				Name: n, Kind: kindOf(n), From: first, To: last,
				Trends: []leak.ReportTrend{{Resource: "all", Verdict: leak.VerdictSteady}},
			})
			continue
		}
		s, err := h.service(ctx, n, charts)
		if err != nil {
			return nil, err
		}
		services = append(services, s)
	}
	r := h.report(services)
	if q.Charts && !charts {
		err = h.draw(ctx, r)
	}
	return r, err
}

// plainHistory reads the file of a shell loop.
func (a *app) plainHistory(ctx context.Context, f *suspectsFlags) (*leak.Report, error) {
	file, err := os.Open(f.from)
	if err != nil {
		return nil, codeError{ExitUsage, err}
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	plain, err := series.ReadPlain(file, series.PlainOptions{Name: f.from, Interval: f.interval, Written: st.ModTime(), Location: time.Local})
	if err != nil {
		return nil, codeError{ExitUsage, err}
	}
	m := &sampled{}
	m.add(plain.Series...)
	q := question{Service: plain.Series[0].Key.Service, Ended: true, Charts: f.page(), Since: f.since}
	if f.all {
		q.Since = math.MaxInt64 // 292 years: a file of more is taken for that
		if all := m.newest - m.oldest + 1; all < q.Since.Milliseconds() {
			q.Since = time.Duration(all) * time.Millisecond
		}
	}
	if slices.ContainsFunc(plain.Series, func(s series.Series) bool { return s.Key.Service != q.Service }) {
		q.Service = "" // of several programs: they are ranked
	}
	r, err := history(ctx, m, m.newest, q, nil)
	if err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes, plain.Notes...)
	return r, nil
}

// sampled is a past that is in memory.
type sampled struct {
	series         []series.Series
	index          map[series.Key]int
	oldest, newest int64
}

// add takes whole series in.
func (m *sampled) add(all ...series.Series) {
	for _, s := range all {
		for _, p := range s.Points {
			m.sample(series.Sample{Key: s.Key, At: p.At, Value: p.Value})
		}
	}
}

// sample takes one value in; of each series in order of time.
func (m *sampled) sample(s series.Sample) {
	if m.index == nil {
		m.index = map[series.Key]int{}
		m.oldest = s.At
	}
	i, ok := m.index[s.Key]
	if !ok {
		i = len(m.series)
		m.index[s.Key] = i
		m.series = append(m.series, series.Series{Key: s.Key})
	}
	m.series[i].Points = append(m.series[i].Points, series.Point{At: s.At, Value: s.Value})
	m.oldest, m.newest = min(m.oldest, s.At), max(m.newest, s.At)
}

// Services implements tsdb.Reader.
func (m *sampled) Services(context.Context, int64, int64) ([]string, error) {
	seen := map[string]bool{}
	var names []string
	for _, s := range m.series {
		if name := s.Key.Service; !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Select implements tsdb.Reader; steps make nothing shorter here.
func (m *sampled) Select(_ context.Context, match tsdb.Match, from, to int64) ([]series.Series, error) {
	var out []series.Series
	for _, s := range m.series {
		switch {
		case match.Host && s.Key.Service != "", !match.Host && match.Service != "" && match.Service != s.Key.Service:
		case match.Worker != "" && match.Worker != s.Key.Worker, len(match.Metrics) > 0 && !slices.Contains(match.Metrics, s.Key.Metric):
		default:
			if s = s.Between(from, to); len(s.Points) > 0 {
				out = append(out, s)
			}
		}
	}
	return out, nil
}

// tellSuspects writes the report. Of one service the text has its timelines
// too.
func (a *app) tellSuspects(r *leak.Report, f *suspectsFlags) error {
	r.Normalize()
	format, err := f.out.renderer()
	if err != nil {
		return err
	}
	if format.Name != "json" {
		here(r)
	}
	if format.Name == "text" && len(r.Services) == 1 {
		f.out.after = func(w io.Writer) error {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
			return term.Charts(w, &r.Services[0], chartOptions(w))
		}
	}
	if err := f.out.write(a.std.Out, r); err != nil {
		return err
	}
	if code := f.out.code(r); code != ExitOK {
		return codeError{code, nil}
	}
	return nil
}

// here turns the times that people read into those of this machine's zone.
func here(r *leak.Report) {
	r.Observed.Start = r.Observed.Start.Local()
	for i := range r.Services {
		s := &r.Services[i]
		s.From, s.To = s.From.Local(), s.To.Local()
		for j := range s.Workers {
			s.Workers[j].Started = s.Workers[j].Started.Local()
		}
		for j := range s.Trends {
			if since := s.Trends[j].Since; since != nil {
				*since = since.Local()
			}
		}
		for j := range s.Marks {
			s.Marks[j].At = s.Marks[j].At.Local()
		}
	}
}
