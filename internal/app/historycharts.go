package app

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/trend"
)

// mostDrawn is of how many services the charts are shown: of those that a word
// means, or of those that grow on a page of more.
const mostDrawn = 10

// draw gives the services of a report their charts, which grow.
func (h *historian) draw(ctx context.Context, r *leak.Report) error {
	for i := range r.Services[:min(len(r.Services), mostDrawn)] {
		s := &r.Services[i]
		if len(s.Trends) == 0 || !trend.Grows(s.Trends[0].Verdict) {
			return nil
		}
		all, err := h.seriesOf(ctx, s.Name)
		if err != nil {
			return err
		}
		s.Charts = chartsOf(all)
	}
	return nil
}

// chartPoints is how many points a chart has at most.
const chartPoints = 1200

// limitsOf are the series that limit others.
var limitsOf = map[series.Metric]struct {
	by   series.Metric
	name string
}{
	series.FDs:           {series.FDLimit, "RLIMIT_NOFILE"},
	series.Virtual:       {series.AddressLimit, "RLIMIT_AS"},
	series.CgroupMemory:  {series.CgroupLimit, "memory.max"},
	series.CgroupTasks:   {series.CgroupTasksMax, "pids.max"},
	series.HostFiles:     {series.HostFilesMax, "fs.file-max"},
	series.HostConntrack: {series.HostConntrackMax, "nf_conntrack_max"},
}

// undrawn are facts and limits, which are no pictures of their own.
var undrawn = []series.Metric{
	series.PID, series.Started, series.FDLimit, series.AddressLimit, series.CgroupLimit, series.CgroupTasksMax, series.HostFilesMax,
	series.HostConntrackMax, series.HostMemory, series.HostCommitLimit, series.HostSwap, series.Log, series.ClockJumps, series.Suspended,
}

// rateWidth is over how long the rate of a total is drawn at least.
const rateWidth = 60_000

// chartsOf makes a chart of each series, in the order of series.Metrics and of
// the workers.
func chartsOf(all []series.Series) []leak.ReportChart {
	order := map[series.Metric]int{}
	for i, m := range series.Metrics {
		order[m.Metric] = i
	}
	last := map[series.Key]float64{}
	for _, s := range all {
		if p, ok := s.Last(); ok {
			last[s.Key] = p.Value
		}
	}
	var out []leak.ReportChart
	for _, s := range all {
		info, ok := series.Describe(s.Key.Metric)
		if !ok || slices.Contains(undrawn, s.Key.Metric) || len(s.Points) == 0 {
			continue
		}
		c := leak.ReportChart{Metric: string(s.Key.Metric), Title: info.Title, Worker: s.Key.Worker, Bytes: info.Bytes}
		if s.Key.Part != "" {
			c.Title += " " + s.Key.Part
		}
		ps := s.Points
		if info.Total {
			ps = series.Rate(ps, rateWidth)
			if strings.HasSuffix(c.Metric, "_seconds_total") {
				c.Title += " in seconds"
			}
			c.Title += " per second"
		}
		if l, ok := limitsOf[s.Key.Metric]; ok {
			if v, ok := last[series.Key{Metric: l.by, Service: s.Key.Service, Worker: s.Key.Worker}]; ok && v > 0 {
				c.Limit, c.LimitName = &v, l.name
			}
		}
		for _, p := range series.Thin(ps, chartPoints) {
			c.Points = append(c.Points, [2]float64{float64(p.At) / 1000, p.Value})
		}
		if len(c.Points) > 0 {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b leak.ReportChart) int {
		return cmp.Or(cmp.Compare(len(a.Worker), len(b.Worker)), cmp.Compare(a.Worker, b.Worker),
			cmp.Compare(order[series.Metric(a.Metric)], order[series.Metric(b.Metric)]), cmp.Compare(a.Title, b.Title))
	})
	return out
}
