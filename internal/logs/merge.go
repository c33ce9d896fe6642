package logs

import (
	"slices"
	"strings"
	"unicode"
)

// A place in a line becomes variable once it has shown so many different
// values while the rest of the line stayed the same. What looks like a name
// (db-primary, "Anna", None) varies at once. Plain words are often what the
// line is about (opened, closed), so a pair of them stays two templates. Paths
// are often few and tell much: requests to one of them may be what leaks.
const (
	valuesOfName  = 2
	valuesOfWord  = 3
	valuesOfFirst = 6 // the first word, when it is a plain one
	valuesOfPath  = 8
	valuesNever   = 1 << 30
)

// levels are never variable: an error is another kind of line.
var levels = map[string]bool{
	"trace": true, "debug": true, "info": true, "notice": true, "warn": true, "warning": true,
	"error": true, "err": true, "crit": true, "critical": true, "alert": true, "emerg": true,
	"fatal": true, "panic": true, "severe": true, "fine": true, "log": true,
}

// merge finds templates that differ from the words in few places that have
// shown enough values, and makes one of them. It returns nil when there are
// none.
func (t *Templates) merge(words []string) *kind {
	if len(words) == 1 {
		return nil
	}
	group := t.byWords[len(words)]
	most := max(1, len(words)/3)
	tried := map[places]bool{} // templates that differ at the same places are looked at together
	for _, k := range group {
		at := differ(k.words, words, most)
		if at == 0 || tried[at] {
			continue
		}
		tried[at] = true
		if at.has(words, func(i int) bool { return needed(words[i], i) == valuesNever }) {
			continue
		}
		alike := []*kind{}
		for _, other := range group {
			if sameBut(other.words, words, at) {
				alike = append(alike, other)
			}
		}
		if !varies(alike, words, at) {
			continue
		}
		if general := generalize(alike, words); says(general) {
			return t.insert(general)
		}
	}
	return nil
}

// places are some words of a line, by their bits: a line has maxTokens words
// and one at most.
type places uint32

// has tells whether something is so at one of the places.
func (p places) has(words []string, is func(i int) bool) bool {
	for i := range words {
		if p&(1<<i) != 0 && is(i) {
			return true
		}
	}
	return false
}

// differ gives the places where a template does not cover the words, none when
// they are more than most.
func differ(template, words []string, most int) (at places) {
	for i, w := range template {
		if stands(w, words[i]) {
			continue
		}
		if most--; most < 0 {
			return 0
		}
		at |= 1 << i
	}
	return at
}

// sameBut tells whether a template covers the words at all places but those.
func sameBut(template, words []string, at places) bool {
	for i, w := range template {
		if at&(1<<i) == 0 && !stands(w, words[i]) {
			return false
		}
	}
	return true
}

// varies tells whether each of the places has shown enough different values.
func varies(alike []*kind, words []string, at places) bool {
	return !at.has(words, func(i int) bool {
		need := needed(words[i], i)
		values := map[string]bool{words[i]: true}
		for _, k := range alike {
			values[k.words[i]] = true
			need = max(need, needed(k.words[i], i))
		}
		return len(values) < need || len(words) == 2 && len(values) < valuesOfWord
	})
}

// needed is how many values such a word must have shown to be variable.
func needed(word string, place int) int {
	key, value, pair := strings.Cut(word, "=")
	if pair && key != "" {
		word = value
	}
	core := strings.Trim(word, "()[]{}<>,;:.!?")
	switch {
	case core == wildcard || core == "":
		return valuesOfName
	case levels[strings.ToLower(core)]:
		return valuesNever
	case strings.Contains(core, "/"): // a path, a URL, "GET /login HTTP/1.1"
		return valuesOfPath
	case strings.IndexFunc(core, func(r rune) bool { return !unicode.IsLetter(r) }) >= 0:
		return valuesOfName
	case place == 0:
		return valuesOfFirst
	}
	return valuesOfWord
}

// generalize gives what covers the words and all that are alike.
func generalize(alike []*kind, words []string) []string {
	general := slices.Clone(words)
	for i := range general {
		for _, k := range alike {
			if k.words[i] != general[i] {
				general[i] = common(k.words[i], general[i])
			}
		}
	}
	return general
}

// common is what stands for both words: key=* for two values of one key.
func common(a, b string) string {
	key, _, pair := strings.Cut(a, "=")
	if pair && key != "" && strings.HasPrefix(b, key+"=") {
		return key + "=" + wildcard
	}
	return wildcard
}
