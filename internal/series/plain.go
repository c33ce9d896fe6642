package series

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// PlainOptions say what a plain file cannot say itself.
type PlainOptions struct {
	// Name is the file's name. The service is named after it: memory_4711.txt
	// is of "memory_4711".
	Name string
	// Interval is the time between two rows where the file has no times; 0
	// means 10 s.
	Interval time.Duration
	// Written is when the file was last written. Rows without times, or
	// without dates, are taken to end there; when it is zero they begin at
	// the Unix epoch.
	Written time.Time
	// Location is the time zone of times that do not name theirs; nil means UTC.
	Location *time.Location
}

// Plain is what a plain file says.
type Plain struct {
	Series []Series
	Notes  []string // what was assumed or left out, for people
}

// ReadPlain reads what people's own shell loops have written of a process:
// `ps -o rss,vsz -p PID` again and again, with or without its header, `ps aux`,
// `top -b`, `pidstat -r`, /proc/PID/statm, lines of /proc/PID/status and
// smaps_rollup, CSV. A time may be in each row or on a line of its own before
// it; a header may name the columns in any order. Memory without a unit is in
// KiB, as ps writes it. Two numbers without a header are rss and vsz.
//
// Lines that are no rows are skipped and noted. The error names the file and
// the line: nothing could be read from it, a row says what cannot be, numbers
// are not what ps writes though nothing says what else they are, or the file is
// not text.
func ReadPlain(r io.Reader, o PlainOptions) (*Plain, error) {
	if o.Interval <= 0 {
		o.Interval = 10 * time.Second
	}
	if o.Location == nil {
		o.Location = time.UTC
	}
	p := &plainReader{options: o, location: o.Location}
	if err := p.read(r); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	plain := &Plain{}
	rows := p.rows()
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s: %w", o.Name, p.nothing())
	}
	plain.note(p.skipped())
	unit := unitOf(rows)
	if unit == "" {
		if err := doubt(rows); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Name, err)
		}
	}
	plain.note(unit)
	p.name(rows, plain)
	snapshots := p.snapshots(rows)
	plain.note(p.date(snapshots))
	plain.collect(snapshots)
	return plain, nil
}

func (p *Plain) note(text string) {
	if text != "" {
		p.Notes = append(p.Notes, text)
	}
}

// plainRow is one row: of one process at one time.
type plainRow struct {
	line    int
	clock   plainClock
	block   int // how many lines with nothing but a time came before
	header  int // how many headers
	pid     int // 0 when it is not said
	command string
	values  []plainValue
	bare    bool // two numbers that no header names

	service string
	at      int64
}

type plainValue struct {
	column plainColumn
	value  float64
}

// plainReader reads lines; what a line means depends on those before it.
type plainReader struct {
	options    PlainOptions
	location   *time.Location
	header     *plainHeader
	headers    int
	headerText string       // of header
	blocks     []plainClock // lines that are nothing but a time
	base       plainClock   // a date said once for the file
	all        []plainRow
	named      *plainRow // a row made of lines "VmRSS: 1 kB", not yet complete

	noise      int // lines that are no rows
	firstNoise int
	noiseText  string
	unnamed    int // the first line with three numbers or more and no header
	swapped    int // rows with vsz before rss
	mapping    int // the last line that begins a mapping of /proc/PID/smaps
	lastLine   int
	torn       int // the last line, when it does not end
}

// plainLineMax bounds a line; the rows of ps with all arguments are shorter.
const plainLineMax = 1 << 20

func (p *plainReader) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, plainLineMax)
	open := false
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		n, line, err := bufio.ScanLines(data, atEOF)
		open = line != nil && data[n-1] != '\n'
		return n, line, err
	})
	for lines.Scan() {
		p.lastLine++
		text := lines.Bytes()
		if p.lastLine == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if bytes.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("line %d: not text: it has a zero byte", p.lastLine)
		}
		if open && (len(p.all) > 0 || p.named != nil) { // what is cut within a number is another number
			p.torn = p.lastLine
			break
		}
		if err := p.line(strings.TrimRight(string(text), "\r\n\t ")); err != nil {
			return fmt.Errorf("line %d: %w", p.lastLine, err)
		}
	}
	p.endNamed()
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("line %d: longer than %d bytes", p.lastLine+1, plainLineMax)
	} else if err != nil {
		return fmt.Errorf("after line %d: %w", p.lastLine, err)
	}
	return nil
}

