// Package term draws histories as charts for a terminal. A chart is text: lines
// of at most the width asked for, which a pipe or a ticket keeps as they are.
package term

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"stanch/internal/leak"
	"stanch/internal/render"
	"stanch/internal/ui/chart"
)

// Options say how charts are drawn. The zero value draws 80 columns without
// colour, in the zone of the report.
type Options struct {
	Width  int            // columns; 80 when 0, at least 40
	Height int            // lines of the first plot, half of it for the others; 8 when 0
	Most   int            // charts; 6 when 0
	Color  bool           // ANSI colours; the caller knows NO_COLOR and whether it is a terminal
	ASCII  bool           // nothing but ASCII; see UTF8
	Zone   *time.Location // of the times; that of the service's last point when nil
}

// The least and the usual sizes.
const (
	leastWidth  = 40
	usualWidth  = 80
	usualHeight = 8
	leastHeight = 3
	usualMost   = 6
)

func (o Options) complete(s *leak.ReportService) Options {
	if o.Width == 0 {
		o.Width = usualWidth
	}
	o.Width = max(o.Width, leastWidth)
	if o.Height == 0 {
		o.Height = usualHeight
	}
	o.Height = max(o.Height, leastHeight)
	if o.Most == 0 {
		o.Most = usualMost
	}
	if o.Zone == nil {
		o.Zone = s.To.Location()
	}
	return o
}

// UTF8 reports whether the locale that these variables of the environment set
// can show more than ASCII.
func UTF8(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// Charts draws the timelines of a service, those first that grow. One that
// never changes is a line of text. It writes nothing when there are no points.
func Charts(w io.Writer, s *leak.ReportService, o Options) error {
	o = o.complete(s)
	all := chart.Ordered(s)
	var b strings.Builder
	p := newPage(s, all, o)
	drawn, left := 0, 0
	var still []*leak.ReportChart
	for _, c := range all {
		switch low, high := chart.Extent(c); {
		case low == high:
			still = append(still, c)
		case drawn == o.Most:
			left++
		default:
			if drawn > 0 {
				b.WriteByte('\n')
			}
			p.chart(&b, c, drawn == 0)
			drawn++
		}
	}
	if drawn > 0 {
		p.legend(&b)
	}
	if drawn > 0 && len(still)+left > 0 {
		b.WriteByte('\n')
	}
	for _, line := range chart.Still(s, still) {
		p.wrap(&b, strings.Split(p.text(line), " "), " ")
	}
	if left > 0 {
		fmt.Fprintf(&b, "and %d more: --format html has all charts\n", left)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// page is what all charts of a service have in common.
type page struct {
	s        *leak.ReportService
	o        Options
	g        *glyphs
	from, to float64
	gutter   int // columns left of the axis
	plot     int // columns right of it
	seen     map[string]bool
}

func newPage(s *leak.ReportService, all []*leak.ReportChart, o Options) *page {
	p := &page{s: s, o: o, g: &unicodeGlyphs, seen: map[string]bool{}}
	if o.ASCII {
		p.g = &asciiGlyphs
	}
	p.from, p.to = chart.Span(s)
	for _, m := range markRows {
		p.gutter = max(p.gutter, len(m.label))
	}
	for _, c := range all {
		for _, first := range []bool{true, false} {
			a := chart.Values(p.s, c, p.height(first)/2)
			for v := a.Low; v <= a.High+a.Step/2; v += a.Step {
				p.gutter = max(p.gutter, len(chart.Label(v, c.Bytes)))
			}
		}
	}
	p.plot = o.Width - p.gutter - 2
	return p
}

// height is how many lines a plot has: the first more than the others.
func (p *page) height(first bool) int {
	if first {
		return p.o.Height
	}
	return max(leastHeight, p.o.Height/2)
}

// column is where a moment stands on the plot.
func (p *page) column(at float64, columns int) int {
	x := int((at - p.from) / (p.to - p.from) * float64(columns))
	return max(0, min(x, columns-1))
}

// chart draws one: its title, the plot, the axis, the marks.
func (p *page) chart(b *strings.Builder, c *leak.ReportChart, first bool) {
	height := p.height(first)
	axis := chart.Values(p.s, c, height/2)
	p.title(b, c, axis)
	cv := newCanvas(p.plot, height, p.g)
	p.background(cv, c, axis)
	p.lines(cv, c, axis)
	labels := make([]string, height)
	for v := axis.Low; v <= axis.High+axis.Step/2; v += axis.Step {
		labels[cv.row(axis, v)] = chart.Label(v, c.Bytes)
	}
	for row, cells := range cv.rows() {
		fmt.Fprintf(b, "%s%s\n", p.style(dim, fmt.Sprintf("%*s %s", p.gutter, labels[row], p.g.axis(labels[row] != ""))), p.paint(cells))
	}
	p.times(b)
	p.marks(b, c, first)
}

// title is the name of a chart and its values.
func (p *page) title(b *strings.Builder, c *leak.ReportChart, axis chart.Axis) {
	low, high := chart.Extent(c)
	now := c.Points[len(c.Points)-1][1]
	facts := fmt.Sprintf("now %s, lowest %s, highest %s", chart.Label(now, c.Bytes), chart.Label(low, c.Bytes), chart.Label(high, c.Bytes))
	name := p.text(chart.Name(p.s, c))
	if limit, ok := chart.Limit(c); ok && !axis.Limit {
		if far := fmt.Sprintf("%s, %s %s", facts, p.text(c.LimitName), chart.Label(limit, c.Bytes)); utf8.RuneCountInString(far+name)+2 <= p.o.Width {
			facts = far
		}
	}
	room := p.o.Width - utf8.RuneCountInString(facts) - 2
	if room < 8 {
		b.WriteString(p.style(bold, p.fit(name, p.o.Width)) + "\n" + p.fit(facts, p.o.Width) + "\n")
		return
	}
	name = p.fit(name, room)
	fmt.Fprintf(b, "%s%s%s\n", p.style(bold, name), strings.Repeat(" ", p.o.Width-utf8.RuneCountInString(name+facts)), facts)
}

// text makes foreign text safe, and ASCII where nothing else is shown.
func (p *page) text(s string) string {
	s = render.Clean(s)
	if !p.o.ASCII {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return '?'
		}
		return r
	}, s)
}

// wrap writes words in lines of the width.
func (p *page) wrap(b *strings.Builder, words []string, between string) {
	line := ""
	for _, w := range words {
		if line != "" && utf8.RuneCountInString(line+between+w) > p.o.Width {
			b.WriteString(line + "\n")
			line = ""
		}
		if line != "" {
			line += between
		}
		line += p.fit(w, p.o.Width)
	}
	b.WriteString(line + "\n")
}

// fit cuts a text to n columns.
func (p *page) fit(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-3, 0)]) + "..."
}
