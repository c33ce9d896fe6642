package series

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// name gives each row the service it belongs to: the file's, and where rows
// are of several commands the command's.
func (p *plainReader) name(rows []plainRow, plain *Plain) {
	service := serviceOf(p.options.Name)
	commands := map[string]bool{}
	for _, r := range rows {
		commands[r.command] = true
	}
	for i := range rows {
		rows[i].service = service
		if len(commands) > 1 {
			rows[i].service += ": " + rows[i].command
		}
	}
	if len(commands) > 1 {
		plain.note(fmt.Sprintf("rows are of %d commands, each is a service of its own", len(commands)))
	}
	if p.swapped > 0 {
		plain.note(fmt.Sprintf("the larger of two numbers was taken as vsz in %s, where it comes first", count(p.swapped, "row", "rows")))
	}
}

// slot is a place among the workers of a service.
type slot struct {
	service string
	worker  int
}

// collect makes the series. A process keeps its place among the workers; one
// that is new takes the first place whose process is no more.
func (p *Plain) collect(snapshots [][]plainRow) {
	slices.SortStableFunc(snapshots, func(a, b []plainRow) int { return cmp.Compare(a[0].at, b[0].at) })
	holder := map[slot]int{} // who has a place
	place := map[int]slot{}  // of a PID
	points := map[Key][]Point{}
	add := func(k Key, at int64, v float64) {
		if have := points[k]; len(have) > 0 && have[len(have)-1].At == at {
			have[len(have)-1].Value = v // the later row of the same time holds
			return
		}
		points[k] = append(points[k], Point{at, v})
	}
	for _, rows := range snapshots {
		taken := map[slot]bool{}
		for _, r := range rows {
			if s, ok := place[r.pid]; r.pid != 0 && ok && s.service == r.service && holder[s] == r.pid {
				taken[s] = true
			}
		}
		for _, r := range rows {
			s, ok := place[r.pid]
			if r.pid == 0 || !ok || s.service != r.service || holder[s] != r.pid {
				s = slot{service: r.service}
				for taken[s] {
					s.worker++
				}
			}
			taken[s] = true
			worker := strconv.Itoa(s.worker)
			if r.pid != 0 {
				place[r.pid], holder[s] = s, r.pid
				add(Key{Metric: PID, Service: r.service, Worker: worker}, r.at, float64(r.pid))
			}
			for _, v := range r.values {
				add(Key{Metric: v.column.metric, Service: r.service, Worker: worker}, r.at, v.value)
			}
		}
	}
	for k, ps := range points {
		p.Series = append(p.Series, Series{k, ps})
	}
	slices.SortFunc(p.Series, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Key.Service, b.Key.Service), len(a.Key.Worker)-len(b.Key.Worker), cmp.Compare(a.Key.Worker, b.Key.Worker),
			cmp.Compare(metricRank(a.Key.Metric), metricRank(b.Key.Metric)))
	})
}

// metricRank is the place of a metric in the order in which they are shown.
func metricRank(m Metric) int {
	return slices.IndexFunc(Metrics, func(i Info) bool { return i.Metric == m })
}
