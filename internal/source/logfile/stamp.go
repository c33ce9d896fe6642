package logfile

import (
	"strings"
	"time"
)

// stamp is a time as it stands in a line.
type stamp struct {
	at      time.Time
	unit    time.Duration // of the last digit
	zoned   bool          // the zone was given, or the form has none
	sinceUp time.Duration // since the host was booted, where at is zero
	within  bool          // it does not stand at the begin of the line: it may be the time of something else
}

// A form reads the time that a text begins with, and tells how long it is; 0
// when there is none. Years that are not given are taken from ref, and times
// without a zone are of ref's.
type form func(text string, ref time.Time) (stamp, int)

// forms are all that are known, the surest first.
var forms = []form{isoForm, monthForm, syslogForm, weekdayForm, glogForm, epochIndex: epochForm}

// isoForm is 2026-11-21T10:00:00.123Z and its like: a space, slashes, a comma.
func isoForm(text string, ref time.Time) (stamp, int) {
	s := scanner{text: text}
	year := s.digits(4, 4)
	sep := s.oneOf("-/.")
	month := s.digits(2, 2)
	if s.bad || s.oneOf(string(sep)) == 0 {
		return stamp{}, 0
	}
	day := s.digits(2, 2)
	s.oneOf("T _t")
	return s.finish(date{year, month, day}, ref)
}

// monthForm is 10/Oct/2000:13:55:36 -0700, 21 Nov 2026 10:00:00.123 or
// 21-Nov-2026 10:00:00.
func monthForm(text string, ref time.Time) (stamp, int) {
	s := scanner{text: text}
	day := s.digits(1, 2)
	sep := s.oneOf("/- ")
	month := s.month()
	if s.bad || s.oneOf(string(sep)) == 0 {
		return stamp{}, 0
	}
	year := s.digits(4, 4)
	s.oneOf(": ")
	return s.finish(date{year, month, day}, ref)
}

// syslogForm is Nov 21 10:00:00, RFC 3164, section 4.1.2; some write the year
// behind the day or behind the time.
func syslogForm(text string, ref time.Time) (stamp, int) {
	return syslogDate(scanner{text: text}, ref)
}

func syslogDate(s scanner, ref time.Time) (stamp, int) {
	month := s.month()
	s.oneOf(" ")
	s.skip(" ")
	day := s.digits(1, 2)
	s.skip(",")
	s.oneOf(" ")
	if s.bad {
		return stamp{}, 0
	}
	withYear := s
	if year := withYear.digits(4, 4); withYear.oneOf(" ") != 0 {
		return withYear.finish(date{year, month, day}, ref)
	}
	return s.finish(date{0, month, day}, ref)
}

// weekdayForm is Sat Nov 21 10:00:00.123456 2026, of ctime(3) and the error log
// of Apache, or Sat, 21 Nov 2026 10:00:00 GMT.
func weekdayForm(text string, ref time.Time) (stamp, int) {
	if len(text) < 8 || strings.Index("SunMonTueWedThuFriSat", text[:3])%3 != 0 {
		return stamp{}, 0
	}
	skip := 3
	if text[skip] == ',' {
		skip++
	}
	if text[skip] != ' ' {
		return stamp{}, 0
	}
	skip++
	st, n := syslogDate(scanner{text: text[skip:], anyYear: true}, ref)
	if n == 0 {
		st, n = monthForm(text[skip:], ref)
	}
	if n == 0 {
		return stamp{}, 0
	}
	return st, skip + n
}

// glogForm is the MMDD hh:mm:ss.uuuuuu of glog and klog. The letter before it
// is the level, and belongs to the text.
func glogForm(text string, ref time.Time) (stamp, int) {
	s := scanner{text: text}
	month := s.digits(2, 2)
	day := s.digits(2, 2)
	s.oneOf(" ")
	if st, n := s.finish(date{0, month, day}, ref); st.unit < time.Second {
		return st, n
	}
	return stamp{}, 0
}

// epochForm is a Unix time: seconds with or without a fraction, or
// milliseconds.
func epochForm(text string, ref time.Time) (stamp, int) {
	s := scanner{text: text}
	whole := s.digits(10, 13)
	if s.bad || s.at != 10 && s.at != 13 || whole == 0 {
		return stamp{}, 0
	}
	st := stamp{unit: time.Millisecond, zoned: true}
	if s.at == 13 {
		st.at = time.UnixMilli(int64(whole))
	} else {
		nanos, unit := s.fraction(".")
		st.at, st.unit = time.Unix(int64(whole), int64(nanos)), unit
	}
	if !s.ends() || !recent(st.at, ref) {
		return stamp{}, 0
	}
	return st, s.at
}

// recent tells whether a number is a Unix time: of the year before ref, or a
// day after it at most. Bytes, nanoseconds and identifiers have as many digits.
func recent(at, ref time.Time) bool {
	age := ref.Sub(at)
	return age > -day*time.Millisecond && age < 366*day*time.Millisecond
}

// bootForm is [12345.678901], the kernel's: seconds since the boot. The text
// begins behind the bracket.
func bootForm(text string, _ time.Time) (stamp, int) {
	s := scanner{text: text}
	s.skip(" ")
	whole := s.digits(1, 9)
	nanos, unit := s.fraction(".")
	if s.bad || unit > time.Millisecond || !strings.HasPrefix(text[s.at:], "]") {
		return stamp{}, 0
	}
	return stamp{sinceUp: time.Duration(whole)*time.Second + time.Duration(nanos), unit: unit, zoned: true}, s.at
}

// date is a day; year 0 is not known.
type date struct{ year, month, day int }

// finish reads the time of day, and the zone where there is one.
func (s *scanner) finish(d date, ref time.Time) (stamp, int) {
	hour := s.digits(2, 2)
	s.oneOf(":")
	minute := s.digits(2, 2)
	s.oneOf(":")
	second := s.digits(2, 2)
	nanos, unit := s.fraction(".,")
	if s.bad || d.month < 1 || d.month > 12 || d.day < 1 || d.day > 31 || hour > 23 || minute > 59 || second > 60 {
		return stamp{}, 0
	}
	zone, zoned := s.zone(ref)
	if d.year == 0 {
		at := s.at
		if s.at < len(s.text) && s.text[s.at] == ' ' {
			s.at++
		}
		// Others write a PID there.
		if year := s.digits(4, 4); !s.bad && s.ends() && (s.anyYear && year > 1970 || year >= ref.Year()-1 && year <= ref.Year()+1) {
			d.year = year
		} else {
			s.at, s.bad = at, false
		}
	}
	if !s.ends() {
		return stamp{}, 0
	}
	build := func(year int) time.Time {
		return time.Date(year, time.Month(d.month), d.day, hour, minute, second, nanos, zone)
	}
	t := build(d.year)
	if d.year == 0 {
		t = latest(build, d, ref)
	}
	if t.Day() != d.day && second < 60 && hour < 23 { // a 31st of June; an hour that summer time skips may shift the day
		return stamp{}, 0
	}
	return stamp{at: t, unit: unit, zoned: zoned}, s.at
}

// latest is the last year in which the time was not after ref; a day is left
// for clocks and zones that differ.
func latest(build func(year int) time.Time, d date, ref time.Time) time.Time {
	limit := ref.Add(24 * time.Hour)
	for year := limit.Year() + 1; ; year-- {
		t := build(year)
		leap := d.month != 2 || d.day != 29 || t.Day() == 29
		if leap && !t.After(limit) || year < limit.Year()-8 {
			return t
		}
	}
}
