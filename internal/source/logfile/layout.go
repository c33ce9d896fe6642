package logfile

import (
	"strings"
	"time"
)

// layout is where the times of a log stand: it is found in the first lines,
// and again when lines of another kind come.
type layout struct {
	form    int  // of forms; bootIndex for the kernel's
	first   bool // the line begins with it, but for brackets, a level letter or a syslog priority
	bracket bool // it stands in brackets
}

const bootIndex = -1

// epochIndex is the place of epochForm among the forms.
const epochIndex = 5

// What is known of the place of a time.
const (
	reach = 160 // bytes of a line in which a time may begin
	words = 8   // words before it at most: a request's address, a level, a logger
	agree = 3   // lines in a row that must have a time within, before that is believed
)

// finder finds the times of a log's lines.
type finder struct {
	known   bool
	current layout
	other   layout // of the last lines, where it is not current
	seen    int    // how many they are
}

// find gives the time of a line and the line without it.
func (f *finder) find(line string, ref time.Time) (st stamp, text string, ok bool) {
	if f.known {
		if st, text, ok := look(line, ref, &f.current); ok {
			f.seen = 0
			return st, text, true
		}
	}
	var l layout
	if st, text, l, ok = search(line, ref); !ok {
		return stamp{}, line, false
	}
	// At its begin a line has its time; within, it may have any. It is taken
	// out of the text all the same, so that the first lines read as the others.
	if !l.first {
		if l != f.other {
			f.other, f.seen = l, 0
		}
		if f.seen++; f.seen < agree {
			return stamp{}, text, false
		}
	}
	f.current, f.known, f.seen = l, true, 0
	return st, text, true
}

// search looks for a time of any form, at the begin of a line and then behind
// each of the first words.
func search(line string, ref time.Time) (st stamp, text string, l layout, ok bool) {
	for _, l.first = range []bool{true, false} {
		for _, l.bracket = range []bool{false, true} {
			if l.bracket && l.first {
				l.form = bootIndex
				if st, text, ok = look(line, ref, &l); ok {
					return st, text, l, true
				}
			}
			for l.form = range forms {
				if l.form == epochIndex && !l.first && !l.bracket {
					continue // a bare number within a line is any number
				}
				if st, text, ok = look(line, ref, &l); ok {
					return st, text, l, true
				}
			}
		}
	}
	return stamp{}, line, layout{}, false
}

// look looks for a time where the layout says.
func look(line string, ref time.Time, l *layout) (stamp, string, bool) {
	read := bootForm
	if l.form != bootIndex {
		read = forms[l.form]
	}
	at := start(line)
	if l.first {
		return cutStamp(line, at, ref, l.bracket, read)
	}
	for range words {
		space := strings.IndexByte(line[at:], ' ')
		if space < 0 || at+space > reach {
			break
		}
		at += space + 1
		if st, text, ok := cutStamp(line, at, ref, l.bracket, read); ok {
			st.within = true
			return st, text, true
		}
	}
	return stamp{}, line, false
}

// cutStamp reads the time at a place, in brackets or not, and takes it out of
// the line.
func cutStamp(line string, at int, ref time.Time, bracket bool, read form) (stamp, string, bool) {
	begin := at
	if bracket {
		if at >= len(line) || line[at] != '[' && line[at] != '(' {
			return stamp{}, line, false
		}
		at++
	}
	st, n := read(line[at:], ref)
	if n == 0 {
		return stamp{}, line, false
	}
	end := at + n
	if bracket && end < len(line) && (line[end] == ']' || line[end] == ')') {
		end++
	}
	rest := strings.TrimLeft(line[end:], " \t:")
	if rest == "" {
		return st, strings.TrimRight(line[:begin], " "), true
	}
	return st, line[:begin] + rest, true
}

// start is where a line's first word is: behind the priority of syslog
// (<34>, or <34>1 of RFC 5424), or the level letter of glog.
func start(line string) int {
	if len(line) > 5 && strings.IndexByte("IWEFDV", line[0]) >= 0 && isDigit(line[1]) && isDigit(line[4]) {
		return 1
	}
	if line == "" || line[0] != '<' {
		return 0
	}
	end := strings.IndexByte(line[:min(len(line), 5)], '>')
	if end < 2 || !isDigit(line[1]) {
		return 0
	}
	if strings.HasPrefix(line[end+1:], "1 ") {
		end += 2
	}
	return end + 1
}
