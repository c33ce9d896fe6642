package series

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// plainClock is a time as a plain file says it, which may be part of one only.
type plainClock struct {
	kind  clockKind
	year  int // 0 when it is not said
	month int // 0 when no date is said
	day   int
	ms    int64 // of the day; of clockUnix, since the epoch; of clockSince, since the start
	zoned bool  // the zone is said
	east  int   // and is so many seconds east of UTC
}

type clockKind int

const (
	clockNone  clockKind = iota
	clockUnix            // a number, or a time that is complete
	clockSince           // time since a start that nobody knows
	clockDay             // a time of day, with or without its date
)

// Unix times below are seconds since 2001, or thousandths of them, millionths or
// billionths; no size in KiB that stands first in a row is as large.
const (
	unixSecondsMin = 1e9
	unixSecondsMax = 4.2e9
)

// cutClock takes a time from the front of words; ok is false when there is
// none. It knows Unix time, RFC 3339 and what is like it, and the words of
// date, ctime and syslog in English and German.
func cutClock(words []string) (c plainClock, rest []string, ok bool) {
	if len(words) == 0 {
		return c, words, false
	}
	if c, ok := unixClock(words[0]); ok {
		return c, words[1:], true
	}
	p := clockParser{words: words}
	for len(p.words) > 0 && p.take(clean(p.words[0])) {
		p.words = p.words[1:]
	}
	if p.c.day == 0 {
		p.c.month, p.c.year = 0, 0 // a month's name and no day is another word
	}
	if !p.hasTime && p.c.year == 0 {
		return plainClock{}, words, false
	}
	p.c.kind = clockDay
	// What sets a time off from the values.
	if len(p.words) > 0 && slices.Contains([]string{"-", "|", ":", "="}, p.words[0]) {
		p.words = p.words[1:]
	}
	return p.c, p.words, true
}

// clean takes off what people put around a time.
func clean(w string) string { return strings.TrimRight(strings.TrimLeft(w, "[(\""), "])\",:|") }

func unixClock(w string) (plainClock, bool) {
	w = strings.TrimPrefix(clean(w), "@")
	if strings.Trim(w, "0123456789.") != "" {
		return plainClock{}, false
	}
	v, err := strconv.ParseFloat(w, 64)
	if err != nil {
		return plainClock{}, false
	}
	for _, unit := range [...]float64{1, 1e3, 1e6, 1e9} {
		if v >= unixSecondsMin*unit && v < unixSecondsMax*unit {
			return plainClock{kind: clockUnix, ms: int64(math.Round(v / unit * 1000))}, true
		}
	}
	return plainClock{}, false
}

// secondsClock reads a column that is called a time and holds a small number.
func secondsClock(w string) (plainClock, bool) {
	if c, ok := unixClock(w); ok {
		return c, true
	}
	v, ok := parseNumber(strings.TrimSuffix(w, "s"), 1)
	return plainClock{kind: clockSince, ms: int64(math.Round(v * 1000))}, ok && v >= 0 && v < unixSecondsMin
}

// elapsedClock reads ps' ELAPSED, [[days-]hours:]minutes:seconds.
func elapsedClock(w string) (plainClock, bool) {
	days, clock, found := strings.Cut(w, "-")
	if !found {
		days, clock = "0", w
	}
	ofDays, err := strconv.ParseUint(days, 10, 16)
	parts := strings.Split(clock, ":")
	if err != nil || len(parts) > 3 {
		return plainClock{}, false
	}
	if len(parts) == 1 {
		return secondsClock(w) // ELAPSED of etimes
	}
	seconds := int64(0)
	for _, part := range parts {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return plainClock{}, false
		}
		seconds = seconds*60 + int64(n)
	}
	return plainClock{kind: clockSince, ms: (int64(ofDays)*86_400 + seconds) * 1000}, true
}

// clockParser takes a time word by word.
type clockParser struct {
	words   []string
	c       plainClock
	weekday bool
	hasTime bool
	hasZone bool // also one that is not known
}

