package record

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"

	"stanch/internal/leak"
)

// compactWriter writes the compact form. Its memory is one frame, raw and
// compressed: about 1 MB. What is no event - the header, names, the end - has
// frames of its own, which are written also when events have no room.
type compactWriter struct {
	w      io.Writer
	zip    *zstd.Encoder
	raw    []byte
	out    []byte
	d      deltas
	proc   leak.ProcID
	said   bool // proc was said in this frame
	o      Options
	closed bool
	err    error

	soft    int           // a frame is written when it reaches this
	written uint64        // bytes of the file so far
	latest  time.Duration // of the events that were written
	full    string        // why no more events are written
	keep    bool          // the frame is written in any case: it holds no events
}

func newCompactWriter(w io.Writer, h Header, o Options) *compactWriter {
	c := &compactWriter{w: w, o: o, proc: h.Proc, soft: frameSoft, keep: true}
	if o.MaxBytes > 0 {
		c.soft = int(min(max(o.MaxBytes/64, leastFrame), frameSoft))
	}
	c.zip, c.err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(512<<10))
	if c.err == nil {
		c.write([]byte(compactMagic + string(rune(compactVersion))))
	}
	c.beginKept(tagHeader)
	c.text(h.Comm)
	c.text(h.Exe)
	c.uint(uint64(h.Proc.PID))
	c.uint(h.Proc.Start)
	zero := h.Start.IsZero()
	c.bits(zero)
	if !zero {
		c.uint(zigzag(h.Start.Unix()))
		c.uint(uint64(h.Start.Nanosecond()))
	}
	c.float(h.UptimeS)
	c.text(h.Version)
	return c
}

// The fields.

// begin starts an event that belongs to no process.
func (c *compactWriter) begin(tag byte) {
	c.room(false)
	c.raw = append(c.raw, tag)
}

// beginKept starts what is no event, and is written also when there is no room
// for more of those.
func (c *compactWriter) beginKept(tag byte) {
	c.room(true)
	c.raw = append(c.raw, tag)
}

// beginOf starts an event of p, and says first whose it is when that changed.
func (c *compactWriter) beginOf(p leak.ProcID, tag byte) {
	c.room(false)
	if !c.said || p != c.proc {
		c.proc, c.said = p, true
		c.raw = append(c.raw, tagProc)
		c.uint(uint64(p.PID))
		c.uint(p.Start)
	}
	c.raw = append(c.raw, tag)
}

// room begins another frame when this one is full or is of another sort, which
// may only happen between events.
func (c *compactWriter) room(keep bool) {
	if len(c.raw) >= c.soft || keep != c.keep || c.full != "" && !keep {
		c.Flush()
	}
	c.keep = keep
}

func (c *compactWriter) uint(n uint64) { c.raw = binary.AppendUvarint(c.raw, n) }

// text writes a string of stringMax bytes at most.
func (c *compactWriter) text(s string) {
	s = s[:min(len(s), stringMax)]
	c.uint(uint64(len(s)))
	c.raw = append(c.raw, s...)
}

func (c *compactWriter) at(t time.Duration) {
	c.uint(zigzag(int64(t) - c.d.at))
	c.d.at = int64(t)
}

// float writes whole numbers, which most are, as numbers, and others as bits.
func (c *compactWriter) float(f float64) {
	if n := uint64(f); f >= 0 && f < 1<<53 && float64(n) == f && !math.Signbit(f) {
		c.uint(n<<1 | 1)
		return
	}
	c.uint(0)
	c.raw = binary.LittleEndian.AppendUint64(c.raw, math.Float64bits(f))
}

func (c *compactWriter) bits(set ...bool) {
	var b byte
	for i, s := range set {
		if s {
			b |= 1 << i
		}
	}
	c.raw = append(c.raw, b)
}

func (c *compactWriter) frame(f leak.Frame) {
	c.uint(uint64(f.Map))
	c.uint(f.Off)
}

// Flush ends the frame and writes it, unless it holds events that there is no
// room for.
func (c *compactWriter) Flush() {
	if len(c.raw) > 0 && c.err == nil && (c.keep || c.full == "") {
		c.out = append(c.out[:0], make([]byte, frameHeader)...)
		c.out = c.zip.EncodeAll(c.raw, c.out)
		stored := c.out[frameHeader:]
		binary.LittleEndian.PutUint32(c.out[0:], uint32(len(stored)))
		binary.LittleEndian.PutUint32(c.out[4:], uint32(len(c.raw)))
		binary.LittleEndian.PutUint32(c.out[8:], crc32.Checksum(stored, castagnoli))
		if !c.keep {
			c.full = c.noRoom(len(c.out))
		}
		if c.full == "" || c.keep {
			c.write(c.out)
		}
	}
	if c.full == "" {
		c.latest = max(c.latest, time.Duration(c.d.at))
	}
	c.raw = c.raw[:0]
	c.d = deltas{}
	c.said = false
}

