package series

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// row reads a line that is neither a header nor a time; ok is false when it is
// no row. A row without values is one that is not yet complete.
func (p *plainReader) row(text string) (row plainRow, ok bool, err error) {
	if p.header != nil {
		return p.header.row(text)
	}
	if row, ok := toolRow(strings.Fields(text)); ok {
		return row, true, nil
	}
	row, ok, err = p.bareRow(strings.Fields(strings.ReplaceAll(text, ";", " ")))
	if !ok && err == nil && strings.Contains(text, ",") {
		row, ok, err = p.bareRow(strings.Fields(strings.ReplaceAll(text, ",", " ")))
	}
	return row, ok, err
}

// bareRow reads a row that no header explains.
func (p *plainReader) bareRow(words []string) (row plainRow, ok bool, err error) {
	words = joinUnits(words)
	var found bool
	if row.clock, words, found = cutClock(words); found {
		words = cutTag(words)
		if tool, ok := toolRow(words); ok {
			tool.clock = row.clock
			return tool, true, nil
		}
	}
	if values, ok := statm(words); ok {
		row.values = values
		return row, true, nil
	}
	if row, ok, err := p.namedRow(words, row.clock); ok || err != nil {
		return row, ok, err
	}
	for _, w := range words {
		v, number := parseNumber(w, 1<<10)
		if !number {
			return row, false, nil
		}
		if v < 0 {
			return row, false, fmt.Errorf("memory cannot be %s", w)
		}
		row.values = append(row.values, plainValue{plainColumn{RSS, 1 << 10, isPlainNumber(w)}, v})
	}
	if len(words) > 2 {
		if p.unnamed == 0 {
			p.unnamed = p.lastLine
		}
		return row, false, nil
	}
	row.bare = true
	if len(words) == 2 {
		row.values[1].column.metric = Virtual
		if row.values[0].value > row.values[1].value { // nothing is resident that has no address
			row.values[0], row.values[1] = row.values[1], row.values[0]
			row.values[0].column.metric, row.values[1].column.metric = RSS, Virtual
			p.swapped++
		}
	}
	return row, len(words) > 0, nil
}

// cutTag takes off what logger writes between the time and the text: "host tag[4711]:".
func cutTag(words []string) []string {
	for i := range min(2, len(words)) {
		if _, known := parseColumn(strings.TrimSuffix(words[i], ":")); !known && strings.HasSuffix(words[i], ":") && !isNumber(words[i]) {
			return words[i+1:]
		}
	}
	return words
}

// namedRow reads "rss=1234 vsz=5678" and "VmRSS: 1234 kB". Names on lines of
// their own make one row until one of them comes again.
func (p *plainReader) namedRow(words []string, clock plainClock) (row plainRow, ok bool, err error) {
	row.clock = clock
	for i := 0; i < len(words); i++ {
		name, text, equals := strings.Cut(strings.TrimSuffix(words[i], ","), "=")
		switch {
		case equals && text == "" && i+1 < len(words): // "rss= 1234", from what ps pads
			i++
			text = strings.TrimSuffix(words[i], ",")
		case !equals:
			if name, ok = strings.CutSuffix(words[i], ":"); !ok || i+1 == len(words) {
				return row, false, nil
			}
			i++
			text = strings.TrimSuffix(words[i], ",")
		}
		if name == "Rss" && p.mapping > 0 {
			return row, false, errors.New("this is /proc/PID/smaps, which has the size of each mapping and not of the process: record smaps_rollup, or VmRSS and VmSize of status")
		}
		column, known := parseColumn(name)
		if !known {
			continue
		}
		v, number := parseNumber(text, column.unit)
		if !number {
			return row, false, nil
		}
		if v < 0 {
			return row, false, fmt.Errorf("%s cannot be %s", name, text)
		}
		column.unsaid = column.unsaid && isPlainNumber(text)
		row.values = append(row.values, plainValue{column, v})
	}
	if len(row.values) != 1 {
		return row, len(row.values) > 0, nil
	}
	if p.named != nil {
		for _, v := range p.named.values {
			if v.column.metric == row.values[0].column.metric {
				p.endNamed()
				break
			}
		}
	}
	if p.named == nil {
		p.named = &plainRow{line: p.lastLine, clock: clock, block: len(p.blocks), header: p.headers}
	}
	p.named.values = append(p.named.values, row.values[0])
	row.values = nil
	return row, true, nil
}

