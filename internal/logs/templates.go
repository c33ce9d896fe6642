// Package logs reduces log lines to templates, and tells which templates come
// before growth. It is pure: package source/logfile reads the lines.
package logs

import (
	"slices"
	"strings"
)

// Options of Templates. The zero value is of use.
type Options struct {
	Max  int                      // templates at most, 200 when zero
	Mask func(text string) string // hides the secrets of a line; nil when it has none
}

// What is kept of templates, whatever comes.
const (
	defaultMax = 200
	maxExample = 500 // bytes of a line that is kept to show

	// When there is no room, a template that hardly ever occurred gives way to
	// a new one, but only once in so many lines: a log without kinds must not
	// make a series of every line.
	turnover = 100_000
	rare     = 2 // lines
)

// Templates are the kinds of lines of one log. The same lines in the same
// order give the same templates; and templates given to Seed stay, so the
// labels of series are the same after a restart. One goroutine at a time may
// use it.
type Templates struct {
	max     int
	mask    func(string) string
	count   int
	lines   int
	refused int
	turned  int              // lines when the last template gave way
	byWords map[int][]*kind  // by number of words
	byText  map[string]*kind // of the template
}

// kind is one template.
type kind struct {
	words   []string
	text    string
	example string
	lines   int
	last    int // number of the line that was the last of it
}

// NewTemplates makes an empty set of templates.
func NewTemplates(o Options) *Templates {
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	if o.Mask == nil {
		o.Mask = func(text string) string { return text }
	}
	return &Templates{max: o.Max, mask: o.Mask, byWords: map[int][]*kind{}, byText: map[string]*kind{}}
}

// Seed adds templates that Add has returned earlier, in this process or before
// a restart. Those that another one covers are left out. Of more than there is
// room for, the first ones are taken.
func (t *Templates) Seed(templates []string) {
	list := make([][]string, 0, len(templates))
	for _, text := range templates {
		if words := split(text); says(words) && len(list) < t.max {
			list = append(list, words)
		}
	}
	// What covers others goes first; then by text, so that the order in which
	// a store gives them does not matter.
	slices.SortFunc(list, func(a, b []string) int {
		if d := generality(b) - generality(a); d != 0 {
			return d
		}
		return slices.Compare(a, b)
	})
	for _, words := range list {
		if t.count < t.max && t.match(words) == nil {
			t.insert(words)
		}
	}
}

// Add tells which template a line belongs to. It returns "" for a line of
// nothing but numbers, and where there is no room for a new template. A template
// may become more general while the first few lines of a kind are seen; Rank
// knows that.
func (t *Templates) Add(text string) (template string) {
	words := tokens(text)
	if !says(words) {
		return ""
	}
	t.lines++
	k := t.match(words)
	// To mask a line costs far more than to know its kind, so it is done only
	// where something of the line is kept.
	if k == nil || k.example == "" {
		text = t.mask(text)
		if k = t.add(tokens(text)); k == nil {
			return ""
		}
	}
	if k.example == "" {
		k.example = cut(text, maxExample)
	}
	k.lines++
	k.last = t.lines
	return k.text
}

// add gives the template of a line without secrets, a new one where there is
// none and room for it.
func (t *Templates) add(words []string) *kind {
	if !says(words) {
		return nil
	}
	k := t.match(words)
	if k == nil {
		k = t.merge(words)
	}
	if k == nil && !t.room() {
		t.refused++
		return nil
	}
	if k == nil {
		k = t.insert(words)
	}
	return k
}

// Refused is how many lines were of no template, since there was no room for
// one more.
func (t *Templates) Refused() int { return t.refused }

// Examples are the first lines of templates since the start, cut after 500
// bytes, by template.
func (t *Templates) Examples() map[string]string {
	list := make(map[string]string, t.count)
	for text, k := range t.byText {
		if k.example != "" {
			list[text] = k.example
		}
	}
	return list
}

// List gives all templates, sorted.
func (t *Templates) List() []string {
	list := make([]string, 0, t.count)
	for text := range t.byText {
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

// match finds the template that covers the words; of several, the one that
// says most.
func (t *Templates) match(words []string) *kind {
	var best *kind
	for _, k := range t.byWords[len(words)] {
		if covers(k.words, words) && (best == nil || before(k, best)) {
			best = k
		}
	}
	return best
}

func before(a, b *kind) bool {
	if x, y := generality(a.words), generality(b.words); x != y {
		return x < y
	}
	return a.text < b.text
}

// insert adds a template, in the place of those that it covers.
func (t *Templates) insert(words []string) *kind {
	k := &kind{words: words, text: strings.Join(words, " "), last: t.lines}
	for _, other := range slices.Clone(t.byWords[len(words)]) {
		if !covers(words, other.words) {
			continue
		}
		k.lines += other.lines
		if k.example == "" {
			k.example = other.example
		}
		t.remove(other)
	}
	t.byWords[len(words)] = append(t.byWords[len(words)], k)
	t.byText[k.text] = k
	t.count++
	return k
}

func (t *Templates) remove(k *kind) {
	list := t.byWords[len(k.words)]
	t.byWords[len(k.words)] = slices.DeleteFunc(list, func(other *kind) bool { return other == k })
	delete(t.byText, k.text)
	t.count--
}

// room makes room for one template, where that is possible.
func (t *Templates) room() bool {
	if t.count < t.max {
		return true
	}
	if t.lines-t.turned < turnover {
		return false
	}
	var oldest *kind
	for _, k := range t.byText {
		if k.lines <= rare && t.lines-k.last >= turnover && (oldest == nil || k.last < oldest.last || k.last == oldest.last && k.text < oldest.text) {
			oldest = k
		}
	}
	if oldest == nil {
		return false
	}
	t.turned = t.lines
	t.remove(oldest)
	return true
}

// covers tells whether a template's words stand for all of the other words.
func covers(template, words []string) bool {
	if len(template) != len(words) {
		return false
	}
	for i, w := range template {
		if !stands(w, words[i]) {
			return false
		}
	}
	return true
}

// stands tells whether a template's word stands for another word.
func stands(w, word string) bool {
	return w == word || w == wildcard || strings.HasSuffix(w, "=*") && strings.HasPrefix(word, w[:len(w)-1])
}

// generality says how much a template stands for: if it covers another one, it
// is the more general.
func generality(words []string) int {
	n := 0
	for _, w := range words {
		switch {
		case w == wildcard:
			n += 2
		case strings.HasSuffix(w, "=*"):
			n++
		}
	}
	return n
}

// says tells whether a template says anything of its own.
func says(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return w != wildcard })
}

// cut shortens a text without breaking a character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}