// line takes one line, whatever it is.
func (p *plainReader) line(text string) error {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	if comment, ok := strings.CutPrefix(text, "#"); ok {
		if key, value, ok := strings.Cut(comment, ":"); ok && strings.TrimSpace(key) == "start" {
			p.base, _, _ = cutClock(strings.Fields(value))
			return nil
		}
		if h := parseHeader(comment); h != nil {
			p.setHeader(h)
			p.headerText = ""
		}
		return nil
	}
	if p.header != nil && text == p.headerText { // as ps repeats it
		p.setHeader(p.header)
		return nil
	}
	if h := parseHeader(text); h != nil {
		p.setHeader(h)
		p.headerText = text
		return nil
	}
	// "top - 10:13:50 up 9:57, 1 user": the time of the rows below.
	text = strings.TrimPrefix(text, "top - ")
	// "Linux 6.1.0 (host) 11/21/26 _x86_64_ (2 CPU)": the date of the times below.
	if strings.HasPrefix(text, "Linux ") {
		if words := strings.Fields(text); len(words) > 3 {
			if c, _, ok := cutClock(words[3:4]); ok && c.year != 0 {
				p.base = c
				return nil
			}
		}
	}
	if isMapping(text) {
		p.mapping = p.lastLine
	}
	// Between separators nothing but a cell is a time: "22:13:50,100" is two.
	cells := p.header != nil && p.header.separator != "" && strings.Contains(text, p.header.separator)
	if c, rest, ok := cutClock(strings.Fields(text)); ok && !cells && (len(rest) == 0 || rest[0] == "up") {
		p.endNamed()
		p.blocks = append(p.blocks, c)
		return nil
	}
	row, ok, err := p.row(text)
	if err != nil {
		return err
	}
	if ok && len(row.values) > 0 {
		row.line, row.block, row.header = p.lastLine, len(p.blocks), p.headers
		p.all = append(p.all, row)
	} else if !ok {
		p.skip(text)
	}
	return nil
}

func (p *plainReader) setHeader(h *plainHeader) {
	p.endNamed()
	p.header = h
	p.headers++
}

func (p *plainReader) skip(text string) {
	if p.noise++; p.noise == 1 {
		p.firstNoise, p.noiseText = p.lastLine, cutText(text)
	}
}

func cutText(text string) string {
	const enough = 60
	if runes := []rune(text); len(runes) > enough {
		return string(runes[:enough]) + "..."
	}
	return text
}

// rows are those that are meant: of numbers without a header, the lines that
// have as many of them as most.
func (p *plainReader) rows() []plainRow {
	var bare [3]int
	for _, r := range p.all {
		if r.bare {
			bare[len(r.values)]++
		}
	}
	most := 1
	if bare[2] >= bare[1] {
		most = 2
	}
	kept := p.all[:0] // of months of seconds there is no room for two
	for _, r := range p.all {
		if r.bare && len(r.values) != most {
			if p.noise++; p.noise == 1 {
				p.firstNoise, p.noiseText = r.line, fmt.Sprintf("%d numbers", len(r.values))
			}
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

// nothing says why a file has no rows.
func (p *plainReader) nothing() error {
	switch {
	case p.lastLine == 0:
		return errors.New("line 1: the file is empty")
	case p.unnamed > 0:
		return fmt.Errorf("line %d: three numbers or more, and no line before says which is rss: put a first line like \"time rss vsz\" or \"pid rss vsz\"", p.unnamed)
	case p.noise > 0:
		return fmt.Errorf("line %d: no rows of rss and vsz in this file; this is none: %q", p.firstNoise, p.noiseText)
	case p.headers > 0:
		return fmt.Errorf("line %d: the file ends, and no rows follow its header", p.lastLine)
	}
	return fmt.Errorf("line %d: the file ends without any row of rss and vsz", p.lastLine)
}

func (p *plainReader) skipped() string {
	torn := ""
	if p.torn > 0 {
		torn = fmt.Sprintf("line %d was left out: the file ends within it", p.torn)
	}
	if p.noise == 0 {
		return torn
	}
	if torn != "" {
		torn = "; " + torn
	}
	return fmt.Sprintf("%s skipped, the first is line %d: %q", count(p.noise, "line that is no row was", "lines that are no rows were"), p.firstNoise, p.noiseText) + torn
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// serviceOf names the service after the file.
func serviceOf(name string) string {
	base := filepath.Base(name)
	if trimmed := strings.TrimSuffix(base, filepath.Ext(base)); trimmed != "" {
		base = trimmed
	}
	return base
}
