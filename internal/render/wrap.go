package render

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// columns is the usual width of the text, and the largest.
const columns = 100

// leastColumns is the least: tables need it.
const leastColumns = 60

// page is text of a width in the making.
type page struct {
	strings.Builder
	width int // columns
}

func newPage() *page { return &page{width: columns} }

// wrap writes text in lines of at most the page's width, the first after lead, the
// others below its end. Words that belong together are joined by a
// non-breaking space in text. A word longer than a line stands alone.
func wrap(out *page, lead, text string) {
	indent := utf8.RuneCountInString(lead)
	line, width := append(make([]byte, 0, 2*out.width), lead...), indent
	end := func() {
		out.Write(bytes.TrimRight(line, " "))
		out.WriteByte('\n')
	}
	first := true
	for word := range strings.SplitSeq(text, " ") {
		n := utf8.RuneCountInString(word)
		if !first && width+1+n > out.width {
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