func (c *compactWriter) write(b []byte) {
	n, err := c.w.Write(b)
	c.written += uint64(n)
	if err != nil {
		c.err = fmt.Errorf("write recording: %w", err)
	}
}

// noRoom says why n more bytes of events may not be written, "" when they may.
// A sixteenth of the file is kept for what is written in any case.
func (c *compactWriter) noRoom(n int) string {
	if most := c.o.MaxBytes; most > 0 && c.written+uint64(n) > most-most/16 {
		return fmt.Sprintf("the file has reached its most, %s", leak.FormatBytes(float64(most)))
	}
	if c.o.Room == nil {
		return ""
	}
	return c.o.Room(n)
}

func (c *compactWriter) Full() string { return c.full }

// The events.

func (c *compactWriter) Map(m leak.Mapping) {
	c.begin(tagMap)
	c.uint(uint64(m.ID))
	c.uint(uint64(m.Start))
	c.uint(uint64(m.End))
	c.bits(m.Read, m.Write, m.Exec, m.Shared, m.Deleted)
	c.uint(m.Offset)
	c.uint(m.Dev)
	c.uint(m.Inode)
	c.text(m.Path)
	c.text(m.BuildID)
}

func (c *compactWriter) Stack(id leak.StackID, frames []leak.Frame) {
	c.begin(tagStack)
	c.uint(uint64(id))
	frames = frames[:min(len(frames), framesMax)]
	c.uint(uint64(len(frames)))
	for _, f := range frames {
		c.frame(f)
	}
}

func (c *compactWriter) id(r leak.Ref) {
	c.raw = append(c.raw, byte(r.Kind))
	c.raw = putDelta(c.raw, r.ID, &c.d.id)
}

func (c *compactWriter) Acquire(a leak.Acquire) {
	c.beginOf(a.Ref.Proc, tagAcquire)
	c.at(a.At)
	c.id(a.Ref)
	c.uint(a.Size)
	c.uint(uint64(a.Stack))
	one := a.Weight == 1
	c.bits(a.Exact, one, a.Call != "")
	if !one {
		c.float(a.Weight)
	}
	if a.Call != "" {
		c.text(a.Call)
	}
}

func (c *compactWriter) Release(r leak.Release) {
	if r.Stack == 0 && r.Call == "" {
		c.beginOf(r.Ref.Proc, tagRelease)
		c.at(r.At)
		c.id(r.Ref)
		return
	}
	c.beginOf(r.Ref.Proc, tagReleasedBy)
	c.at(r.At)
	c.id(r.Ref)
	c.uint(uint64(r.Stack))
	c.text(r.Call)
}

func (c *compactWriter) Invalid(i leak.Invalid) {
	c.beginOf(i.Ref.Proc, tagInvalid)
	c.at(i.At)
	c.id(i.Ref)
	c.uint(i.Size)
	c.bits(i.Double)
	for _, s := range []leak.StackID{i.Stack, i.Acquired, i.Released} {
		c.uint(uint64(s))
	}
}

func (c *compactWriter) Tally(y leak.Tally) {
	c.beginOf(y.Proc, tagTally)
	c.at(y.At)
	c.raw = append(c.raw, byte(y.Kind))
	c.uint(uint64(y.Stack))
	c.float(y.Acquired.N)
	c.float(y.Acquired.Bytes)
	c.float(y.Released.N)
	c.float(y.Released.Bytes)
	c.bits(y.Exact)
}

func (c *compactWriter) Gauge(g leak.Gauge) {
	c.beginOf(g.Proc, tagGauge)
	c.at(g.At)
	c.text(string(g.Name))
	c.float(g.Value)
}

func (c *compactWriter) Look(k leak.Look) {
	c.beginOf(k.Proc, tagLook)
	c.uint(uint64(max(k.N, 0)))
	c.at(k.At)
	c.text(k.Allocator)
	c.bits(k.Walked, k.Single, k.PendingIO, k.Final)
	for _, n := range []uint64{k.Blocks, k.Bytes, k.Free, k.LostBlocks, k.LostBytes, uint64(k.Pause), k.ReadBytes} {
		c.uint(n)
	}
	why := k.Uncertainty[:min(len(k.Uncertainty), reasonsMax)]
	c.uint(uint64(len(why)))
	for _, u := range why {
		c.text(u)
	}
}

func (c *compactWriter) Verdicts(vs []leak.Verdict) { c.verdicts(tagVerdicts, vs) }
func (c *compactWriter) Blocks(vs []leak.Verdict)   { c.verdicts(tagBlocks, vs) }

// verdicts writes runs of one process, batchMax at most.
func (c *compactWriter) verdicts(tag byte, vs []leak.Verdict) {
	for len(vs) > 0 {
		n := 1
		for n < min(len(vs), batchMax) && vs[n].Ref.Proc == vs[0].Ref.Proc {
			n++
		}
		c.beginOf(vs[0].Ref.Proc, tag)
		c.uint(uint64(n))
		for i := range vs[:n] {
			c.verdict(&vs[i])
		}
		vs = vs[n:]
	}
}

