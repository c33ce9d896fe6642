// Package web writes a report as one page of HTML: it opens from a file, needs
// nothing else, and sends nothing anywhere. Its script draws the charts so that
// they can be zoomed; where it was not built, or may not run, they are still
// pictures made here.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/render"
	"stanch/internal/ui/chart"
)

// Format is the page among the formats of package render.
var Format = render.Format{Name: "html", Ext: ".html", Type: "text/html; charset=utf-8", Write: HTML}

// dist holds the bundle of ui/web when it was built, and a note when not.
//
//go:embed all:dist
var dist embed.FS

//go:embed page.css
var style string

//go:embed page.tmpl
var source string

var page = template.Must(template.New("page").Parse(source))

// Zooms reports whether the charts of pages can be zoomed: whether the bundle
// was there when this program was built.
func Zooms() bool { return bundle("page.js") != "" }

func bundle(name string) string {
	b, err := fs.ReadFile(dist, "dist/"+name)
	if err != nil {
		return ""
	}
	return string(b)
}

// HTML writes the report as a page. It normalizes the report first.
func HTML(w io.Writer, r *leak.Report) error {
	return write(w, r, bundle("page.js"), bundle("page.css"))
}

func write(w io.Writer, r *leak.Report, script, scriptStyle string) error {
	r.Normalize()
	data, err := json.Marshal(r) // which escapes <, >, &, U+2028 and U+2029: no text of it can end the element
	if err != nil {
		return fmt.Errorf("write report as HTML: %w", err)
	}
	css := style + scriptStyle
	v := view{
		Policy:   policy(script, css),
		Style:    template.CSS(css),
		Script:   template.JS(script),
		Data:     template.JS(data),
		Overview: render.OverviewOf(r.Services),
		Gaps:     r.Gaps,
		Notes:    r.Notes,
	}
	unfolded := 0
	for i := range r.Services {
		s := serviceView(i, &r.Services[i])
		s.Open = (s.State == "grows" || len(r.Services) == 1) && unfolded < maxUnfolded
		if s.Open {
			unfolded++
		}
		if len(s.Charts) == 0 && s.State != "grows" && !s.Open {
			v.Others = append(v.Others, s)
		} else {
			v.Services = append(v.Services, s)
		}
	}
	v.Many = len(r.Services) > 1
	v.Waiting = max(0, len(v.Overview.Waiting)-maxWaiting)
	v.Overview.Waiting = v.Overview.Waiting[:len(v.Overview.Waiting)-v.Waiting]
	v.Title = title(v)
	if rest := *render.WithoutHistory(r); len(rest.Targets) > 0 || len(r.Services) == 0 {
		rest.Gaps, rest.Notes = nil, nil
		var text bytes.Buffer
		if err := render.Text(&text, &rest); err != nil {
			return err
		}
		v.Text = text.String()
	}
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return fmt.Errorf("write report as HTML: %w", err)
	}
	_, err = w.Write(b.Bytes())
	return err
}

