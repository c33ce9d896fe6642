package series

import (
	"errors"
	"fmt"
	"math"
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

func isPlainNumber(w string) bool { return strings.Trim(w, "0123456789") == "" }

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
			if !v.column.unsaid {
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