// take takes the first word when it belongs to a time.
func (p *clockParser) take(w string) bool {
	if w == "" {
		return false
	}
	if date, clock, found := cutDate(w); found && !p.hasTime && p.c.month == 0 && p.takeDate(date) {
		if p.takeTime(clock) {
			return true
		}
		p.c = plainClock{}
		return false
	}
	switch {
	case !p.hasTime && p.c.month == 0 && p.takeDate(w):
	case !p.hasTime && p.takeTime(w):
	case p.takeHalf(w):
	case !p.weekday && !p.hasTime && p.c.month == 0 && isWeekday(w):
		p.weekday = true
	case !p.hasTime && p.c.month == 0 && monthOf(w) > 0:
		p.c.month = monthOf(w)
	case !p.hasTime && p.takeDay(w):
	case p.takeYear(w):
	case p.takeZone(w):
	default:
		return false
	}
	return true
}

// cutDate divides a date from the time that follows it within a word: 2026-11-21T22:13:50, the "_" and the
// "-" of what people ask date for, and 20261121-221350, with or without what is between.
func cutDate(w string) (date, clock string, ok bool) {
	switch {
	case len(w) > 10 && w[4] == '-' && w[7] == '-' && strings.IndexByte("T_-", w[10]) >= 0:
		date, clock = w[:10], w[11:]
	case len(w) >= 14 && isDigits(w[:8]):
		date, clock = w[:4]+"-"+w[4:6]+"-"+w[6:8], strings.TrimLeft(w[8:9], "T_-")+w[9:]
	default:
		return strings.Cut(w, "T")
	}
	// 221350 and 22-13-50 are as 22:13:50, whatever follows.
	if len(clock) >= 6 && isDigits(clock[:6]) {
		clock = clock[:2] + ":" + clock[2:4] + ":" + clock[4:]
	} else if len(clock) >= 8 && clock[2] == '-' && clock[5] == '-' {
		clock = clock[:2] + ":" + clock[3:5] + ":" + clock[6:]
	}
	return date, clock, true
}

// takeDate reads 2026-11-21, 2026/11/21, 21.11.2026 and 11/21/26.
func (p *clockParser) takeDate(w string) bool {
	var year, month, day int
	var ok bool
	switch {
	case strings.Count(w, "-") == 2:
		year, month, day, ok = threeNumbers(w, "-")
	case strings.Count(w, ".") == 2:
		day, month, year, ok = threeNumbers(w, ".")
	case strings.Count(w, "/") == 2:
		if year, month, day, ok = threeNumbers(w, "/"); ok && year < 1000 {
			month, day, year = year, month, day
			if month > 12 {
				month, day = day, month
			}
		}
	}
	if ok && year < 100 {
		year += 2000
	}
	if !ok || year < 1970 || year > 9999 || month < 1 || month > 12 || day < 1 || day > 31 {
		return false
	}
	p.c.year, p.c.month, p.c.day = year, month, day
	return true
}

func threeNumbers(w, separator string) (a, b, c int, ok bool) {
	var n [3]int
	for i, part := range strings.Split(w, separator) {
		v, err := strconv.ParseUint(part, 10, 16)
		if err != nil || part == "" {
			return 0, 0, 0, false
		}
		n[i] = int(v)
	}
	return n[0], n[1], n[2], true
}

// takeTime reads 22:13, 22:13:50, 22:13:50.123 and 22:13:50,123, with a zone
// at the end or none.
func (p *clockParser) takeTime(w string) bool {
	if i := strings.IndexAny(w, "Z+-"); i > 0 {
		if !p.takeTime(w[:i]) {
			return false
		}
		p.hasTime = p.takeZone(w[i:])
		return p.hasTime
	}
	// Three digits behind a comma are milliseconds and nine are nanoseconds, as
	// date -Ins writes them; others are the next column.
	if i := strings.IndexByte(w, ','); i > 0 && (len(w)-i == 4 || len(w)-i == 10) {
		w = w[:i] + "." + w[i+1:]
	}
	parts := strings.Split(w, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return false
	}
	hour, err1 := strconv.ParseUint(parts[0], 10, 8)
	minute, err2 := strconv.ParseUint(parts[1], 10, 8)
	second := 0.0
	if len(parts) == 3 {
		var ok bool
		if second, ok = parseNumber(parts[2], 1); !ok || second < 0 || second >= 61 || len(parts[2]) < 2 {
			return false
		}
	}
	if err1 != nil || err2 != nil || hour > 24 || minute > 59 || len(parts[1]) != 2 {
		return false
	}
	p.hasTime = true
	p.c.ms = (int64(hour)*60+int64(minute))*60_000 + int64(math.Round(second*1000))
	return true
}

