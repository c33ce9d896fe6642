package render

import (
	"strings"
	"unicode/utf8"
)

// columns is the width of the text.
const columns = 100

// wrap writes text in lines of at most columns, the first after lead, the
// others below its end. Words that belong together are joined by a
// non-breaking space in text. A word longer than a line stands alone.
func wrap(out *strings.Builder, lead, text string) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(lead))
	line := lead
	empty := true
	for _, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		if !empty && utf8.RuneCountInString(line)+1+n > columns {
			out.WriteString(strings.TrimRight(line, " "))
			out.WriteByte('\n')
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line += strings.ReplaceAll(word, nbsp, " ")
		empty = false
	}
	out.WriteString(strings.TrimRight(line, " "))
	out.WriteByte('\n')
}

const nbsp = "\u00a0"

// together keeps the words of s on one line.
func together(s string) string { return strings.ReplaceAll(s, " ", nbsp) }

// clean makes foreign text safe for a terminal: names of a target may hold
// anything.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError:
			return '?'
		case r == '\u00a0':
			return ' '
		}
		return r
	}, s)
}
