package render

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"stanch/internal/leak"
)

// ProfileFormat is one way to show a profile.
type ProfileFormat struct {
	Name  string // for --format
	Ext   string // how the names of files that it writes end
	Type  string // media type
	Write func(io.Writer, *leak.Profile) error
}

// ProfileFormats are all formats of a profile, the default first.
var ProfileFormats = []ProfileFormat{
	{"text", ".txt", "text/plain; charset=utf-8", ProfileText},
	{"json", ".json", "application/json", ProfileJSON},
	{"pprof", ".pb.gz", "application/octet-stream", Pprof},
}

// ProfileJSON writes the profile as stanch.profile/v1. It normalizes the
// profile first, so that no slice is null.
func ProfileJSON(w io.Writer, p *leak.Profile) error {
	p.Normalize()
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(p)
}

// ReadProfile reads a profile that ProfileJSON wrote, also one of a later
// version that knows more fields. It has no whole stacks.
func ReadProfile(r io.Reader) (*leak.Profile, error) {
	var out leak.Profile
	if err := json.NewDecoder(r).Decode(&out); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if out.Schema != leak.ProfileSchema {
		return nil, fmt.Errorf("read profile: schema %q is not %s", out.Schema, leak.ProfileSchema)
	}
	out.Normalize()
	return &out, nil
}

// ProfileText writes the profile for a person: a table of sites, each with its
// numbers in one line and its calls in the next.
func ProfileText(w io.Writer, p *leak.Profile) error {
	p.Normalize()
	b := newPage()
	for i := range p.Targets {
		head(b, &p.Targets[i])
	}
	wrap(b, "recorded ", recorded(p))
	if p.Count > 0 {
		b.WriteByte('\n')
		table(b, p)
		b.WriteByte('\n')
	}
	wrap(b, "", held(p))
	for _, g := range p.Gaps {
		wrap(b, "not seen: ", Clean(g))
	}
	for _, n := range p.Notes {
		wrap(b, "note: ", Clean(n))
	}
	if c := cost(&p.Observed); c != "" {
		wrap(b, "cost: ", c)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// recorded says for how long, and what.
func recorded(p *leak.Profile) string {
	r := &p.Recorded
	s := together(seconds(p.Observed.DurationS)) + ": "
	except := ""
	if len(p.Gaps) > 0 {
		except = ", but for what was not seen (below)"
	}
	switch r.Mode {
	case leak.RecordExact:
		s += "every block, with its stack" + except
	case leak.RecordSizes:
		var sizes []string
		for _, z := range r.Sizes {
			if z.Min == z.Max {
				sizes = append(sizes, leak.FormatCount(z.Min))
			} else {
				sizes = append(sizes, together(leak.FormatCount(z.Min)+" to "+leak.FormatCount(z.Max)))
			}
		}
		s += "every block of " + strings.Join(sizes, " or ") + " bytes, with its stack" + except + "; no other"
	default:
		s += fmt.Sprintf("a sample, about one block for each %s KiB allocated; the numbers are estimates", leak.FormatCount(r.SampleBytes>>10))
	}
	if len(r.Through) > 0 {
		var names []string
		for _, f := range r.Through {
			names = append(names, Clean(f))
		}
		s += "; shown are calls through " + strings.Join(names, " or ")
	}
	return s
}

// held sums up, and says what the table cannot know.
func held(p *leak.Profile) string {
	t := &p.Total
	s := "nothing was recorded"
	if p.Count == 0 && p.Recorded.Mode == leak.RecordSample {
		s += ": --mode exact or a smaller --sample-bytes sees more"
	}
	if p.Count > 0 {
		hold := " hold "
		if p.Count == 1 {
			hold = " holds "
		}
		s = fmt.Sprintf("%s%s%s%s in %s; acquired %s, freed %s", plural(uint64(p.Count), "site"), hold, roughly(t),
			together(leak.FormatBytes(float64(t.Held.Bytes))), together(plural(t.Held.Count, "block")),
			together(plural(t.Acquired.Count, "block")), leak.FormatCount(t.Released.Count))
		if more := p.Count - len(p.Sites); more > 0 {
			s += fmt.Sprintf("; %s not listed (--top, --format json)", together(plural(uint64(more), "site")))
		}
	}
	if t.BeforeAttach == nil {
		s += ". What was held before the recording began is not known"
	}
	return s
}

func roughly(c *leak.ProfileCounts) string {
	if c.Estimated {
		return "about "
	}
	return ""
}

func plural(n uint64, what string) string {
	if n != 1 {
		what += "s"
	}
	return leak.FormatCount(n) + " " + what
}

// table writes the sites. Numbers that rest on samples have "about" before
// them.
func table(b *page, p *leak.Profile) {
	rows := [][]string{{"", "HELD", "BLOCKS", "ALLOCATED", "BLOCKS", "FREED", "BLOCKS", "OLDEST", "GROWTH"}}
	for i := range p.Sites {
		rows = append(rows, row(&p.Sites[i]))
	}
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for i, r := range rows {
		var line strings.Builder
		for j, cell := range r {
			if j > 0 && width[0] > 0 || j > 1 {
				line.WriteString("  ")
			}
			line.WriteString(strings.Repeat(" ", width[j]-utf8.RuneCountInString(cell)) + cell)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
		if i > 0 {
			b.WriteString(calls(&p.Sites[i-1]))
		}
	}
}

func row(s *leak.ProfileSite) []string {
	r := []string{strings.TrimSpace(roughly(&s.ProfileCounts))}
	for _, a := range []leak.Amount{s.Held, s.Acquired, s.Released} {
		r = append(r, leak.FormatBytes(float64(a.Bytes)), leak.FormatCount(a.Count))
	}
	oldest, growth := "-", "-"
	if s.OldestS != nil {
		oldest = seconds(*s.OldestS)
	}
	if s.BytesPerHour != nil {
		growth = leak.FormatBytes(*s.BytesPerHour) + "/h"
		if *s.BytesPerHour > 0 {
			growth = "+" + growth
		}
	}
	return append(r, oldest, growth)
}

// calls writes the line and its callers, as a finding does.
func calls(s *leak.ProfileSite) string {
	b := newPage()
	text := "no stack was recorded"
	if len(s.Stack) > 0 {
		text = stack(&leak.Finding{Stack: s.Stack, Site: s.Site})
	}
	wrap(b, "    ", text)
	return b.String()
}
