package render

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"stanch/internal/leak"
)

// maxCell is the width of the words that the kernel gives.
const maxCell = 14

// leastRoom is what is left at least for what a descriptor is.
const leastRoom = 24

// listColumns are what stands in columns of its own: what is short. The rest of
// a line is text.
var listColumns = []struct {
	name string
	of   func(*leak.ReportDescriptor) string
}{
	{"KIND", func(d *leak.ReportDescriptor) string { return cut(Clean(d.Kind), maxCell) }},
	{"STATE", func(d *leak.ReportDescriptor) string {
		if d.Socket == nil {
			return ""
		}
		return cut(Clean(d.Socket.State), maxCell)
	}},
	{"EXEC", func(d *leak.ReportDescriptor) string {
		if d.CloseOnExec {
			return "close"
		}
		return "keep"
	}},
	{"AGE", func(d *leak.ReportDescriptor) string {
		if d.AgeS == nil {
			return ""
		}
		return seconds(*d.AgeS)
	}},
}

// list writes each descriptor. A column that would be empty is left out.
func list(b *page, d *leak.ReportDescriptors) {
	if len(d.List) == 0 {
		return
	}
	b.WriteByte('\n')
	width := make([]int, len(listColumns))
	for i := range d.List {
		for c := range listColumns {
			width[c] = max(width[c], utf8.RuneCountInString(listColumns[c].of(&d.List[i])))
		}
	}
	line := func(num string, cell func(c int) string) string {
		lead := fmt.Sprintf(rowLead, num)
		for c := range listColumns {
			if width[c] > 0 {
				n := max(width[c], len(listColumns[c].name))
				text := cell(c)
				lead += text + strings.Repeat(" ", n-utf8.RuneCountInString(text)+2)
			}
		}
		return lead
	}
	wrap(b, line("FD", func(c int) string { return listColumns[c].name }), "WHAT")
	for i := range d.List {
		e := &d.List[i]
		lead := line(fmt.Sprint(e.Num), func(c int) string { return listColumns[c].of(e) })
		wrap(b, lead, described(e, max(b.width-utf8.RuneCountInString(lead), leastRoom)))
	}
}

// described says what a descriptor is, in one line, then how it stands, who
// opened it and what was done with it last.
func described(e *leak.ReportDescriptor, room int) string {
	parts := []string{identity(e, room-len(","))}
	if e.Bytes > 0 && e.Socket == nil {
		parts = append(parts, together(leak.FormatBytes(float64(e.Bytes))))
	}
	if e.Socket != nil {
		parts = append(parts, flow(e.Socket)...)
	}
	text := strings.Join(parts, ", ")
	if e.Opener != nil {
		text += "; " + opener(e.Opener, "", 2)
	}
	if e.LastCall != "" {
		text += "; last call " + cut(Clean(e.LastCall), leastRoom)
		if e.LastCallS != nil {
			text += " " + together(seconds(*e.LastCallS)+" ago")
		}
	}
	return text
}

// identity is what a descriptor is, but for what has a column of its own.
func identity(e *leak.ReportDescriptor, room int) string {
	what := e.What
	if e.Socket != nil && e.Socket.State != "" {
		what = strings.Replace(what, " "+e.Socket.State, "", 1)
	}
	const deleted = " (deleted)"
	if name := strings.TrimSuffix(Clean(what), deleted); e.Deleted {
		return cut(name, room-len(deleted)) + together(deleted)
	}
	return cut(Clean(what), room)
}

// flow says what waits in a socket, and how long it is idle.
func flow(s *leak.ReportSocket) []string {
	var parts []string
	say := func(text string) { parts = append(parts, together(text)) }
	if s.State == "LISTEN" {
		if s.SendQueue > 0 {
			say(fmt.Sprintf("%s of %s waiting to be accepted", leak.FormatCount(s.ReceiveQueue), leak.FormatCount(s.SendQueue)))
		}
		return parts
	}
	if s.ReceiveQueue > 0 {
		say(leak.FormatBytes(float64(s.ReceiveQueue)) + " unread")
	}
	if s.SendQueue > 0 {
		say(leak.FormatBytes(float64(s.SendQueue)) + " unsent")
	}
	switch in, out := s.LastReceivedS, s.LastSentS; {
	case in != nil && out != nil:
		say("idle " + seconds(min(*in, *out)))
	case in != nil:
		say("nothing received for " + seconds(*in))
	case out != nil:
		say("nothing sent for " + seconds(*out))
	}
	return parts
}