// policy lets run what this page holds, by its hash, and forbids all else:
// also every request.
func policy(script, css string) string {
	p := "default-src 'none'; style-src " + hash(css)
	if script != "" {
		p += "; script-src " + hash(script)
	}
	return p + "; base-uri 'none'; form-action 'none'"
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// view is what the template shows.
type view struct {
	Policy   string
	Title    string
	Style    template.CSS
	Script   template.JS
	Data     template.JS
	Overview render.Overview
	Many     bool
	Services []service
	Others   []service // which are not seen to grow, and have nothing to be drawn
	Waiting  int       // services that are not decided and not listed
	Text     string    // what is not history
	Gaps     []string
	Notes    []string
}

type service struct {
	Index      int
	Name       string
	Short      string // the first conclusion, to be read while the others are folded
	Head       string
	State      string // "grows", "undecided" or "": the colour of its sign
	Open       bool
	Zone       string // turns of the clock, for the script
	Paragraphs []render.Paragraph
	Charts     []figure
	Still      []string // charts of what never changes, in words
	Legend     []sign
	Marks      []mark // the newest first
	More       int    // marks that are not listed
}

type figure struct {
	Index   int // in the charts of the service
	Service int
	Name    string
	Facts   string
	Limit   string
	Picture template.HTML
	Values  []string // along the axis, from the top
	Times   []string
}

type sign struct{ Kind, Text string }

type mark struct{ At, Stamp, Kind, Text string }

func title(v view) string {
	switch {
	case v.Many:
		return "Services"
	case len(v.Services) == 1:
		return v.Services[0].Name
	}
	return "Report"
}

// maxWaiting is how many services that are not decided are listed at the top.
const maxWaiting = 10

// maxUnfolded is how many services that grow are seen at once.
const maxUnfolded = 10

// maxListed is how many marks a page lists.
const maxListed = 200

func serviceView(i int, s *leak.ReportService) service {
	v := service{Index: i, Name: render.Clean(s.Name), Paragraphs: render.ParagraphsOf(s)}
	v.Head = strings.TrimPrefix(render.HeadOf(s), v.Name+", ")
	v.Short = v.Paragraphs[0].Head
	v.Zone = turns(s)
	for j := range s.Trends {
		switch {
		case render.Grows(s.Trends[j].Verdict):
			v.State = "grows"
		case s.Trends[j].Verdict == leak.VerdictUnknown && v.State == "":
			v.State = "undecided"
		}
	}
	var still []*leak.ReportChart
	for _, c := range chart.Ordered(s) {
		if low, high := chart.Extent(c); low == high {
			still = append(still, c)
		} else {
			v.Charts = append(v.Charts, figureOf(i, s, c))
		}
	}
	for _, line := range chart.Still(s, still) {
		v.Still = append(v.Still, render.Clean(line))
	}
	v.Legend = legend(s)
	v.More = max(0, len(s.Marks)-maxListed)
	for j := len(s.Marks) - 1; j >= v.More; j-- {
		m := &s.Marks[j]
		at := m.At.In(s.To.Location())
		v.Marks = append(v.Marks, mark{At: at.Format("2 Jan 15:04:05"), Stamp: at.Format(time.RFC3339), Kind: render.Clean(m.Kind), Text: render.Clean(m.Text)})
	}
	return v
}

// mostTurns is how many turns of the clock are told: those of a century.
const mostTurns = 200

// turns says how far the clock on the wall is ahead of UTC, in seconds: at the
// begin of the time shown, and from each Unix time on at which it was turned.
func turns(s *leak.ReportService) string {
	from, to := chart.Span(s)
	at := time.UnixMilli(int64(from * 1000)).In(s.To.Location())
	_, offset := at.Zone()
	out := fmt.Sprintf("[[0,%d]", offset)
	for range mostTurns {
		_, at = at.ZoneBounds()
		if at.IsZero() || float64(at.Unix()) > to {
			break
		}
		_, offset = at.Zone()
		out += fmt.Sprintf(",[%d,%d]", at.Unix(), offset)
	}
	return out + "]"
}

func figureOf(i int, s *leak.ReportService, c *leak.ReportChart) figure {
	low, high := chart.Extent(c)
	f := figure{
		Index: indexOf(s, c), Service: i, Name: render.Clean(chart.Name(s, c)),
		Facts: fmt.Sprintf("now %s, lowest %s, highest %s", chart.Label(c.Points[len(c.Points)-1][1], c.Bytes), chart.Label(low, c.Bytes), chart.Label(high, c.Bytes)),
	}
	if limit, ok := chart.Limit(c); ok {
		f.Limit = fmt.Sprintf("%s %s", render.Clean(c.LimitName), chart.Label(limit, c.Bytes))
	}
	f.Picture, f.Values, f.Times = picture(s, c)
	return f
}

func indexOf(s *leak.ReportService, c *leak.ReportChart) int {
	for i := range s.Charts {
		if &s.Charts[i] == c {
			return i
		}
	}
	return -1
}

// signs are what marks mean, in the order of the legend.
var signs = []sign{
	{leak.MarkStep, "growth step"},
	{leak.MarkLog, "log line"},
	{leak.MarkRestart, "restart"},
	{leak.MarkOOM, "killed for lack of memory"},
	{leak.MarkClock, "the clock was set"},
	{leak.MarkSleep, "the host slept"},
	{leak.MarkGap, "not watched"},
}

func legend(s *leak.ReportService) []sign {
	var out []sign
	for _, g := range signs {
		for i := range s.Marks {
			if s.Marks[i].Kind == g.Kind {
				out = append(out, sign{class(g.Kind), g.Text})
				break
			}
		}
	}
	return out
}

// class names a kind of mark in the style sheet.
func class(kind string) string {
	if kind == leak.MarkOOM {
		return "oom"
	}
	return kind
}
