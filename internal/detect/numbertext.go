package detect

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"stanch/internal/leak"
)

// asText finds text read as a number.
func asText(n uint64) []meaning {
	var out []meaning
	known := false
	for _, w := range words4and8(n) {
		// Text of five to seven bytes leaves zeros at one end.
		text := strings.Trim(w.bytes, "\x00")
		if len(text) < 4 || !printable(text) {
			continue
		}
		m := meaning{score: 20 + len(text)}
		m.Text = strconv.Quote(text)
		m.How = fmt.Sprintf("%d bytes of text read as a %s number", len(text), w.order)
		if wordLike(text) {
			m.score += 40
			m.Suspicious = !roundish(n)
		}
		if what := protocol(text); what != "" {
			m.Text += " (" + what + ")"
			m.Suspicious, known = true, true
			m.score = 110
		}
		if w.order == "big-endian" {
			m.score++ // lengths on the wire are
		}
		out = append(out, m)
	}
	if known {
		// What reads as a protocol in one order reads as noise in the other.
		out = slices.DeleteFunc(out, func(m meaning) bool { return m.score < 100 })
	}
	return out
}

// roundish reports whether n is a multiple of a page with at most a header,
// which no text is but by chance.
func roundish(n uint64) bool { return (n+64)%4096 < 192 }

// headers are the sizes of what a program or an allocator puts before or
// behind what it was asked for.
var headers = []uint64{1, 4, 8, 12, 16}

// asTextWithHeader finds the beginnings of protocols read as a length to which
// a header was added, or from which it was taken.
func asTextWithHeader(n uint64) []meaning {
	var out []meaning
	try := func(m, header uint64, how string) {
		if m < largeNumber {
			return
		}
		for _, w := range words4and8(m) {
			text := strings.Trim(w.bytes, "\x00")
			if len(text) < 4 || !printable(text) {
				continue
			}
			if what := protocol(text); what != "" {
				out = append(out, meaning{leak.Meaning{
					Text:       fmt.Sprintf("%q (%s) %s %d", text, what, how, header),
					How:        fmt.Sprintf("text read as a %s length, %s a header", w.order, map[string]string{"+": "with", "-": "without"}[how]),
					Suspicious: true,
				}, 80 - int(header)})
			}
		}
	}
	for _, h := range headers {
		if n > h {
			try(n-h, h, "+")
		}
		if n < math.MaxUint64-h {
			try(n+h, h, "-")
		}
	}
	return out
}

// protocol says what begins with these bytes, from the table of magic numbers.
// Entries longer than the text count when they begin with it.
func protocol(text string) string {
	for i := range leak.Magics {
		m := &leak.Magics[i]
		if m.Bytes == "" || !printable(m.Bytes) || len(m.Bytes) < 4 {
			continue
		}
		if strings.HasPrefix(text, m.Bytes) || len(text) >= 4 && strings.HasPrefix(m.Bytes, text) {
			return m.Name
		}
	}
	return ""
}

func printable(s string) bool {
	for i := range len(s) {
		if (s[i] < 0x20 || s[i] > 0x7e) && s[i] != '\n' && s[i] != '\r' && s[i] != '\t' {
			return false
		}
	}
	return true
}

// wordLike reports whether text looks written, not merely printable: three
// letters or more of one case but for the first, and nothing stranger than a
// digit or one mark beside them.
func wordLike(s string) bool {
	letters, marks, lower, upper := 0, 0, 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z':
			letters++
			lower++
		case c >= 'A' && c <= 'Z':
			letters++
			if i > 0 {
				upper++
			}
		case c >= '0' && c <= '9':
		case strings.IndexByte(" _-/:.{}[]\"<>=,*$\r\n", c) >= 0:
			marks++
		default:
			return false
		}
	}
	return letters >= 3 && letters*4 >= len(s)*3 && marks <= 1+len(s)/8 && (lower == 0 || upper == 0)
}

// mapThreshold is from which size on glibc maps blocks by themselves, rounded
// up to pages (mallopt(3), M_MMAP_THRESHOLD).
const mapThreshold = 128 << 10

// lengthWithin finds the beginning of a protocol that, read as a length, is a
// request which a mapped block of this usable size may answer.
func lengthWithin(usable uint64) (n uint64, what string, ok bool) {
	if usable < mapThreshold || usable > math.MaxUint32 {
		return 0, "", false
	}
	for i := range leak.Magics {
		m := &leak.Magics[i]
		if len(m.Bytes) < 4 || !printable(m.Bytes[:4]) {
			continue
		}
		b := []byte(m.Bytes[:4])
		for _, n := range []uint64{uint64(binary.BigEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b))} {
			// Header, alignment and the page's rest.
			if n <= usable && usable-n < 4096 {
				return n, fmt.Sprintf("%q (%s)", b, m.Name), true
			}
		}
	}
	return 0, "", false
}
