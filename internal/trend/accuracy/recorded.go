package accuracy

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"stanch/internal/series"
	"stanch/internal/trend/corpus"
)

// columns are those of a recording that are known, with the factor to the
// metric's unit.
var columns = map[string]struct {
	metric series.Metric
	scale  float64
}{
	"rss_kb":   {series.RSS, 1024},
	"vsz_kb":   {series.Virtual, 1024},
	"anon_kb":  {series.Anonymous, 1024},
	"swap_kb":  {series.Swap, 1024},
	"fds":      {series.FDs, 1},
	"threads":  {series.Threads, 1},
	"cpu_s":    {series.CPU, 1},
	"received": {series.Received, 1},
	"rchar":    {series.Received, 1},
	"start_s":  {series.Started, 1},
	"started":  {series.Started, 1},
	"pid":      {series.PID, 1},
}

// Recorded judges all recordings in dir; none when there is no such directory.
func Recorded(dir string) ([]Outcome, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out []Outcome
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		traces, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, t := range traces {
			t.Name = strings.TrimSuffix(filepath.Base(file), ".txt") + "/" + t.Family
			o := Judge(t)
			o.Real, o.SNR = true, roughly(t.Series[0].Points)
			out = append(out, o)
		}
	}
	return out, nil
}

// roughly is the signal to noise of a recording, of which nobody knows the
// noise alone: the growth of the line through its lowest values, over the
// standard deviation of the points around that line.
func roughly(ps []series.Point) float64 {
	ws := series.Windows(ps, 48)
	x, y := make([]float64, len(ws)), make([]float64, len(ws))
	for i, w := range ws {
		x[i], y[i] = float64(w.LowAt), w.Low
	}
	l := series.TheilSen(x, y)
	rest := make([]float64, len(ps))
	for i, p := range ps {
		rest[i] = p.Value - l.Slope*float64(p.At)
	}
	noise := series.Deviation(rest)
	if noise == 0 {
		return 0
	}
	return l.Slope * float64(ps[len(ps)-1].At-ps[0].At) / noise
}

// Parse reads a recording: lines "# key: value", a line with the names of the
// columns, rows of numbers. It gives a trace for each "# truth.COLUMN: leak" or
// ": none"; a "# truth:" alone is of the column that "# resource:" names.
func Parse(text []byte) ([]*corpus.Trace, error) {
	head := map[string]string{}
	var names []string
	var lists []series.Series
	scan := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimSpace(scan.Text())
		if rest, ok := strings.CutPrefix(line, "#"); ok {
			key, value, _ := strings.Cut(rest, ":")
			head[strings.TrimSpace(key)] = strings.TrimSpace(value)
			continue
		}
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case names == nil:
			names = fields
			for _, name := range names {
				lists = append(lists, series.Series{Key: series.Key{Metric: columns[name].metric, Service: "demo", Worker: "0"}})
			}
		default:
			if err := row(names, fields, lists); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
	if err := scan.Err(); err != nil {
		return nil, err
	}
	return recordings(head, names, lists)
}

// row takes one line of numbers in; "-" and what is missing have no value.
func row(names, fields []string, lists []series.Series) error {
	at := math.NaN()
	for i, name := range names {
		if i >= len(fields) || fields[i] == "-" {
			continue
		}
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name == "time" {
			at = v
			continue
		}
		c, known := columns[name]
		if !known {
			continue
		}
		if math.IsNaN(at) {
			return fmt.Errorf("no time before %s", name)
		}
		lists[i].Points = append(lists[i].Points, series.Point{At: int64(at * 1000), Value: v * c.scale})
	}
	return nil
}

func recordings(head map[string]string, names []string, lists []series.Series) (out []*corpus.Trace, err error) {
	seconds, err := strconv.ParseFloat(head["interval_s"], 64)
	if err != nil {
		return nil, fmt.Errorf("interval_s: %w", err)
	}
	for i, name := range names {
		truth := truthOf(head, name)
		if truth == "" || len(lists[i].Points) == 0 {
			continue
		}
		if truth != "leak" && truth != "none" {
			return nil, fmt.Errorf("truth of %s is %q, neither leak nor none", name, truth)
		}
		t := &corpus.Trace{Family: name, Leak: truth == "leak", Metric: lists[i].Key.Metric, Interval: time.Duration(seconds * float64(time.Second))}
		t.Series = append(t.Series, lists[i])
		for k, l := range lists {
			// What else was recorded of memory would be judged in its place.
			switch l.Key.Metric {
			case series.CPU, series.Received, series.Started, series.PID:
				if k != i {
					t.Series = append(t.Series, l)
				}
			}
		}
		t.Window = (time.Duration(t.To()-t.From()) * time.Millisecond).Round(time.Minute)
		out = append(out, t)
	}
	return out, nil
}

func truthOf(head map[string]string, column string) string {
	short := strings.TrimSuffix(column, "_kb")
	for _, key := range []string{"truth." + column, "truth." + short} {
		if v := head[key]; v != "" {
			return v
		}
	}
	if r := head["resource"]; r == column || r == short {
		return head["truth"]
	}
	return ""
}
