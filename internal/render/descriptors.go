package render

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"stanch/internal/leak"
)

// The most groups that the text shows, and the most openers of each: of a
// report that is about descriptors, and of one that is about more.
const (
	maxGroups, maxGroupsShort   = 30, 5
	maxOpeners, maxOpenersShort = 3, 2
)

// rowLead holds the number that a row of a table begins with.
const (
	rowLead  = "  %8s  "
	rowWidth = 12
)

// below is where text stands that belongs to the row above it.
var below = strings.Repeat(" ", rowWidth)

// open writes what a process has open, in the order in which a reader asks: how
// many of how many, what they are and who opened them, what else can run out,
// what fails already.
func open(b *page, s *section) {
	t := s.targets[0]
	d := t.Descriptors
	if d == nil || len(s.targets) > 1 || ended(t) && !losesDescriptors(s) {
		return
	}
	if len(s.findings) > 0 {
		apart(b)
	}
	short := len(d.List) == 0 && !onlyDescriptors(s)
	wrap(b, "descriptors: ", inUse(t))
	if !toldByFindings(t) {
		groups(b, t, short)
	}
	if !short {
		libraries(b, d)
	}
	limits(b, d, short)
	failures(b, d, short)
	if !short {
		ownerless(b, d)
		list(b, d)
	}
}

// libraries writes whose code opened what, where that is more than one's.
func libraries(b *page, d *leak.ReportDescriptors) {
	if len(d.Libraries) < 2 {
		return
	}
	var parts []string
	var unknown uint64 // of those that a filter lets through
	for i := range d.Groups {
		unknown += d.Groups[i].Count
	}
	for _, l := range d.Libraries {
		parts = append(parts, together(Clean(l.Module)+" "+leak.FormatCount(l.Count)))
		unknown -= min(unknown, l.Count)
	}
	if unknown > 0 {
		parts = append(parts, together("not known "+leak.FormatCount(unknown)))
	}
	wrap(b, "opened by the code of: ", strings.Join(parts, ", "))
}

// losesDescriptors reports whether a finding is about descriptors.
func losesDescriptors(s *section) bool {
	return slices.ContainsFunc(s.findings, ofDescriptors)
}

// onlyDescriptors reports whether nothing else of the process was looked at.
func onlyDescriptors(s *section) bool {
	t := s.targets[0]
	other := func(f *leak.Finding) bool { return !ofDescriptors(f) }
	return !ended(t) && t.Allocator == "" && t.HeapBlocks == nil && s.rest == nil && !slices.ContainsFunc(s.findings, other)
}

// ofDescriptors reports whether a finding comes of the look at descriptors and
// limits. What runs out may be of another kind.
func ofDescriptors(f *leak.Finding) bool {
	return f.Kind == leak.KindDescriptor.String() || strings.HasPrefix(f.Rule, "fd.")
}

// inUse writes "874 of 1,024 (RLIMIT_NOFILE, hard 524,288); +31/h; limit in 5 h".
func inUse(t *leak.ReportTarget) string {
	d := t.Descriptors
	text := leak.FormatCount(d.Open) + " open"
	i := slices.IndexFunc(d.Limits, ofNumbers)
	if i < 0 {
		return together(text)
	}
	l := &d.Limits[i]
	switch {
	case l.Max == nil:
		return together(text + ", no limit")
	case l.Hard != nil && *l.Hard > *l.Max:
		text = fmt.Sprintf("%s of %s (%s, hard %s)", leak.FormatCount(d.Open), leak.FormatCount(*l.Max), Clean(l.Limit), leak.FormatCount(*l.Hard))
	default:
		text = fmt.Sprintf("%s of %s (%s)", leak.FormatCount(d.Open), leak.FormatCount(*l.Max), Clean(l.Limit))
	}
	if ended(t) {
		return together(text + " at the exit")
	}
	return strings.Join(append([]string{together(text)}, pace(l)...), "; ")
}

// ofNumbers reports whether it is the limit of the process's own descriptors.
func ofNumbers(l leak.ReportLimit) bool { return l.Name == string(leak.UsageDescriptors) }

// groups writes a row for each group, and who opened what is in it.
func groups(b *page, t *leak.ReportTarget, short bool) {
	most, openers := maxGroups, maxOpeners
	if short {
		most, openers = maxGroupsShort, maxOpenersShort
	}
	all := t.Descriptors.Groups
	shown := all[:min(len(all), most)]
	rows := make([]groupRow, len(shown))
	width := 0
	for i := range shown {
		rows[i] = rowOf(&shown[i])
		width = max(width, utf8.RuneCountInString(rows[i].what))
	}
	for i := range shown {
		rows[i].write(b, width)
		whoOpened(b, &shown[i], openers)
	}
	if len(all) == 0 && t.Descriptors.Open > 0 {
		wrap(b, below, "none of them matches the filter")
	}
	if len(all) == len(shown) {
		return
	}
	var rest uint64
	for i := range all[most:] {
		rest += all[most+i].Count
	}
	text := "in " + counted(uint64(len(all)-most), "other group")
	switch {
	case ended(t):
		text += "; --format json has all"
	case short:
		text += fmt.Sprintf("; stanch fds %d shows all", t.PID)
	default:
		text += "; --all lists them"
	}
	wrap(b, fmt.Sprintf(rowLead, leak.FormatCount(rest)), text)
}

