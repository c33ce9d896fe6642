package logfile

import (
	"strings"
	"time"
)

// scanner reads parts of a time one after the other. Once a part is not there
// it is bad, and what follows reads nothing.
type scanner struct {
	text string
	at   int
	bad  bool
	// anyYear says that a number behind the time is its year, whatever it is.
	anyYear bool
}

// digits reads a number of so many digits.
func (s *scanner) digits(least, most int) int {
	n, value := 0, 0
	for !s.bad && n < most && s.at+n < len(s.text) && isDigit(s.text[s.at+n]) {
		value = value*10 + int(s.text[s.at+n]-'0')
		n++
	}
	if n < least {
		s.bad = true
		return 0
	}
	s.at += n
	return value
}

// oneOf reads one of the characters, and gives it; 0 when it is not there.
func (s *scanner) oneOf(chars string) byte {
	if s.bad || s.at >= len(s.text) || strings.IndexByte(chars, s.text[s.at]) < 0 {
		s.bad = true
		return 0
	}
	s.at++
	return s.text[s.at-1]
}

// skip passes over any of the characters.
func (s *scanner) skip(chars string) {
	for !s.bad && s.at < len(s.text) && strings.IndexByte(chars, s.text[s.at]) >= 0 {
		s.at++
	}
}

// month reads the English name of a month, short: what logs have in any
// language setting.
func (s *scanner) month() int {
	if s.bad || len(s.text) < s.at+3 {
		s.bad = true
		return 0
	}
	i := strings.Index("JanFebMarAprMayJunJulAugSepOctNovDec", s.text[s.at:s.at+3])
	if i < 0 || i%3 != 0 {
		s.bad = true
		return 0
	}
	s.at += 3
	return i/3 + 1
}

// fraction reads a fraction of a second, where there is one, and tells what
// its last digit is worth: a second without one.
func (s *scanner) fraction(marks string) (nanos int, unit time.Duration) {
	unit = time.Second
	if s.bad || s.at+1 >= len(s.text) || strings.IndexByte(marks, s.text[s.at]) < 0 || !isDigit(s.text[s.at+1]) {
		return 0, unit
	}
	for s.at++; s.at < len(s.text) && isDigit(s.text[s.at]); s.at++ {
		if unit > 1 {
			unit /= 10
			nanos += int(unit) * int(s.text[s.at]-'0')
		}
	}
	return nanos, unit
}

// ends tells whether a time may end here: not within a word or a number.
func (s *scanner) ends() bool {
	if s.at >= len(s.text) {
		return true
	}
	c := s.text[s.at]
	return !isDigit(c) && !isLetter(c) && c != '_'
}

// zones are names of zones that mean one thing only in logs. Others depend on
// where the log was written, so they count as none.
var zones = map[string]int{ // hours, minutes: 530 is five and a half hours
	"UTC": 0, "GMT": 0, "WET": 0, "WEST": 100, "CET": 100, "CEST": 200, "EET": 200, "EEST": 300, "MSK": 300,
	"EST": -500, "EDT": -400, "CST": -600, "CDT": -500, "MST": -700, "MDT": -600, "PST": -800, "PDT": -700,
	"JST": 900, "AEST": 1000, "AEDT": 1100, "NZST": 1200, "NZDT": 1300,
}

// zone reads Z, +01:00, +0100, +01, with or without a space before, or a name.
// Without one the zone is that of ref.
func (s *scanner) zone(ref time.Time) (*time.Location, bool) {
	rest := s.text[s.at:]
	if strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "z") {
		s.at++
		return time.UTC, true
	}
	space := 0
	if strings.HasPrefix(rest, " ") {
		space, rest = 1, rest[1:]
	}
	if rest == "" {
		return ref.Location(), false
	}
	if rest[0] == '+' || rest[0] == '-' {
		if seconds, n := offset(rest[1:]); n > 0 {
			if rest[0] == '-' {
				seconds = -seconds
			}
			s.at += space + 1 + n
			return time.FixedZone("", seconds), true
		}
		return ref.Location(), false
	}
	n := 0
	for n < len(rest) && rest[n] >= 'A' && rest[n] <= 'Z' {
		n++
	}
	name := rest[:n]
	// The host's own names first: CST is also China's.
	for _, at := range []time.Time{ref, ref.AddDate(0, 6, 0)} {
		if own, seconds := at.Zone(); n > 0 && own == name {
			s.at += space + n
			return time.FixedZone(name, seconds), true
		}
	}
	if hm, known := zones[name]; known {
		s.at += space + n
		return time.FixedZone(name, hm/100*3600+hm%100*60), true
	}
	return ref.Location(), false
}

// offset reads hh:mm, hhmm or hh behind a sign, and gives seconds.
func offset(text string) (seconds, n int) {
	s := scanner{text: text}
	hours := s.digits(2, 2)
	colon := s
	if colon.oneOf(":"); !colon.bad {
		s = colon
	}
	minutes := s
	m := minutes.digits(2, 2)
	if !minutes.bad {
		s = minutes
	}
	if s.bad || hours > 14 || m > 59 || !s.ends() {
		return 0, 0
	}
	return hours*3600 + m*60, s.at
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
