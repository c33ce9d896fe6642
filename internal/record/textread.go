package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
)

// maxLine is the longest line of the text form.
const maxLine = 1 << 20

// readText reads the text form. Empty lines and lines that begin with # say
// nothing. In place of one address a story may write ADDR*COUNT/STEP.
func readText(r *bufio.Reader, sink target) (Header, error) {
	t := &textReader{sink: sink}
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 0, 1<<16), maxLine)
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimSpace(scan.Text())
		if n == 1 || line == "" || line[0] == '#' {
			continue
		}
		if t.ended {
			return t.head, damaged(sink, t.at, "line %d: text after the end", n)
		}
		if err := t.event(line); err != nil {
			return t.head, damaged(sink, t.at, "line %d: %v", n, err)
		}
	}
	if err := scan.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return t.head, damaged(sink, t.at, "%v", err)
	}
	if !t.ended {
		return t.head, damaged(sink, t.at, "it was cut short")
	}
	return t.head, nil
}

type textReader struct {
	sink  target
	head  Header
	heard bool // an event came, so proc no longer belongs to the header
	proc  leak.ProcID
	at    time.Duration // of the latest event
	ended bool
	open  *leak.Listing // whose descriptors are being read

	// The line that is being read.
	rest string
	err  error
}

func (t *textReader) event(line string) error {
	t.rest, t.err = line, nil
	word := t.word()
	if word != "open" {
		t.closeListing()
	}
	switch word {
	case "comm":
		t.head.Comm = t.text()
	case "exe":
		t.head.Exe = t.text()
	case "version":
		t.head.Version = t.text()
	case "uptime":
		t.head.UptimeS = t.float(t.word())
	case "start":
		start, err := time.Parse(time.RFC3339Nano, t.word())
		t.fail(err)
		t.head.Start = start
	case "proc":
		t.process()
	case textEnd:
		t.ended = true
	default:
		t.heard = true
		t.observation(word)
	}
	if t.err == nil && t.rest != "" {
		return fmt.Errorf("%q is too much", t.rest)
	}
	return t.err
}

func (t *textReader) process() {
	pid, start, _ := strings.Cut(t.word(), ".")
	t.proc = leak.ProcID{PID: int(t.uint(pid, 31)), Start: t.uint(start, 64)}
	if !t.heard {
		t.head.Proc = t.proc
	}
}

func (t *textReader) observation(word string) {
	switch word {
	case "map":
		t.mapping()
	case "stack":
		t.stack()
	case "+":
		t.acquire()
	case "-":
		t.release()
	case "invalid":
		t.invalid()
	case "tally":
		t.tally()
	case "gauge":
		g := leak.Gauge{At: t.time(), Proc: t.proc, Name: leak.GaugeName(t.text()), Value: t.float(t.word())}
		if t.err == nil {
			t.sink.Gauge(g)
		}
	case "look":
		t.look()
	case "lost", "indirect", "reachable":
		t.verdicts(word, t.sink.Verdicts)
	case "block":
		t.verdicts(t.word(), t.sink.Blocks)
	case "held":
		t.held()
	case "edge":
		e := leak.Edge{From: t.uint(t.word(), 64), To: t.uint(t.word(), 64)}
		if t.err == nil {
			t.sink.Edges([]leak.Edge{e})
		}
	case "gap":
		g := leak.Gap{At: t.time(), Proc: t.proc, Source: t.text(), What: t.text()}
		t.pairs(func(k, v string) bool { return k == "lost" && t.into(&g.Lost, v) })
		if t.err == nil {
			t.sink.Gap(g)
		}
	case "recorded":
		t.recorded()
	case "name":
		t.name()
	case "note":
		if s := t.text(); t.err == nil {
			t.sink.more.Note(s)
		}
	default:
		if t.descriptorEvent(word) {
			return
		}
		t.fail(fmt.Errorf("there is no event %q", word))
	}
}

// fail keeps the first error of a line.
func (t *textReader) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// word takes the next word, which may end with a quoted string.
func (t *textReader) word() string {
	i := 0
	for i < len(t.rest) && t.rest[i] != ' ' {
		if t.rest[i] == '"' {
			q, err := strconv.QuotedPrefix(t.rest[i:])
			if err != nil {
				t.fail(fmt.Errorf("an open quote in %.40q", t.rest))
				t.rest = ""
				return ""
			}
			i += len(q)
			continue
		}
		i++
	}
	w := t.rest[:i]
	t.rest = strings.TrimLeft(t.rest[i:], " ")
	return w
}

// text takes the next word without its quotes.
func (t *textReader) text() string { return t.unquote(t.word()) }

func (t *textReader) unquote(w string) string {
	if w == "" || w[0] != '"' {
		return w
	}
	s, err := strconv.Unquote(w)
	t.fail(err)
	return s
}

func (t *textReader) uint(w string, bits int) uint64 {
	n, err := strconv.ParseUint(w, 0, bits)
	t.fail(err)
	return n
}

func (t *textReader) into(p *uint64, w string) bool {
	*p = t.uint(w, 64)
	return true
}

func (t *textReader) float(w string) float64 {
	f, err := strconv.ParseFloat(w, 64)
	t.fail(err)
	return f
}

func (t *textReader) time() time.Duration {
	d, err := time.ParseDuration(t.word())
	t.fail(err)
	if t.err == nil {
		t.at = max(t.at, d)
	}
	return d
}

// pairs takes the rest of the line as key=value words and flags.
func (t *textReader) pairs(set func(key, value string) bool) {
	for t.rest != "" && t.err == nil {
		w := t.word()
		key, value, _ := strings.Cut(w, "=")
		if t.err == nil && !set(key, value) {
			t.fail(fmt.Errorf("%q has no meaning here", w))
		}
	}
}

func (t *textReader) frame(w string) leak.Frame {
	m, off, ok := strings.Cut(w, "+")
	if !ok {
		t.fail(fmt.Errorf("%q is no place such as 1+0x1139", w))
		return leak.Frame{}
	}
	return leak.Frame{Map: leak.MapID(t.uint(m, 32)), Off: t.uint(off, 64)}
}

// numbered finds w in words, or takes "shape7" where prefix is "shape".
func (t *textReader) numbered(w, prefix string, words []string) (uint8, bool) {
	for i, known := range words {
		if known == w && w != "" {
			return uint8(i), true
		}
	}
	if digits, ok := strings.CutPrefix(w, prefix); ok {
		return uint8(t.uint(digits, 8)), true
	}
	return 0, false
}

func (t *textReader) kind() leak.Kind {
	w := t.word()
	k, ok := t.numbered(w, "kind", kindWords)
	if !ok {
		t.fail(fmt.Errorf("there is no kind %q", w))
	}
	return leak.Kind(k)
}

// maxRepeat bounds what one line of a story can say.
const maxRepeat = 1 << 16

// ids takes an address or number, or ADDR*COUNT/STEP.
func (t *textReader) ids() func(func(uint64) bool) {
	first, repeat, many := strings.Cut(t.word(), "*")
	id, n, step := t.uint(first, 64), uint64(1), uint64(0)
	if many {
		count, by, _ := strings.Cut(repeat, "/")
		n, step = t.uint(count, 32), t.uint(by, 64)
		if n > maxRepeat {
			t.fail(fmt.Errorf("more than %d in one line", maxRepeat))
		}
	}
	return func(yield func(uint64) bool) {
		for i := uint64(0); i < n && t.err == nil; i++ {
			if !yield(id + i*step) {
				return
			}
		}
	}
}
