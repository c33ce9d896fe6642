package record

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"stanch/internal/leak"
)

// textMagic is the first line of the text form.
const textMagic = "stanch recording 1\n"

// textEnd is the last line of a complete recording.
const textEnd = "end"

// textWriter writes the text form: one event a line, times since the
// observation began.
type textWriter struct {
	w        *bufio.Writer
	line     []byte
	proc     leak.ProcID
	contents bool
	closed   bool
	err      error
}

func newTextWriter(w io.Writer, h Header, o Options) *textWriter {
	t := &textWriter{w: bufio.NewWriterSize(w, 1<<16), proc: h.Proc, contents: o.Contents}
	_, t.err = t.w.WriteString(textMagic)
	t.word("proc").word(procWord(h.Proc)).end()
	if h.Comm != "" {
		t.word("comm").quote(h.Comm).end()
	}
	if h.Exe != "" {
		t.word("exe").quote(h.Exe).end()
	}
	if !h.Start.IsZero() {
		t.word("start").word(h.Start.UTC().Format(time.RFC3339Nano)).end()
	}
	if h.UptimeS != 0 {
		t.word("uptime").word(number(h.UptimeS)).end()
	}
	if h.Version != "" {
		t.word("version").quote(h.Version).end()
	}
	return t
}

func procWord(p leak.ProcID) string { return fmt.Sprintf("%d.%d", p.PID, p.Start) }