// toldByFindings reports whether the findings of a process that has ended name
// what it had open: they do where it was seen who opened what.
func toldByFindings(t *leak.ReportTarget) bool {
	known := func(g leak.ReportDescriptorGroup) bool { return len(g.Openers) > 0 }
	return ended(t) && slices.ContainsFunc(t.Descriptors.Groups, known)
}

// groupRow is the row of a group: "812  TCP CLOSE_WAIT to 10.0.0.5:5432, idle
// 3 to 5 h  fd 12-27, ...". What does not fit stands below.
type groupRow struct {
	count, what, numbers, below string
}

// The widths of the column of numbers, and of what stands before it.
const (
	numbersWidth = 24
	whatWidth    = columns - rowWidth - len("  ") - numbersWidth
)

func rowOf(g *leak.ReportDescriptorGroup) groupRow {
	r := groupRow{
		count: leak.FormatCount(g.Count), what: cut(Clean(g.What), whatWidth),
		numbers: ranges(g.Numbers, g.Count > uint64(len(g.Numbers))),
	}
	var more []string
	if idle := idleFor(g); idle != "" {
		more = append(more, idle)
	}
	if g.Bytes > 0 {
		size := leak.FormatBytes(float64(g.Bytes))
		if g.Kind == "socket" || g.Kind == "pipe" || g.Kind == "fifo" {
			size += " queued"
		}
		more = append(more, size)
	}
	r.below = strings.Join(more, ", ")
	if all := r.what + ", " + r.below; r.below != "" && utf8.RuneCountInString(all) <= whatWidth {
		r.what, r.below = all, ""
	}
	return r
}

func (r *groupRow) write(b *page, width int) {
	pad := strings.Repeat(" ", width-utf8.RuneCountInString(r.what))
	b.WriteString(strings.TrimRight(fmt.Sprintf(rowLead, r.count)+r.what+pad+"  "+r.numbers, " "))
	b.WriteByte('\n')
	if r.below != "" {
		wrap(b, below, r.below)
	}
}

// idleFor writes "idle 3 to 5 h".
func idleFor(g *leak.ReportDescriptorGroup) string {
	if g.IdleLowS == nil || g.IdleHighS == nil {
		return ""
	}
	low, high := seconds(*g.IdleLowS), seconds(*g.IdleHighS)
	if low == high {
		return "idle " + high
	}
	number, unit, _ := strings.Cut(low, " ")
	if strings.HasSuffix(high, " "+unit) {
		low = number
	}
	return "idle " + low + " to " + high
}

// ranges writes numbers as "fd 3, 12-27, ...", as many as the column holds. More
// says that there are others.
func ranges(numbers []int, more bool) string {
	const tail = ", ..."
	text := ""
	for i := 0; i < len(numbers); {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		part := fmt.Sprint(numbers[i])
		if end > i {
			part += fmt.Sprintf("-%d", numbers[end])
		}
		if text == "" {
			text = "fd " + part
		} else if len(text)+len(", ")+len(part)+len(tail) <= numbersWidth {
			text += ", " + part
		} else {
			more = true
			break
		}
		i = end + 1
	}
	if text != "" && more {
		text += tail
	}
	return text
}

// cut takes the middle out of text that is longer than n: its beginning says
// what it is, and its end which one.
func cut(s string, n int) string {
	const hole = "..."
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	head := (n - len(hole)) / 2
	return string(r[:head]) + hole + string(r[len(r)-(n-len(hole)-head):])
}

// whoOpened writes the openers of a group below it.
func whoOpened(b *page, g *leak.ReportDescriptorGroup, most int) {
	left, last := g.Count, ""
	for i := range g.Openers[:min(len(g.Openers), most)] {
		o := &g.Openers[i]
		text, at := opener(o, g.Module, maxRelated), place(o, maxRelated)
		if at != "" && at == last {
			text = certainly(o) + "opened at the same place"
		}
		if o.Count < g.Count {
			text = together(leak.FormatCount(o.Count)+" ") + text
		}
		wrap(b, below, text)
		left -= min(left, o.Count)
		last = at
	}
	switch {
	case len(g.Openers) == 0 || left == 0:
	case len(g.Openers) > most:
		wrap(b, below, together(counted(left, "other")))
	default:
		wrap(b, below, leak.FormatCount(left)+" whose opening was not seen")
	}
}

// opener says where descriptors were opened and by which call.
func opener(o *leak.ReportOpener, module string, frames int) string {
	text, call := "opened", Clean(o.Call)
	if how := arrivals[o.Call]; how != "" {
		text, call = how, ""
	}
	if at := place(o, frames); at != "" {
		if text != "opened" {
			text += ", opened"
		}
		text += " by " + at
	}
	if by := strings.Trim(call+", "+Clean(module), ", "); by != "" {
		text += " " + together("("+by+")")
	}
	return certainly(o) + text
}

// arrivals are the ways in which a descriptor comes without being opened.
var arrivals = map[string]string{
	"fork": "inherited by fork", "exec": "kept across exec", "received": "received from another process",
}

func certainly(o *leak.ReportOpener) string {
	if o.Certainty == leak.CertaintyLikely {
		return "likely "
	}
	return ""
}

// place is the stack of an opener, "" when none was recorded.
func place(o *leak.ReportOpener, frames int) string {
	if len(o.Stack) == 0 {
		return ""
	}
	return stackOf(o.Stack, o.Site, frames)
}
