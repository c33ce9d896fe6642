package logs

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A line is looked at so far: what comes later rarely tells one kind of line
// from another, and a template is the label of a series.
const (
	maxTokens   = 24
	maxTokenLen = 48
	maxQuoteLen = 200 // of a quoted string that counts as one word
)

// any stands in a template for what varies.
const wildcard = "*"

// split cuts a line into words. A quoted string is one word, so that the
// number of words does not depend on what was quoted.
func split(text string) []string {
	var words []string
	for {
		text = strings.TrimLeft(text, " \t")
		if text == "" {
			return words
		}
		if len(words) == maxTokens {
			return append(words, wildcard)
		}
		end := wordEnd(text)
		words = append(words, text[:end])
		text = text[end:]
	}
}

// wordEnd is where the first word of text ends.
func wordEnd(text string) int {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == ' ' || c == '\t':
			return i
		case (c == '"' || c == '\'' || c == '`') && opens(text, i):
			if n := quoteEnd(text[i+1:], c); n >= 0 {
				i += n + 1
			}
		}
	}
	return len(text)
}

// opens tells whether the quote at i begins a quoted string: an apostrophe
// within a word does not.
func opens(text string, i int) bool {
	return i == 0 || strings.IndexByte("=([{<:,", text[i-1]) >= 0
}

// quoteEnd is where the quoted string that text begins with is closed, or -1.
func quoteEnd(text string, quote byte) int {
	for i := 0; i < len(text) && i <= maxQuoteLen; i++ {
		switch text[i] {
		case '\\':
			i++
		case quote:
			return i
		}
	}
	return -1
}

// tokens are the words of a line with what certainly varies masked: numbers
// and what contains them, addresses, identifiers. A run of numbers is one
// token, so that lists of different lengths are of one kind.
func tokens(text string) []string {
	var list []string
	for _, word := range split(text) {
		word = mask(word)
		if word == wildcard && len(list) > 0 && list[len(list)-1] == wildcard {
			continue
		}
		list = append(list, word)
	}
	return list
}

// mask replaces what varies in one word by *.
func mask(word string) string {
	if scheme, _, is := strings.Cut(word, "://"); is && len(scheme) < 20 {
		return maskRuns(scheme) + "://" + wildcard
	}
	core := strings.Trim(word, "()[]{}<>\"'`,;:.!?")
	if address(core) || identifier(core) || len(core) > maxTokenLen && !strings.ContainsRune(core, ' ') {
		return strings.Replace(word, core, wildcard, 1)
	}
	masked := joinStars(maskRuns(word))
	if len(masked) > maxTokenLen {
		return wildcard
	}
	return masked
}

// address tells whether s is name@host: an email address, or a login.
func address(s string) bool {
	name, host, is := strings.Cut(s, "@")
	return is && name != "" && host != "" && !strings.ContainsAny(s, " =")
}

// identifier tells whether s is a UUID, a MAC or IPv6 address, or a hash: hex
// digits alone, at least one of them a digit.
func identifier(s string) bool {
	digits, length := 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
			length++
		case c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F':
			length++
		case c == '-' || c == ':':
		default:
			return false
		}
	}
	return digits > 0 && (length >= 8 || strings.Count(s, ":") >= 2)
}

// maskRuns replaces the runs of letters and digits that contain a digit. The
// letters before a number are kept: node17 is node*.
func maskRuns(word string) string {
	if strings.IndexFunc(word, unicode.IsDigit) < 0 {
		return word
	}
	var b strings.Builder
	for word != "" {
		n := strings.IndexFunc(word, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if n < 0 {
			n = len(word)
		}
		b.WriteString(maskRun(word[:n]))
		word = word[n:]
		r, size := utf8.DecodeRuneInString(word)
		if size > 0 {
			b.WriteRune(r)
		}
		word = word[size:]
	}
	return b.String()
}

// maskRun masks one run of letters and digits.
func maskRun(run string) string {
	first := strings.IndexFunc(run, unicode.IsDigit)
	switch {
	case first < 0:
		return run
	case first == 0 || identifier(run):
		return wildcard
	}
	letters, rest := run[:first], run[first:]
	if strings.IndexFunc(rest, unicode.IsLetter) >= 0 || mixedCase(letters) {
		return wildcard // x2k4j, XyZ123: drawn by lot, not counted
	}
	return letters + wildcard
}

// mixedCase tells whether an upper case letter follows a lower case one.
func mixedCase(s string) bool {
	lower := false
	for _, r := range s {
		if lower && unicode.IsUpper(r) {
			return true
		}
		lower = unicode.IsLower(r)
	}
	return false
}

// joinStars makes one * of several with nothing but punctuation of numbers
// between: 10.0.0.1:161, 2026-11-21, 3/4, -1.
func joinStars(word string) string {
	if !strings.Contains(word, wildcard) {
		return word
	}
	b := make([]byte, 0, len(word))
	for i := 0; i < len(word); i++ {
		if word[i] == '*' {
			b = dropGlue(b)
		}
		b = append(b, word[i])
	}
	return string(b)
}

// dropGlue takes a * and the punctuation behind it from the end of b, where b
// ends so; and a sign where b is nothing else.
func dropGlue(b []byte) []byte {
	n := len(b)
	for n > 0 && strings.IndexByte(".:,-+_/", b[n-1]) >= 0 {
		n--
	}
	if n > 0 && b[n-1] == '*' {
		return b[:n-1]
	}
	if len(b) == 1 && (b[0] == '-' || b[0] == '+') {
		return b[:0]
	}
	return b
}