// endNamed ends a row of named lines.
func (p *plainReader) endNamed() {
	if p.named != nil {
		p.all = append(p.all, *p.named)
		p.named = nil
	}
}

// The columns of `ps aux` and of `top -b`, which people filter with grep, so
// that the header is lost.
var (
	psAux = parseHeader("USER PID %CPU %MEM VSZ RSS TTY STAT START CPUTIME COMMAND")
	topB  = parseHeader("PID USER PR NI VIRT RES SHR S %CPU %MEM TIME+ COMMAND")
)

// toolRow reads a row of ps aux or top -b by its shape.
func toolRow(words []string) (row plainRow, ok bool) {
	if len(words) < 11 {
		return row, false
	}
	switch {
	case !isNumber(words[0]) && isDigits(words[1]) && isNumber(words[2]) && isShare(words[3]) && isDigits(words[4]) && isDigits(words[5]):
		row, ok, _ = psAux.row(strings.Join(words, " ")) // digits are never negative
	case isDigits(words[0]) && len(words[7]) == 1 && strings.ContainsAny(words[7], "RSDZTtI") && isNumber(words[8]) && isShare(words[9]):
		row, ok, _ = topB.row(strings.Join(words, " "))
	}
	return row, ok
}

// statm reads a row of /proc/PID/statm by its shape: seven numbers of pages, of which the first three
// are the size, the resident part and what of it is shared, and the fifth and the last have been
// zero since Linux 2.6.
func statm(words []string) (values []plainValue, ok bool) {
	const page = 4096 // of x86-64
	if len(words) != 7 || words[4] != "0" || words[6] != "0" || slices.ContainsFunc(words, func(w string) bool { return !isDigits(w) }) {
		return nil, false
	}
	size, _ := parseNumber(words[0], page)
	resident, _ := parseNumber(words[1], page)
	shared, _ := parseNumber(words[2], page)
	return []plainValue{{plainColumn{RSS, page, false}, resident}, {plainColumn{Virtual, page, false}, size}}, size >= resident && resident >= shared
}

// isMapping tells a line of /proc/PID/smaps that begins a mapping; smaps_rollup has one that is all of
// them.
func isMapping(text string) bool {
	words := strings.Fields(text)
	if len(words) < 5 || len(words[1]) != 4 || strings.Trim(words[1], "rwxsp-") != "" || words[len(words)-1] == "[rollup]" {
		return false
	}
	from, to, ok := strings.Cut(words[0], "-")
	return ok && from != "" && to != "" && strings.Trim(from+to, "0123456789abcdef") == ""
}

func isDigits(w string) bool {
	_, err := strconv.ParseUint(w, 10, 53)
	return err == nil
}

// isShare tells a share of memory: it has one decimal behind a point or, as
// top writes it in some locales, a comma.
func isShare(w string) bool {
	whole, decimal, ok := strings.Cut(strings.Replace(w, ",", ".", 1), ".")
	return ok && isDigits(whole) && isDigits(decimal)
}

// isNumber tells whether a word begins like a number.
func isNumber(w string) bool {
	w = strings.TrimLeft(w, "-+.")
	return w != "" && w[0] >= '0' && w[0] <= '9'
}

// isPlainNumber tells a number without a unit.
func isPlainNumber(w string) bool { return strings.Trim(w, "0123456789.") == "" }

