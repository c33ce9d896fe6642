package suppress

import (
	"bytes"
	"fmt"
	"strings"

	"stanch/internal/leak"
)

// Parser reads suppression files.
type Parser struct {
	// Readable turns a linker symbol into the name that reports give to the
	// function: demangled, without parameters. Nil leaves symbols as they are.
	Readable func(symbol string) string
}

// Parse adds the rules of a file to those already read. What a line is, is
// told by the line itself: "{" begins a Valgrind suppression, "leak:" is
// LeakSanitizer's, all others are stanch's own, so that files of all three may
// be joined. An error names the file and the line and says what to write.
func (p *Parser) Parse(to *Rules, file string, data []byte) error {
	if p.Readable == nil {
		p = &Parser{Readable: func(s string) string { return s }}
	}
	in := &lines{file: file, rest: bytes.TrimPrefix(data, []byte("\ufeff"))}
	foreign, useless := 0, 0
	for in.next() {
		var r rule
		var err error
		switch {
		case in.text == "{":
			var b block
			if b, err = p.block(in); err != nil {
				return err
			}
			switch {
			case b.foreign:
				foreign++
				continue
			case b.useless != "":
				useless++
				if useless <= maxListed {
					to.notes = append(to.notes, fmt.Sprintf("%s: the suppression %s is not used: %s", b.at, b.name, b.useless))
				}
				continue
			}
			r = rule{text: b.name, at: b.at, stacks: true, match: b.match}
		case strings.HasPrefix(in.text, "leak:"):
			r, err = sanitizer(in)
		default:
			r, err = own(in)
		}
		if err != nil {
			return err
		}
		to.rules = append(to.rules, r)
	}
	if more := useless - maxListed; more > 0 {
		to.notes = append(to.notes, fmt.Sprintf("%s: %d more suppressions are not used for such reasons", file, more))
	}
	if foreign > 0 {
		to.notes = append(to.notes, fmt.Sprintf("%s: ignored %s of other kinds than Memcheck:Leak and Memcheck:Free", file, plural(uint64(foreign), "suppression")))
	}
	return nil
}

// lines walks over the lines of a file that say something.
type lines struct {
	file string
	rest []byte
	n    int
	text string // the line without space around it
}

// next goes to the next line that is neither empty nor a comment.
func (l *lines) next() bool {
	for len(l.rest) > 0 {
		line, rest, _ := bytes.Cut(l.rest, []byte("\n"))
		l.rest = rest
		l.n++
		l.text = string(bytes.TrimSpace(line))
		if l.text != "" && l.text[0] != '#' {
			return true
		}
	}
	return false
}

func (l *lines) at() string { return fmt.Sprintf("%s:%d", l.file, l.n) }

func (l *lines) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %s", l.at(), fmt.Sprintf(format, args...))
}

// quote shows a line of a file that may be anything.
func quote(s string) string {
	if len(s) > 60 {
		s = s[:57] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// Syntax says in a line what a suppression may be.
const Syntax = "function:GLOB, file:GLOB, module:GLOB or key:KEY"

// own reads a line of stanch's own format: [rule=GLOB] WHAT:GLOB [# comment].
func own(in *lines) (rule, error) {
	text := uncommented(in.text)
	r := rule{text: text, at: in.at()}
	rules := ""
	if after, ok := strings.CutPrefix(text, "rule="); ok {
		rules, text = after, ""
		if i := strings.IndexAny(after, " \t"); i >= 0 {
			rules, text = after[:i], strings.TrimSpace(after[i:])
		}
		if rules == "" || text == "" {
			return r, in.errorf("rule= takes the name of a rule and then %s, as in: rule=heap.unreachable function:parse_*", Syntax)
		}
	}
	what, pattern, _ := strings.Cut(text, ":")
	pattern = strings.TrimSpace(pattern)
	var match func(*leak.Finding) bool
	switch what {
	case "function":
		match = anyFrame(func(f *leak.StackFrame) bool { return function(pattern, f, false) })
	case "file":
		match = anyFrame(func(f *leak.StackFrame) bool { return source(pattern, f.File, false) })
	case "module":
		if strings.Contains(pattern, "/") {
			return r, in.errorf("module: takes the name of a file without its directory, as reports have it; write module:%s", pattern[strings.LastIndexByte(pattern, '/')+1:])
		}
		match = anyFrame(func(f *leak.StackFrame) bool { return glob(pattern, f.Module, false) })
	case "key":
		match = func(f *leak.Finding) bool { return f.Key == pattern || f.NameKey == pattern }
	case "fun", "obj", "src":
		return r, in.errorf("%s: belongs between the { and } of a Valgrind suppression; on a line of its own write %s", what, Syntax)
	default:
		return r, in.errorf("%s is no suppression; write %s, LeakSanitizer's leak:PATTERN, or Valgrind's { ... }", quote(in.text), Syntax)
	}
	if pattern == "" {
		return r, in.errorf("%s: needs something to match behind it, as in %s", what, map[string]string{
			"function": "function:parse_*", "file": "file:net.c", "module": "module:libfoo.so*", "key": "key:heap.unreachable:size408:zero",
		}[what])
	}
	r.stacks = what != "key"
	r.match = func(f *leak.Finding) bool { return (rules == "" || glob(rules, f.Rule, false)) && match(f) }
	return r, nil
}

// uncommented cuts a comment behind a rule. Names hold # too, as in
// main::{lambda()#1}, but not behind a space.
func uncommented(s string) string {
	for _, mark := range []string{" #", "\t#"} {
		if i := strings.Index(s, mark); i >= 0 {
			s = strings.TrimSpace(s[:i])
		}
	}
	return s
}

// sanitizer reads LeakSanitizer's leak:PATTERN: found anywhere in the name of
// function, file or module of any frame; * stands for anything, ^ and $ for the
// ends.
func sanitizer(in *lines) (rule, error) {
	r := rule{text: in.text, at: in.at(), stacks: true}
	pattern := strings.TrimPrefix(in.text, "leak:")
	if strings.Trim(pattern, "^$ ") == "" {
		return r, in.errorf("leak: needs a pattern behind it, as in leak:parse_reply")
	}
	if rest, ok := strings.CutPrefix(pattern, "^"); ok {
		pattern = rest
	} else {
		pattern = "*" + pattern
	}
	if head, _, ok := strings.Cut(pattern, "$"); ok {
		pattern = head // whatever stands behind the end is never reached
	} else {
		pattern += "*"
	}
	anywhere := anyFrame(func(f *leak.StackFrame) bool {
		for _, s := range []string{f.Function, f.File, f.Module} {
			if s != "" && glob(pattern, s, false) {
				return true
			}
		}
		return false
	})
	r.match = func(f *leak.Finding) bool { return leaks(f) && anywhere(f) }
	return r, nil
}
