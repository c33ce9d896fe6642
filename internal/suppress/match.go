package suppress

import (
	"strings"

	"stanch/internal/leak"
)

// glob reports whether a pattern matches all of s: * stands for any number of
// bytes, slashes too, and ? for one byte where question is set.
func glob(pattern, s string, question bool) bool {
	// The last * seen, and where in s what follows it was tried.
	star, from := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == s[i] || question && pattern[p] == '?'):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// anyFrame matches findings of which one frame matches.
func anyFrame(match func(*leak.StackFrame) bool) func(*leak.Finding) bool {
	return func(f *leak.Finding) bool {
		for i := range f.Stack {
			if match(&f.Stack[i]) {
				return true
			}
		}
		return false
	}
}

// function matches the name of a function: as the report has it, without
// parameters, and without template arguments.
func function(pattern string, f *leak.StackFrame, question bool) bool {
	if f.Function == "" {
		return false
	}
	if glob(pattern, f.Function, question) {
		return true
	}
	if !strings.ContainsAny(f.Function, "<(") {
		return false
	}
	for _, template := range []bool{true, false} {
		if short := plain(f.Function, template); short != f.Function && glob(pattern, short, question) {
			return true
		}
	}
	return false
}

// plain cuts the parameters off a function's name, and the template arguments
// out of it unless they are to stay. Operators keep their signs.
func plain(name string, template bool) string {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(name); i++ {
		rest := name[i:]
		switch c := name[i]; {
		case depth == 0 && strings.HasPrefix(rest, "operator"):
			return b.String() + operator(rest)
		case strings.HasPrefix(rest, "(anonymous namespace)"):
			if depth == 0 || template {
				b.WriteString("(anonymous namespace)")
			}
			i += len("(anonymous namespace)") - 1
		case c == '(' && depth == 0:
			return b.String()
		case c == '<':
			depth++
			if template {
				b.WriteByte(c)
			}
		case c == '>' && depth > 0:
			depth--
			if template {
				b.WriteByte(c)
			}
		case depth == 0 || template:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// operator cuts the parameters off "operator()(int)" and its like.
func operator(s string) string {
	from := len("operator")
	if strings.HasPrefix(s[from:], "()") {
		from += len("()")
	}
	if i := strings.IndexByte(s[from:], '('); i >= 0 {
		return s[:from+i]
	}
	return s
}

// source matches the path of a source file: whole, or its end behind any of
// its slashes, so that net.c and src/net.c both mean /build/src/net.c.
func source(pattern, file string, question bool) bool {
	for file != "" {
		if glob(pattern, file, question) {
			return true
		}
		_, rest, ok := strings.Cut(file, "/")
		if !ok {
			return false
		}
		file = rest
	}
	return false
}