// suffixes are of top ("1.2g"), of ps with units and of people.
var suffixes = map[string]float64{
	"b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
	"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40, "p": 1 << 50,
}

// parseNumber reads a number, in units of unit where it has no suffix. A
// decimal comma counts where a suffix shows that it is none between columns.
func parseNumber(w string, unit float64) (value float64, ok bool) {
	digits := strings.TrimRight(w, "kKmMgGtTpPiIbB")
	if end := w[len(digits):]; end != "" {
		if unit, ok = suffixes[strings.ToLower(end)]; !ok {
			return 0, false
		}
		digits = strings.Replace(digits, ",", ".", 1)
	}
	// Names, exponents and hexadecimal digits are for ParseFloat, not for ps.
	if strings.Trim(digits, "-.0123456789") != "" {
		return 0, false
	}
	value, err := strconv.ParseFloat(digits, 64)
	if errors.Is(err, strconv.ErrRange) || err != nil || math.IsInf(value*unit, 0) {
		return 0, false
	}
	return value * unit, true
}

// unitOf finds rows that were written in bytes, though nothing says so: all
// sizes are whole pages of 4 KiB, which sizes in KiB almost never are.
func unitOf(rows []plainRow) (note string) {
	different := map[float64]bool{}
	for _, r := range rows {
		for _, v := range r.values {
			if !v.column.unsaid || v.column.metric == PSS { // of shared pages it has parts
				continue
			}
			if v.value/v.column.unit != math.Trunc(v.value/v.column.unit) || math.Mod(v.value/v.column.unit, 4096) != 0 {
				return ""
			}
			different[v.value] = true
		}
	}
	// By chance it is one of 1,024 for each size.
	if len(different) < 4 {
		return ""
	}
	for _, r := range rows {
		for i := range r.values {
			if r.values[i].column.unsaid {
				r.values[i].value /= r.values[i].column.unit
			}
		}
	}
	return "all sizes are multiples of 4096, so they were taken as bytes"
}

// leastDoubt is how many sizes tell that they are none. Of fewer nothing is concluded later.
const leastDoubt = 8

// doubt finds numbers that are not what ps writes, though nothing in the file says what else they are:
// a counter, seconds, megabytes, two halves of a number with a comma. Sizes in KiB are those of whole
// pages; and no process begins at nothing and grows by the same in each row.
func doubt(rows []plainRow) error {
	var sizes, odd, line int
	value := 0.0
	for _, r := range rows {
		for _, v := range r.values {
			if m := v.column.metric; !v.column.unsaid || m != RSS && m != Virtual {
				continue
			}
			sizes++
			if math.Mod(v.value, 4<<10) != 0 {
				if odd++; odd == 1 {
					line, value = r.line, v.value
				}
			}
		}
	}
	if sizes < leastDoubt {
		return nil
	}
	const advice = `put a first line that names the columns and their units, such as "time rss_mb vsz_mb" or "count rss"`
	switch {
	case 8*odd > sizes:
		return fmt.Errorf("line %d: %g is no size as ps writes it, in KiB and of whole pages: %s", line, value/1024, advice)
	case countsUp(rows):
		return fmt.Errorf("line %d: the first of two numbers begins at %g and rises by the same in each row, so it is hardly rss: %s",
			rows[0].line, rows[0].values[0].value/1024, advice)
	}
	return nil
}

// countsUp tells whether the smaller of two numbers is a count of the rows or of seconds.
func countsUp(rows []plainRow) bool {
	if len(rows) < leastDoubt || len(rows[0].values) < 2 {
		return false
	}
	step := rows[1].values[0].value - rows[0].values[0].value
	if step <= 0 || rows[0].values[0].value > 2*step {
		return false
	}
	for i, r := range rows {
		if !r.bare || i > 0 && math.Abs(r.values[0].value-rows[i-1].values[0].value-step) > step/10 {
			return false
		}
	}
	return true
}
