package app

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"sync"

	"stanch/internal/logs"
	"stanch/internal/proc"
	"stanch/internal/series"
	"stanch/internal/source/logfile"
)

// logBin is how long the stretches are that lines are counted in, ms.
const logBin = 100

// logHold is how long a stretch is kept open for lines that come late, ms.
const logHold = 1000

// logBook counts the lines of logs by template. Who follows a log says lines;
// the watch takes the counts as samples. Lines of files belong to no service
// in particular, those of a unit's journal to the unit.
type logBook struct {
	mu        sync.Mutex
	templates map[string]*logs.Templates // by service
	open      map[series.Key]map[int64]float64
	taken     map[series.Key]int64 // the newest stretch that was handed on
	late      uint64               // lines that came after their stretch had been
	followers []*task
}

func newLogBook() *logBook {
	return &logBook{templates: map[string]*logs.Templates{}, open: map[series.Key]map[int64]float64{}, taken: map[series.Key]int64{}}
}

// seed takes the templates that the history has, so that a line keeps its name.
func (b *logBook) seed(known []series.Series) {
	byService := map[string][]string{}
	for _, s := range known {
		byService[s.Key.Service] = append(byService[s.Key.Service], s.Key.Part)
		if last, ok := s.Last(); ok {
			b.taken[s.Key] = last.At
		}
	}
	for service, templates := range byService {
		b.of(service).Seed(templates)
	}
}

func (b *logBook) of(service string) *logs.Templates {
	t := b.templates[service]
	if t == nil {
		t = logs.NewTemplates(logs.Options{})
		b.templates[service] = t
	}
	return t
}

// line counts a line.
func (b *logBook) line(service string, l logfile.Line) {
	text := proc.MaskText(l.Text)
	b.mu.Lock()
	defer b.mu.Unlock()
	key := series.Key{Metric: series.Log, Service: service, Part: b.of(service).Add(text)}
	if key.Part == "" {
		return // there is no room for ever new kinds of lines
	}
	at := l.At - l.At%logBin
	if last, ok := b.taken[key]; ok && at <= last {
		b.late++
		return
	}
	if b.open[key] == nil {
		b.open[key] = map[int64]float64{}
	}
	b.open[key][at]++
}

// take hands on what was counted up to a time, in order of time.
func (b *logBook) take(now int64) []series.Sample {
	b.mu.Lock()
	defer b.mu.Unlock()
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
	start := func(service, name string, source *logfile.Source) {
		b.followers = append(b.followers, background(ctx, func(ctx context.Context) error {
			if err := source.Follow(ctx, func(l logfile.Line) { b.line(service, l) }); err != nil && ctx.Err() == nil {
				say("%s is not followed any more: %v", name, err)
			}
			return nil
		}))
	}
	for _, path := range f.logs {
		start("", path, &logfile.Source{Path: path, Note: func(n string) { say("%s: %s", path, n) }})
	}
	for _, unit := range f.journals {
		unit = unitName(unit)
		start(unit, "the journal of "+unit, &logfile.Source{Unit: unit, Note: func(n string) { say("the journal of %s: %s", unit, n) }})
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
