package series

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// plainColumn is what a column or a named value holds.
type plainColumn struct {
	metric Metric
	unit   float64 // what a number without a suffix is multiplied with
	// unsaid: the unit is the usual one of ps, and nothing in the file says so.
	unsaid bool
}

// columnNames are the names of columns, without their unit, in lower case: of
// ps, top, pidstat, /proc/PID/status and /proc/PID/io, and of people.
var columnNames = map[string]Metric{
	"rss": RSS, "rsz": RSS, "rssize": RSS, "res": RSS, "resident": RSS, "vmrss": RSS,
	"vsz": Virtual, "vsize": Virtual, "virt": Virtual, "virtual": Virtual, "vmsize": Virtual, "vms": Virtual,
	"anon": Anonymous, "rssanon": Anonymous, "anonymous": Anonymous,
	"swap": Swap, "vmswap": Swap,
	"pss": PSS, "vmdata": Data, "private_dirty": PrivateDirty, "privatedirty": PrivateDirty, "uss": PrivateDirty,
	"fds": FDs, "fd": FDs, "open_fds": FDs, "fd-nr": FDs, "nfds": FDs, "num_fds": FDs,
	"threads": Threads, "nlwp": Threads, "thcnt": Threads, "thcount": Threads, "nth": Threads,
	"cpu_s":  CPU,
	"minflt": Minor, "min_flt": Minor, "majflt": Major, "maj_flt": Major,
	"rchar": Received, "wchar": Sent,
}

// columnUnits are ends of names that say the unit.
var columnUnits = []struct {
	end  string
	unit float64
}{
	{"kib", 1 << 10}, {"kb", 1 << 10}, {"mib", 1 << 20}, {"mb", 1 << 20}, {"gib", 1 << 30}, {"gb", 1 << 30},
	{"bytes", 1}, {"b", 1}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30},
}

// parseColumn knows a column by its name.
func parseColumn(name string) (plainColumn, bool) {
	name = strings.ToLower(name)
	if m, ok := columnNames[name]; ok {
		c := plainColumn{metric: m, unit: 1}
		if info, _ := Describe(m); info.Bytes && !info.Total {
			c.unit, c.unsaid = 1<<10, true
		}
		return c, true
	}
	for _, u := range columnUnits {
		stem, ok := strings.CutSuffix(strings.TrimRight(name, ")]"), u.end)
		if !ok {
			continue
		}
		// A letter alone must be set off: "threadsb" is no unit.
		trimmed := strings.TrimRight(stem, "_([ ")
		if trimmed == stem && len(u.end) == 1 {
			continue
		}
		if m, ok := columnNames[trimmed]; ok {
			if info, _ := Describe(m); info.Bytes {
				return plainColumn{metric: m, unit: u.unit}, true
			}
		}
	}
	return plainColumn{}, false
}

// plainHeader is a line that names columns.
type plainHeader struct {
	separator string // "" for white space
	times     int    // columns at the front that are time
	timed     bool   // a time stands before the names, as pidstat writes it
	elapsed   int    // column with the time since the start, -1 when there is none
	late      int    // a time column that is not at the front, -1 when there is none
	pid       int
	command   int
	columns   []string
	known     []plainColumn // of each of columns; a zero metric is of no interest
}

// parseHeader gives nil when the line is no header.
func parseHeader(text string) *plainHeader {
	if strings.IndexFunc(text, unicode.IsLetter) < 0 {
		return nil
	}
	h := &plainHeader{elapsed: -1, late: -1, pid: -1, command: -1}
	for _, s := range []string{";", ","} {
		if strings.Contains(text, s) {
			h.separator = s
			break
		}
	}
	words := h.split(text)
	if h.separator == "" {
		_, rest, ok := cutClock(words)
		words, h.timed = rest, ok
	}
	// ps aligns its names; its TIME is time of the CPU, not of the day.
	aligned := strings.Contains(strings.TrimSpace(text), "  ") || strings.HasPrefix(text, " ")
	ofCPU := func(name string) bool { return name == "TIME" && h.separator == "" && aligned }
	for len(words) > 0 && isTimeName(words[0]) && !ofCPU(words[0]) {
		h.times++
		words = words[1:]
	}
	interesting, known := false, 0
	for i, w := range words {
		if isNumber(w) || strings.ContainsAny(w, "=:") {
			return nil
		}
		c, ok := parseColumn(w)
		interesting = interesting || ok
		known++
		switch lower := strings.ToLower(w); {
		case lower == "pid":
			h.pid = i
		case slices.Contains([]string{"command", "cmd", "comm", "args", "ucmd", "befehl"}, lower):
			h.command = i
		case slices.Contains([]string{"elapsed", "etime", "etimes", "uptime"}, lower):
			h.elapsed = i
		case isTimeName(w) && (w != "TIME" || h.separator != "") && h.times == 0 && !h.timed:
			h.late = i
		case !ok && !otherColumns[lower] && !strings.ContainsAny(w, "%/"):
			known--
		}
		h.known = append(h.known, c)
	}
	// A sentence with the word rss in it is no header.
	if !interesting || h.separator == "" && 2*known <= len(words) {
		return nil
	}
	h.columns = words
	return h
}

