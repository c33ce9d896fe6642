package render

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// columns is the width of the text.
const columns = 100

// wrap writes text in lines of at most columns, the first after lead, the
// others below its end. Words that belong together are joined by a
// non-breaking space in text. A word longer than a line stands alone.
func wrap(out *strings.Builder, lead, text string) {
	indent := utf8.RuneCountInString(lead)
	line, width := append(make([]byte, 0, 2*columns), lead...), indent
	end := func() {
		out.Write(bytes.TrimRight(line, " "))
		out.WriteByte('\n')
	}
	first := true
	for word := range strings.SplitSeq(text, " ") {
		n := utf8.RuneCountInString(word)
		if !first && width+1+n > columns {
			end()
			line = append(line[:0], strings.Repeat(" ", indent)...)
			width, first = indent, true
		}
		if !first {
			line = append(line, ' ')
			width++
		}
		line = append(line, strings.ReplaceAll(word, nbsp, " ")...)
		width += n
		first = false
	}
	end()
}

const nbsp = "\u00a0"

// together keeps the words of s on one line.
func together(s string) string { return strings.ReplaceAll(s, " ", nbsp) }

// Clean makes foreign text safe for a terminal: names of a target may hold
// anything, also what turns the direction of writing.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r) && r != '\u0085':
			return ' '
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}
