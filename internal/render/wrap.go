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
	indent := columnsOf(lead)
	line, width := append(make([]byte, 0, 2*out.width), lead...), indent
	end := func() {
		out.Write(bytes.TrimRight(line, " "))
		out.WriteByte('\n')
	}
	first := true
	for word := range strings.SplitSeq(text, " ") {
		n := columnsOf(word)
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

// columnsOf is how many columns of a terminal a clean text takes: letters of
// East Asia and pictures take two, marks on the letter before them none.
func columnsOf(s string) int {
	if n := utf8.RuneCountInString(s); n == len(s) {
		return n // ASCII, as most is
	}
	n := 0
	for _, r := range s {
		n += columnsOfRune(r)
	}
	return n
}

func columnsOfRune(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// firstColumns gives as much of a text as takes at most n columns.
func firstColumns(s string, n int) string {
	for i, r := range s {
		if n -= columnsOfRune(r); n < 0 {
			return s[:i]
		}
	}
	return s
}

// wide are the blocks of characters that take two columns (Unicode Standard
// Annex 11, W and F).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0xa4cf, 1}, {0xa960, 0xa97c, 1}, {0xac00, 0xd7a3, 1},
		{0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff01, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{{0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1}, {0x1f900, 0x1f9ff, 1}, {0x20000, 0x3fffd, 1}},
}