// number writes whole numbers without an exponent, for people.
func number(f float64) string {
	if n := int64(f); float64(n) == f && n < 1e15 && n > -1e15 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// The builders of a line.

func (t *textWriter) word(s string) *textWriter {
	if len(t.line) > 0 {
		t.line = append(t.line, ' ')
	}
	t.line = append(t.line, s...)
	return t
}

func (t *textWriter) quote(s string) *textWriter { return t.word(strconv.Quote(s)) }

func (t *textWriter) hex(n uint64) *textWriter {
	t.word("0x")
	t.line = strconv.AppendUint(t.line, n, 16)
	return t
}

func (t *textWriter) uint(n uint64) *textWriter {
	t.word("")
	t.line = strconv.AppendUint(t.line, n, 10)
	return t
}

// pair writes key=value, but nothing for the zero value.
func (t *textWriter) pair(key, value, zero string) *textWriter {
	if value == zero {
		return t
	}
	return t.word(key + "=" + value)
}

func (t *textWriter) count(key string, n uint64) *textWriter {
	return t.pair(key, strconv.FormatUint(n, 10), "0")
}

func (t *textWriter) flag(key string, set bool) *textWriter {
	if !set {
		return t
	}
	return t.word(key)
}

func (t *textWriter) frame(key string, f leak.Frame) *textWriter {
	if f == (leak.Frame{}) {
		return t
	}
	return t.word(key + "=" + frameWord(f))
}

func frameWord(f leak.Frame) string {
	return strconv.FormatUint(uint64(f.Map), 10) + "+0x" + strconv.FormatUint(f.Off, 16)
}

func (t *textWriter) end() {
	t.line = append(t.line, '\n')
	if t.err == nil {
		_, t.err = t.w.Write(t.line)
	}
	t.line = t.line[:0]
}

// of makes p the process of the lines that follow.
func (t *textWriter) of(p leak.ProcID) {
	if p != t.proc {
		t.proc = p
		t.word("proc").word(procWord(p)).end()
	}
}

// The events.

func (t *textWriter) Map(m leak.Mapping) {
	rights := []byte("---p")
	for i, set := range []bool{m.Read, m.Write, m.Exec, m.Shared} {
		if set {
			rights[i] = "rwxs"[i]
		}
	}
	t.word("map").uint(uint64(m.ID)).word(fmt.Sprintf("%#x-%#x", uint64(m.Start), uint64(m.End))).word(string(rights))
	t.count("offset", m.Offset).count("dev", m.Dev).count("inode", m.Inode).pair("path", strconv.Quote(m.Path), `""`)
	t.pair("buildid", m.BuildID, "").flag("deleted", m.Deleted).end()
}

func (t *textWriter) Stack(id leak.StackID, frames []leak.Frame) {
	t.word("stack").uint(uint64(id))
	for _, f := range frames {
		t.word(frameWord(f))
	}
	t.end()
}

var kindWords = []string{leak.KindMemory: "mem", leak.KindDescriptor: "fd", leak.KindMapping: "mapping", leak.KindThread: "thread", leak.KindPool: "pool"}

func kindWord(k leak.Kind) string {
	if int(k) < len(kindWords) && kindWords[k] != "" {
		return kindWords[k]
	}
	return "kind" + strconv.Itoa(int(k))
}

func (t *textWriter) ref(r leak.Ref) *textWriter {
	t.word(kindWord(r.Kind))
	switch r.Kind {
	case leak.KindMemory, leak.KindMapping, leak.KindPool:
		return t.hex(r.ID)
	}
	return t.uint(r.ID)
}

func (t *textWriter) Acquire(a leak.Acquire) {
	t.of(a.Ref.Proc)
	t.word("+").word(a.At.String()).ref(a.Ref).count("size", a.Size).count("stack", uint64(a.Stack))
	t.pair("weight", number(a.Weight), "1").flag("exact", a.Exact).attr("call", a.Call).end()
}

func (t *textWriter) Release(r leak.Release) {
	t.of(r.Ref.Proc)
	t.word("-").word(r.At.String()).ref(r.Ref).count("stack", uint64(r.Stack)).attr("call", r.Call).end()
}

func (t *textWriter) Invalid(i leak.Invalid) {
	t.of(i.Ref.Proc)
	t.word("invalid").word(i.At.String()).ref(i.Ref).count("size", i.Size).count("stack", uint64(i.Stack)).flag("double", i.Double)
	t.count("acquired", uint64(i.Acquired)).count("released", uint64(i.Released)).end()
}

func (t *textWriter) Tally(y leak.Tally) {
	t.of(y.Proc)
	t.word("tally").word(y.At.String()).word(kindWord(y.Kind)).count("stack", uint64(y.Stack))
	t.pair("acquired", number(y.Acquired.N)+"/"+number(y.Acquired.Bytes), "0/0")
	t.pair("released", number(y.Released.N)+"/"+number(y.Released.Bytes), "0/0").flag("exact", y.Exact).end()
}

func (t *textWriter) Gauge(g leak.Gauge) {
	t.of(g.Proc)
	t.word("gauge").word(g.At.String()).quoteIfNeeded(string(g.Name)).word(number(g.Value)).end()
}

func (t *textWriter) quoteIfNeeded(s string) *textWriter {
	for _, r := range s {
		if r <= ' ' || r == '"' || r == '=' || r >= 0x7f {
			return t.quote(s)
		}
	}
	if s == "" {
		return t.quote(s)
	}
	return t.word(s)
}

func (t *textWriter) Look(k leak.Look) {
	t.of(k.Proc)
	t.word("look").uint(uint64(max(k.N, 0))).word(k.At.String()).pair("allocator", strconv.Quote(k.Allocator), `""`)
	t.flag("walked", k.Walked).flag("single", k.Single).flag("final", k.Final).flag("pendingio", k.PendingIO)
	t.count("blocks", k.Blocks).count("bytes", k.Bytes).count("free", k.Free)
	t.count("lost", k.LostBlocks).count("lostbytes", k.LostBytes).count("read", k.ReadBytes)
	t.pair("pause", k.Pause.String(), "0s")
	for _, u := range k.Uncertainty {
		t.word("uncertain=" + strconv.Quote(u))
	}
	t.end()
}

var shapeWords = []string{
	leak.ShapeOther: "other", leak.ShapeType: "typed", leak.ShapePointer: "pointer",
	leak.ShapeZero: "zero", leak.ShapeText: "text", leak.ShapeNumber: "number",
}

func shapeWord(s leak.Shape) string {
	if int(s) < len(shapeWords) {
		return shapeWords[s]
	}
	return "shape" + strconv.Itoa(int(s))
}

var stateWords = []string{leak.Reachable: "reachable", leak.LostDirect: "lost", leak.LostIndirect: "indirect"}

func (t *textWriter) Verdicts(vs []leak.Verdict) { t.verdicts("", vs) }
func (t *textWriter) Blocks(vs []leak.Verdict)   { t.verdicts("block ", vs) }

func (t *textWriter) verdicts(prefix string, vs []leak.Verdict) {
	for i := range vs {
		v := &vs[i]
		if int(v.State) >= len(stateWords) || stateWords[v.State] == "" {
			continue
		}
		t.of(v.Ref.Proc)
		t.word(prefix + stateWords[v.State]).hex(v.Ref.ID).uint(v.Size).word(shapeWord(v.Shape))
		t.frame("type", v.Type).count("magic", uint64(v.Magic))
		if v.Owner != 0 {
			t.word("owner=0x" + strconv.FormatUint(v.Owner, 16))
		}
		if t.contents && v.Head != nil {
			t.word("head=" + strconv.Quote(string(v.Head)))
		}
		t.end()
	}
}

func (t *textWriter) Held(hs []leak.Held) {
	for i := range hs {
		h := &hs[i]
		if h.Proc != (leak.ProcID{}) {
			t.of(h.Proc)
		}
		t.word("held").quoteIfNeeded(h.Root.What).frame("at", h.Root.Frame).count("tid", uint64(max(h.Root.TID, 0)))
		t.count("size", h.Size).word(shapeWord(h.Shape)).frame("type", h.Type)
		t.count("n", h.N).count("bytes", h.Bytes).end()
	}
}

func (t *textWriter) Edges(es []leak.Edge) {
	for _, e := range es {
		t.word("edge").hex(e.From).hex(e.To).end()
	}
}

func (t *textWriter) Gap(g leak.Gap) {
	t.of(g.Proc)
	t.word("gap").word(g.At.String()).quoteIfNeeded(g.Source).quote(g.What).count("lost", g.Lost).end()
}

func (t *textWriter) Recorded(r leak.Recorded) {
	b, err := json.Marshal(r)
	if err == nil {
		t.word("recorded").quote(string(b)).end()
	}
}

func (t *textWriter) Name(f leak.Frame, names []leak.StackFrame) {
	t.word("name").word(frameWord(f))
	for i := range names {
		n := &names[i]
		t.word("function=" + strconv.Quote(n.Function))
		t.pair("file", strconv.Quote(n.File), `""`).count("line", uint64(max(n.Line, 0))).pair("module", strconv.Quote(n.Module), `""`)
		t.pair("buildid", n.BuildID, "").count("offset", n.Offset).flag("inlined", n.Inlined)
	}
	t.end()
}

func (t *textWriter) Note(s string) { t.word("note").quote(s).end() }

func (t *textWriter) Flush() {
	if err := t.w.Flush(); t.err == nil {
		t.err = err
	}
}

func (t *textWriter) Full() string { return "" }

func (t *textWriter) Err() error { return t.err }

func (t *textWriter) Close() error {
	if !t.closed {
		t.closed = true
		t.word(textEnd).end()
		if err := t.w.Flush(); t.err == nil {
			t.err = err
		}
	}
	return t.err
}
