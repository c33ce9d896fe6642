package term

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"stanch/internal/leak"
	"stanch/internal/ui/chart"
)

// style is the number of an ANSI rendition (ECMA-48, SGR).
type style int

const (
	plain      style = 0
	bold       style = 1
	dim        style = 2
	lineStyle  style = 36
	limitStyle style = 31
	stepStyle  style = 33
	logStyle   style = 32
	eventStyle style = 35
)

func (p *page) style(st style, s string) string {
	if !p.o.Color || st == plain || strings.TrimSpace(s) == "" {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", st, s)
}

// paint writes cells, those of one style together, without blanks at the end.
func (p *page) paint(cells []cell) string {
	for len(cells) > 0 && (cells[len(cells)-1].r == ' ' || cells[len(cells)-1].r == 0) {
		cells = cells[:len(cells)-1]
	}
	var b strings.Builder
	for i := 0; i < len(cells); {
		j := i
		var run strings.Builder
		for ; j < len(cells) && cells[j].style == cells[i].style; j++ {
			if cells[j].r == 0 {
				run.WriteByte(' ')
			} else {
				run.WriteRune(cells[j].r)
			}
		}
		b.WriteString(p.style(cells[i].style, run.String()))
		i = j
	}
	return b.String()
}

// crowded is the part of the columns from which on restarts are not drawn
// through a plot: they would hide it.
const crowded = 4

// background draws what stands behind the line: times without points, restarts
// and the limit.
func (p *page) background(cv *canvas, c *leak.ReportChart, axis chart.Axis) {
	lines := chart.Lines(p.s, c)
	for i := 1; i < len(lines); i++ {
		last, next := lines[i-1][len(lines[i-1])-1], lines[i][0]
		for x := p.column(last[0], p.plot) + 1; x < p.column(next[0], p.plot); x++ {
			for row := range cv.height {
				cv.put(x, row, p.g.gap, dim)
			}
			p.seen[leak.MarkGap] = true
		}
	}
	restarts := map[int]bool{}
	for _, m := range chart.Marks(p.s, c) {
		if m.Kind == leak.MarkRestart {
			restarts[p.column(float64(m.At.UnixMilli())/1000, p.plot)] = true
		}
	}
	if len(restarts) <= p.plot/crowded {
		for x := range restarts {
			for row := range cv.height {
				cv.put(x, row, p.g.restart, eventStyle)
			}
		}
	}
	if axis.Limit {
		row := cv.row(axis, *c.Limit)
		for x := range cv.width {
			cv.put(x, row, p.g.limit, limitStyle)
		}
		name := []rune(p.fit(fmt.Sprintf(" %s %s ", p.text(c.LimitName), chart.Label(*c.Limit, c.Bytes)), cv.width-4))
		for i, r := range name {
			cv.put(2+i, row, r, limitStyle)
		}
	}
}

func (p *page) lines(cv *canvas, c *leak.ReportChart, axis chart.Axis) {
	for _, line := range chart.Lines(p.s, c) {
		for i, point := range line {
			x, y := p.column(point[0], cv.width*cv.g.dotsX), cv.dotY(axis, point[1])
			if i == 0 {
				cv.dot(x, y)
				continue
			}
			before := line[i-1]
			cv.line(p.column(before[0], cv.width*cv.g.dotsX), cv.dotY(axis, before[1]), x, y)
		}
	}
}

// labelRoom is how many columns a time takes on the axis, at least.
const labelRoom = 12

// times draws the axis of times.
func (p *page) times(b *strings.Builder) {
	floor := slices.Repeat([]rune{p.g.floor}, p.plot)
	labels := slices.Repeat([]rune{' '}, p.gutter+2+p.plot)
	free := 0
	for _, t := range chart.Times(p.from, p.to, p.o.Zone, p.plot/labelRoom) {
		x := p.column(t.At, p.plot)
		floor[x] = p.g.notch
		n := utf8.RuneCountInString(t.Label)
		at := max(0, min(p.gutter+2+x-n/2, len(labels)-n))
		if at < free {
			continue
		}
		copy(labels[at:], []rune(t.Label))
		free = at + n + 1
	}
	fmt.Fprintf(b, "%s\n%s\n", p.style(dim, fmt.Sprintf("%*s %c%s", p.gutter, "", p.g.corner, string(floor))), p.style(dim, strings.TrimRight(string(labels), " ")))
}

// markRows are the lines of marks below a chart.
var markRows = []struct {
	kind, label string
	r, ascii    rune
	st          style
	legend      string
}{
	{leak.MarkStep, "steps", '▲', '^', stepStyle, "growth step"},
	{leak.MarkLog, "log", '•', 'o', logStyle, "log line"},
	{leak.MarkRestart, "restarts", 'R', 'R', eventStyle, "restart"},
	{leak.MarkOOM, "killed", 'X', 'X', limitStyle, "killed for lack of memory"},
	{leak.MarkClock, "clock", 'C', 'C', eventStyle, "the clock was set"},
}

// marks draws the moments below a chart: its own steps, and below the first
// chart what concerns them all.
func (p *page) marks(b *strings.Builder, c *leak.ReportChart, first bool) {
	for _, m := range markRows {
		if !first && m.kind != leak.MarkStep {
			continue
		}
		r := m.r
		if p.o.ASCII {
			r = m.ascii
		}
		cells := make([]cell, p.plot)
		found := false
		for i := range p.s.Marks {
			k := &p.s.Marks[i]
			if at := float64(k.At.UnixMilli()) / 1000; k.Kind == m.kind && at >= p.from && at <= p.to && (m.kind != leak.MarkStep || chart.Concerns(k, c)) {
				cells[p.column(at, p.plot)] = cell{r, m.st}
				found = true
			}
		}
		if found {
			p.seen[m.kind] = true
			fmt.Fprintf(b, "%s%s\n", p.style(dim, fmt.Sprintf("%*s  ", p.gutter, m.label)), p.paint(cells))
		}
	}
}

// legend says what the marks mean that were drawn.
func (p *page) legend(b *strings.Builder) {
	var parts []string
	for _, m := range markRows {
		if !p.seen[m.kind] {
			continue
		}
		r, text := m.r, m.legend
		if p.o.ASCII {
			r = m.ascii
		}
		parts = append(parts, fmt.Sprintf("%c %s", r, text))
	}
	if p.seen[leak.MarkGap] {
		parts = append(parts, fmt.Sprintf("%c no data", p.g.gap))
	}
	if len(parts) == 0 {
		return
	}
	b.WriteByte('\n')
	p.wrap(b, parts, "   ")
}