// otherColumns are names of ps, top and pidstat, and of what people count, that are of no interest.
var otherColumns = map[string]bool{
	"uid": true, "user": true, "ppid": true, "pr": true, "pri": true, "ni": true, "shr": true, "s": true, "stat": true, "tty": true,
	"start": true, "started": true, "time": true, "time+": true, "zeit+": true, "cputime": true, "c": true, "f": true, "sz": true,
	"trs": true, "drs": true, "wchan": true, "cpu": true, "tgid": true, "tid": true, "stime": true, "host": true,
	"count": true,
}

func isTimeName(w string) bool {
	switch strings.ToLower(w) {
	case "time", "timestamp", "date", "datetime", "epoch", "ts", "unixtime", "time_s", "seconds", "zeit", "datum":
		return true
	}
	return false
}

// split cuts a line into cells.
func (h *plainHeader) split(text string) []string {
	if h.separator == "" {
		return joinUnits(strings.Fields(text))
	}
	cells := strings.Split(text, h.separator)
	if strings.Contains(text, `"`) { // which may hold separators
		r := csv.NewReader(strings.NewReader(text))
		r.Comma, r.LazyQuotes, r.TrimLeadingSpace = rune(h.separator[0]), true, true
		if quoted, err := r.Read(); err == nil {
			cells = quoted
		}
	}
	for i, c := range cells {
		cells[i] = strings.Trim(strings.TrimSpace(c), `"'`)
	}
	return cells
}

// row reads a line under the header; ok is false when it is none.
func (h *plainHeader) row(text string) (row plainRow, ok bool, err error) {
	cells := h.split(text)
	if cells, ok = h.cutTime(cells, &row); !ok {
		return row, false, nil
	}
	last := len(h.columns) - 1
	if len(cells) < len(h.columns) || len(cells) > len(h.columns) && h.command != last && h.late != last {
		return row, false, nil
	}
	if h.command == last {
		cells = append(cells[:last:last], strings.Join(cells[last:], " "))
	}
	for i, c := range h.known {
		if c.metric == "" || cells[i] == "" && h.separator != "" {
			continue
		}
		// Columns are divided already: a comma is a decimal one.
		cell := strings.Replace(cells[i], ",", ".", 1)
		v, number := parseNumber(cell, c.unit)
		if !number {
			return row, false, nil
		}
		if v < 0 {
			return row, false, fmt.Errorf("%s cannot be %s", strings.ToLower(h.columns[i]), cells[i])
		}
		c.unsaid = c.unsaid && isPlainNumber(cell)
		row.values = append(row.values, plainValue{c, v})
	}
	if h.pid >= 0 {
		if row.pid, err = strconv.Atoi(cells[h.pid]); err != nil {
			return row, false, nil
		}
	}
	if h.command >= 0 {
		row.command = cells[h.command]
	}
	return row, len(row.values) > 0, nil
}

// cutTime takes the time from the cells, wherever the header has it.
func (h *plainHeader) cutTime(cells []string, row *plainRow) (rest []string, ok bool) {
	if h.separator != "" {
		return h.cutTimeCells(cells, row)
	}
	clock, rest, found := cutClock(cells)
	switch {
	case found && h.times == 0 && !h.timed && len(cells) == len(h.columns):
		rest = cells // a number that looks like a time: all columns are there
	case found:
		row.clock = clock
	case h.timed:
		return nil, false // pidstat's averages at the end
	case h.times == 1 && len(cells) > 0:
		if row.clock, ok = secondsClock(cells[0]); !ok {
			return nil, false
		}
		rest = cells[1:]
	case h.times > 0:
		return nil, false
	}
	return rest, h.cutLateTime(rest, row)
}

func (h *plainHeader) cutTimeCells(cells []string, row *plainRow) (rest []string, ok bool) {
	if len(cells) < h.times {
		return nil, false
	}
	if h.times > 0 {
		words := strings.Fields(strings.Join(cells[:h.times], " "))
		clock, rest, found := cutClock(words)
		if !found && len(words) == 1 {
			clock, found = secondsClock(words[0])
			rest = nil
		}
		if !found || len(rest) > 0 {
			return nil, false
		}
		row.clock = clock
	}
	return cells[h.times:], h.cutLateTime(cells[h.times:], row)
}

// cutLateTime reads a time that is not at the front.
func (h *plainHeader) cutLateTime(cells []string, row *plainRow) (ok bool) {
	if row.clock.kind != clockNone {
		return true
	}
	if h.elapsed >= 0 && h.late < 0 {
		if h.elapsed < len(cells) {
			row.clock, ok = elapsedClock(cells[h.elapsed])
		}
		return ok
	}
	if h.late < 0 || h.late >= len(cells) {
		return h.late < 0
	}
	words := strings.Fields(cells[h.late])
	if h.late == len(h.columns)-1 && h.separator == "" {
		words = cells[h.late:]
	}
	if row.clock, _, ok = cutClock(words); !ok && len(words) == 1 {
		row.clock, ok = secondsClock(words[0])
	}
	return ok
}

// joinUnits makes "12 kB" one word, and "rss=12 kB" too.
func joinUnits(words []string) []string {
	for i := len(words) - 1; i > 0; i-- {
		if slices.Contains([]string{"kB", "KB", "KiB", "MB", "MiB", "GB", "GiB"}, words[i]) && isNumber(words[i-1][strings.IndexByte(words[i-1], '=')+1:]) {
			words = slices.Replace(words, i-1, i+1, words[i-1]+words[i])
		}
	}
	return words
}
