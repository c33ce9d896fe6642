package logfile

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// maxLine is how much of a line is kept; templates look at less.
const maxLine = 8 << 10

// splitter cuts what is read into lines. The zero value is at the begin of a
// line.
type splitter struct {
	part    []byte
	began   int64 // when the first byte of part came
	skip    bool  // until the end of a line that began before what is read
	started bool  // part belongs to a line, though it may be empty
}

// add takes what came at a time, and gives the lines that it ends.
func (s *splitter) add(data []byte, arrived int64, emit func(line []byte, arrived int64)) {
	for len(data) > 0 {
		if !s.started {
			s.started, s.began = true, arrived
		}
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			s.keep(data)
			return
		}
		if len(s.part) == 0 && !s.skip {
			emit(data[:min(end, maxLine)], s.began)
		} else {
			s.keep(data[:end])
			s.flush(emit)
		}
		s.part, s.skip, s.started = s.part[:0], false, false
		data = data[end+1:]
	}
}

// keep adds to the unfinished line what there is room for.
func (s *splitter) keep(data []byte) {
	if s.skip {
		return
	}
	s.part = append(s.part, data[:min(len(data), maxLine-len(s.part))]...)
}

// flush gives the unfinished line, where there is one.
func (s *splitter) flush(emit func(line []byte, arrived int64)) {
	if len(s.part) > 0 {
		emit(s.part, s.began)
	}
	*s = splitter{part: s.part[:0]}
}

// clean makes text of a line: without colours, NUL bytes and other control
// characters; what is not UTF-8 becomes U+FFFD.
func clean(line []byte) string {
	if plain(line) {
		return string(line)
	}
	var b strings.Builder
	b.Grow(len(line))
	for len(line) > 0 {
		if n := escape(line); n > 0 {
			line = line[n:]
			continue
		}
		r, size := utf8.DecodeRune(line)
		if r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			b.WriteRune(r)
		}
		line = line[size:]
	}
	return strings.TrimRight(b.String(), " \t")
}

// plain tells whether a line is printable ASCII and ends in no space.
func plain(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return len(line) == 0 || line[len(line)-1] != ' ' && line[len(line)-1] != '\t'
}

// cut shortens a text to what is kept of a line.
func cut(text string) string {
	if len(text) <= maxLine {
		return text
	}
	return strings.ToValidUTF8(text[:maxLine], "")
}

// escape is the length of the control sequence that a line begins with, such
// as colours (ECMA-48, 5.4: CSI, parameters, a final byte).
func escape(line []byte) int {
	if len(line) < 2 || line[0] != 0x1b || line[1] != '[' {
		return 0
	}
	for i := 2; i < len(line); i++ {
		if line[i] >= 0x40 && line[i] <= 0x7e {
			return i + 1
		}
	}
	return len(line)
}