// takeHalf reads AM and PM.
func (p *clockParser) takeHalf(w string) bool {
	const hour, noon = 3_600_000, 12 * 3_600_000
	if !p.hasTime || p.hasZone || p.c.ms >= noon+hour {
		return false
	}
	switch strings.ToUpper(w) {
	case "AM":
		p.c.ms %= noon
	case "PM":
		p.c.ms = p.c.ms%noon + noon
	default:
		return false
	}
	return true
}

// takeDay reads the day beside the month's name: "Nov 21", "21 Nov", "21. Nov".
func (p *clockParser) takeDay(w string) bool {
	if p.c.day != 0 || p.c.month == 0 && (len(p.words) < 2 || monthOf(clean(p.words[1])) == 0) {
		return false
	}
	day, err := strconv.ParseUint(strings.TrimSuffix(w, "."), 10, 8)
	if err != nil || day < 1 || day > 31 {
		return false
	}
	p.c.day = int(day)
	return true
}

// takeYear reads the year of date and ctime, which syslog has not: behind the
// time it may be a value.
func (p *clockParser) takeYear(w string) bool {
	if p.c.year != 0 || p.c.month == 0 || p.c.day == 0 || p.hasTime && !p.weekday && !p.hasZone {
		return false
	}
	year, err := strconv.ParseUint(w, 10, 16)
	if err != nil || len(w) != 4 || year < 1970 || year > 2200 {
		return false
	}
	p.c.year = int(year)
	return true
}

// zones are names that date writes, with their hours east of UTC. The others
// are taken to be the reader's own.
var zones = map[string]float64{
	"UTC": 0, "GMT": 0, "Z": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "EET": 2, "EEST": 3, "MSK": 3,
	"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "JST": 9, "BST": 1,
}

// takeZone reads "+0100", "+01:00", "Z" and names.
func (p *clockParser) takeZone(w string) bool {
	if !p.hasTime || p.hasZone || w == "" {
		return false
	}
	hours, known := zones[w]
	switch {
	case known:
	case (w[0] == '+' || w[0] == '-') && p.c.month != 0:
		digits := strings.Replace(w[1:], ":", "", 1)
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || len(digits) != 2 && len(digits) != 4 {
			return false
		}
		if len(digits) == 2 {
			n *= 100
		}
		hours = float64(n/100) + float64(n%100)/60
		if w[0] == '-' {
			hours = -hours
		}
	case p.weekday && len(w) >= 3 && len(w) <= 5 && strings.IndexFunc(w, func(r rune) bool { return !unicode.IsUpper(r) }) < 0:
		p.hasZone = true
		return true
	default:
		return false
	}
	p.hasZone = true
	p.c.zoned, p.c.east = true, int(hours*3600)
	return true
}

// months are names of the C and de locales. glibc's de_DE writes Mär, and
// wrote Mrz before.
var months = map[string]int{
	"jan": 1, "january": 1, "januar": 1, "feb": 2, "february": 2, "februar": 2, "mar": 3, "march": 3, "mär": 3, "mrz": 3, "märz": 3,
	"apr": 4, "april": 4, "may": 5, "mai": 5, "jun": 6, "june": 6, "juni": 6, "jul": 7, "july": 7, "juli": 7, "aug": 8, "august": 8,
	"sep": 9, "september": 9, "oct": 10, "october": 10, "okt": 10, "oktober": 10, "nov": 11, "november": 11,
	"dec": 12, "december": 12, "dez": 12, "dezember": 12,
}

var weekdays = []string{
	"mon", "tue", "wed", "thu", "fri", "sat", "sun", "mo", "di", "mi", "do", "fr", "sa", "so",
	"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
	"montag", "dienstag", "mittwoch", "donnerstag", "freitag", "samstag", "sonntag",
}

// monthOf gives 0 for what is no month's name.
func monthOf(w string) int { return months[strings.TrimSuffix(strings.ToLower(w), ".")] }

func isWeekday(w string) bool {
	return slices.Contains(weekdays, strings.TrimSuffix(strings.ToLower(w), "."))
}
