package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"stanch/internal/logs"
	"stanch/internal/proc"
	"stanch/internal/series"
	"stanch/internal/source/logfile"
)

// logBin is how long the stretches are that lines are counted in, ms.
const logBin = 100

// logHold is how long a stretch is kept open for lines that come late, ms.
const logHold = 1000

// logKinds is how many templates a service has at most, or all log files have.
const logKinds = 200

// logOldest is how old lines may be, ms: the store takes none that are older.
const logOldest = 3600_000

// logBook counts the lines of logs by template. Who follows a log says lines;
// the watch takes the counts as samples. Lines of files belong to no service
// in particular, those of a unit's journal to the unit.
type logBook struct {
	say       func(string, ...any)
	mu        sync.Mutex
	told      map[string]bool            // what need not be said twice
	templates map[string]*logs.Templates // by service
	open      map[series.Key]map[int64]float64
	taken     map[series.Key]int64 // the newest stretch that was handed on, of those that are not too old
	ahead     int64                // ms: while a clock that was set back catches up, samples have later times than it
	followers []*task
}

func newLogBook() *logBook {
	return &logBook{
		say: func(string, ...any) {}, told: map[string]bool{}, templates: map[string]*logs.Templates{},
		open: map[series.Key]map[int64]float64{}, taken: map[series.Key]int64{},
	}
}

// seed takes the templates that the history has, so that a line keeps its name.
// Where there is no room for all, those that were seen last go on.
func (b *logBook) seed(known []series.Series) {
	newest := func(s series.Series) int64 {
		last, _ := s.Last()
		return last.At
	}
	known = slices.Clone(known)
	slices.SortStableFunc(known, func(x, y series.Series) int { return cmp.Compare(newest(y), newest(x)) })
	byService := map[string][]string{}
	for _, s := range known {
		byService[s.Key.Service] = append(byService[s.Key.Service], s.Key.Part)
	}
	for service, templates := range byService {
		b.of(service).Seed(templates)
	}
}

func (b *logBook) of(service string) *logs.Templates {
	t := b.templates[service]
	if t == nil {
		t = logs.NewTemplates(logs.Options{Max: logKinds, Mask: proc.MaskText})
		b.templates[service] = t
	}
	return t
}

// line counts a line. That lines are not counted is said once.
func (b *logBook) line(service string, l logfile.Line) {
	b.mu.Lock()
	why := b.count(service, l)
	if b.told[why] {
		why = ""
	}
	b.told[why] = true
	b.mu.Unlock()
	if why != "" {
		b.say("%s", why)
	}
}

// count counts a line, or tells why it does not.
func (b *logBook) count(service string, l logfile.Line) (why string) {
	name := "the log files"
	if service != "" {
		name = "the journal of " + service
	}
	t := b.of(service)
	key := series.Key{Metric: series.Log, Service: service, Part: t.Add(l.Text)}
	if key.Part == "" {
		if t.Refused() > 0 {
			return fmt.Sprintf("there are more than %d kinds of lines in %s: lines of more kinds are not counted", logKinds, name)
		}
		return ""
	}
	at := l.At + b.ahead
	at -= at % logBin
	last, is := b.taken[key]
	switch {
	case is && at <= last:
		return fmt.Sprintf("some lines of %s came too late to be counted: others of their kind, of their time or a later one, had been counted already", name)
	case at < time.Now().UnixMilli()+b.ahead-logOldest:
		return fmt.Sprintf("some lines of %s are not counted: their times are more than an hour ago", name)
	}
	if b.open[key] == nil {
		b.open[key] = map[int64]float64{}
	}
	b.open[key][at]++
	return ""
}

// take hands on what was counted up to a time, which is that of the samples
// that are taken now, in order of time.
func (b *logBook) take(now int64) []series.Sample {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead = max(0, now-time.Now().UnixMilli())
	maps.DeleteFunc(b.taken, func(_ series.Key, last int64) bool { return last < now-logOldest })
	var out []series.Sample
	for key, bins := range b.open {
		for at, n := range bins {
			if at+logBin+logHold > now {
				continue
			}
			out = append(out, series.Sample{Key: key, At: at, Value: n})
			b.taken[key] = max(b.taken[key], at)
			delete(bins, at)
		}
		if len(bins) == 0 {
			delete(b.open, key)
		}
	}
	slices.SortFunc(out, func(x, y series.Sample) int { return cmp.Compare(x.At, y.At) })
	return out
}

// examples are the first lines of templates, for reports.
func (b *logBook) examples() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]string{}
	for _, t := range b.templates {
		for template, line := range t.Examples() {
			out[template] = line
		}
	}
	return out
}

// follow follows the logs of the flags until the book is ended. A log that can
// not be read any more is said, and the watch goes on.
func (b *logBook) follow(ctx context.Context, f *watchFlags, say func(string, ...any)) {
	b.say = say
	start := func(service string, source *logfile.Source) {
		source.Note = func(text string) { say("%s", text) }
		b.followers = append(b.followers, background(ctx, func(ctx context.Context) error {
			if err := source.Follow(ctx, func(l logfile.Line) { b.line(service, l) }); err != nil && ctx.Err() == nil {
				say("%v; it is not followed any more", err)
			}
			return nil
		}))
	}
	for _, path := range f.logs {
		start("", &logfile.Source{Path: path})
	}
	for _, unit := range f.journals {
		unit = unitName(unit)
		start(unit, &logfile.Source{Unit: unit})
	}
}

// unitName completes the name of a unit as systemctl and journalctl do, which
// is how its processes are named: demo is demo.service (systemd.unit(5)).
func unitName(name string) string {
	switch filepath.Ext(name) {
	case ".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".slice", ".scope":
		return name
	}
	return name + ".service"
}

func (b *logBook) end() {
	for _, t := range b.followers {
		_ = t.end() // a follower says its errors itself
	}
}
