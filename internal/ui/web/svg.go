package web

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/render"
	"stanch/internal/ui/chart"
)

// The size of a picture in its own units. It is stretched to the room there is,
// so it holds no text: that stands beside it.
const (
	pictureWidth  = 1000
	pictureHeight = 200
	pictureSteps  = 4
)

// picture draws a chart that stands still, with the values and the times along
// its axes.
func picture(s *leak.ReportService, c *leak.ReportChart) (drawn template.HTML, values, times []string) {
	from, to := chart.Span(s)
	axis := chart.Values(s, c, pictureSteps)
	x := func(at float64) int {
		return max(0, min(pictureWidth, int((at-from)/(to-from)*pictureWidth+0.5)))
	}
	y := func(v float64) int {
		return max(0, min(pictureHeight, pictureHeight-int((v-axis.Low)/(axis.High-axis.Low)*pictureHeight+0.5)))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" preserveAspectRatio="none" aria-hidden="true">`, pictureWidth, pictureHeight)
	for n := math.Round((axis.High - axis.Low) / axis.Step); n >= 0; n-- {
		v := axis.Low + n*axis.Step
		values = append(values, chart.Label(v, c.Bytes))
		fmt.Fprintf(&b, `<path class="grid" d="M0 %dH%d"/>`, y(v), pictureWidth)
	}
	lines := chart.Lines(s, c)
	for i := 1; i < len(lines); i++ {
		last, next := x(lines[i-1][len(lines[i-1])-1][0]), x(lines[i][0][0])
		if next-last > pictureWidth/100 {
			fmt.Fprintf(&b, `<rect class="gap" x="%d" width="%d" height="%d"/>`, last, next-last, pictureHeight)
		}
	}
	drawMarks(&b, s, c, x)
	if axis.Limit {
		fmt.Fprintf(&b, `<path class="limit" d="M0 %dH%d"/>`, y(*c.Limit), pictureWidth)
	}
	for _, line := range lines {
		fmt.Fprintf(&b, `<path class="line" d="%s"/>`, path(line, x, y))
	}
	b.WriteString("</svg>")
	zone := s.To.Location()
	for _, at := range []float64{from, (from + to) / 2, to} {
		times = append(times, time.UnixMilli(int64(at*1000)).In(zone).Format("2 Jan 15:04"))
	}
	return template.HTML(b.String()), values, times
}

// crowded is of how many restarts the lines would hide a picture: more of them
// are strokes at its top.
const crowded = pictureWidth / 14

// drawMarks draws each moment once: the line of a restart through the picture,
// the others as strokes at its foot.
func drawMarks(b *strings.Builder, s *leak.ReportService, c *leak.ReportChart, x func(float64) int) {
	type spot struct {
		kind string
		x    int
	}
	marks := chart.Marks(s, c)
	restarts := 0
	for _, m := range marks {
		if m.Kind == leak.MarkRestart {
			restarts++
		}
	}
	drawn := map[spot]bool{}
	for _, m := range marks {
		at := spot{m.Kind, x(float64(m.At.UnixMilli()) / 1000)}
		if drawn[at] {
			continue
		}
		drawn[at] = true
		span := "" // from the top or bottom of the picture
		switch m.Kind {
		case leak.MarkRestart, leak.MarkOOM, leak.MarkClock:
			span = "0V200"
			if m.Kind == leak.MarkRestart && restarts > crowded {
				span = "0V10"
			}
		case leak.MarkStep:
			span = "188V200"
		case leak.MarkLog:
			span = "174V184"
		default:
			continue
		}
		fmt.Fprintf(b, `<path class="%s" d="M%d %s"><title>%s</title></path>`, class(m.Kind), at.x, span, html.EscapeString(render.Clean(m.Text)))
	}
}

// path draws a line with at most four points of each unit of the width: its
// first, lowest, highest and last value there.
func path(line [][2]float64, x func(float64) int, y func(float64) int) string {
	var b strings.Builder
	cmd := byte('M')
	for i := 0; i < len(line); {
		at := x(line[i][0])
		first, low, high, last := y(line[i][1]), y(line[i][1]), y(line[i][1]), 0
		for ; i < len(line) && x(line[i][0]) == at; i++ {
			last = y(line[i][1])
			low, high = max(low, last), min(high, last)
		}
		fmt.Fprintf(&b, "%c%d %d", cmd, at, first)
		if low != high {
			fmt.Fprintf(&b, "V%dV%dV%d", low, high, last)
		}
		cmd = 'L'
	}
	return b.String()
}