func (c *compactWriter) verdict(v *leak.Verdict) {
	d := &c.d
	first, extra := byte(v.State)&vState, byte(0)
	if v.Shape < 8 {
		first |= byte(v.Shape) << vShape
	} else {
		extra |= xShape
	}
	sameSize := v.Size == d.size
	if sameSize {
		first |= vSameSize
	}
	typ := struct{ m, off uint64 }{uint64(v.Type.Map), v.Type.Off}
	switch {
	case v.Type == leak.Frame{}:
	case typ == d.typ:
		first |= vSameType
	default:
		extra |= xType
	}
	if v.Magic != 0 {
		extra |= xMagic
	}
	if v.Owner != 0 {
		extra |= xOwner
	}
	head := c.o.Contents && v.Head != nil
	if head {
		extra |= xHead
	}
	if extra != 0 {
		first |= vExtra
	}
	c.raw = append(c.raw, first)
	if extra != 0 {
		c.raw = append(c.raw, extra)
	}
	c.raw = putDelta(c.raw, v.Ref.ID, &d.addr)
	if !sameSize {
		c.uint(v.Size)
		d.size = v.Size
	}
	if extra&xShape != 0 {
		c.raw = append(c.raw, byte(v.Shape))
	}
	if extra&xType != 0 {
		c.frame(v.Type)
		d.typ = typ
	}
	if extra&xMagic != 0 {
		c.raw = append(c.raw, v.Magic)
	}
	if extra&xOwner != 0 {
		c.raw = putDelta(c.raw, v.Owner, &d.owner)
	}
	if head {
		c.text(string(v.Head[:min(len(v.Head), headMax)]))
	}
}

func (c *compactWriter) Held(hs []leak.Held) {
	for len(hs) > 0 {
		n := 1
		for n < min(len(hs), batchMax) && hs[n].Proc == hs[0].Proc {
			n++
		}
		if hs[0].Proc == (leak.ProcID{}) {
			c.begin(tagHeld)
		} else {
			c.beginOf(hs[0].Proc, tagHeld)
		}
		c.uint(uint64(n))
		for i := range hs[:n] {
			h := &hs[i]
			c.text(h.Root.What[:min(len(h.Root.What), headMax)])
			c.frame(h.Root.Frame)
			c.uint(uint64(max(h.Root.TID, 0)))
			c.uint(h.Size)
			c.raw = append(c.raw, byte(h.Shape))
			c.frame(h.Type)
			c.uint(h.N)
			c.uint(h.Bytes)
		}
		hs = hs[n:]
	}
}

func (c *compactWriter) Edges(es []leak.Edge) {
	for len(es) > 0 {
		n := min(len(es), batchMax)
		c.begin(tagEdges)
		c.uint(uint64(n))
		for _, e := range es[:n] {
			c.raw = putDelta(c.raw, e.From, &c.d.from)
			c.raw = putDelta(c.raw, e.To, &c.d.to)
		}
		es = es[n:]
	}
}

func (c *compactWriter) Gap(g leak.Gap) {
	c.beginOf(g.Proc, tagGap)
	c.at(g.At)
	c.text(g.Source)
	c.text(g.What)
	c.uint(g.Lost)
}

// What is no event.

func (c *compactWriter) Recorded(r leak.Recorded) {
	b, err := json.Marshal(r)
	if err != nil || len(b) > documentMax {
		return // thousands of functions to look for
	}
	c.beginKept(tagRecorded)
	c.uint(uint64(len(b)))
	c.raw = append(c.raw, b...)
}

func (c *compactWriter) Name(f leak.Frame, names []leak.StackFrame) {
	c.beginKept(tagName)
	c.frame(f)
	names = names[:min(len(names), namesMax)]
	c.uint(uint64(len(names)))
	for i := range names {
		n := &names[i]
		c.text(n.Function)
		c.text(n.File)
		c.uint(uint64(max(n.Line, 0)))
		c.text(n.Module)
		c.text(n.BuildID)
		c.uint(n.Offset)
		c.bits(n.Inlined)
	}
}

func (c *compactWriter) Note(s string) {
	c.beginKept(tagNote)
	c.text(s)
}

func (c *compactWriter) Err() error { return c.err }

func (c *compactWriter) Close() error {
	if c.closed {
		return c.err
	}
	c.closed = true
	c.Flush()
	if c.full != "" {
		c.beginKept(tagGap)
		c.at(c.latest)
		c.text("recording")
		c.text(fmt.Sprintf("%s: it ends after %s", c.full, leak.FormatDuration(c.latest)))
		c.uint(0)
	}
	c.beginKept(tagEnd)
	c.Flush()
	return c.err
}
