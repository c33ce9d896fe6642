package record

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"

	"stanch/internal/leak"
)

// readCompact reads the compact form. A damaged frame is left out when the
// next one can be found; the events before and behind it are said.
func readCompact(r *bufio.Reader, sink target) (Header, error) {
	c := &compactReader{sink: sink}
	var magic [len(compactMagic) + 1]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return Header{}, damaged(sink, 0, "it ends within its first line")
	}
	if v := magic[len(compactMagic)]; v != compactVersion {
		return Header{}, fmt.Errorf("%w: it has version %d, and this stanch reads version %d", ErrFormat, v, compactVersion)
	}
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(frameHard))
	if err != nil {
		return Header{}, fmt.Errorf("read recording: %w", err)
	}
	defer unzip.Close()
	var first error
	fail := func(format string, args ...any) {
		if err := damaged(sink, time.Duration(c.latest), format, args...); first == nil {
			first = err
		}
	}
	var stored, raw []byte
	for n := 1; ; n++ {
		var head [frameHeader]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			switch {
			case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF) && !c.ended:
				fail("it was cut short after %d parts", n-1)
			case !errors.Is(err, io.EOF):
				return c.head, fmt.Errorf("read recording: %w", err)
			}
			return c.head, first
		}
		storedLen, rawLen := binary.LittleEndian.Uint32(head[0:]), binary.LittleEndian.Uint32(head[4:])
		if storedLen == 0 || storedLen > frameHard || rawLen > frameHard || c.ended {
			fail("part %d has no valid beginning", n)
			return c.head, first
		}
		stored = sized(stored, int(storedLen))
		if _, err := io.ReadFull(r, stored); err != nil {
			fail("it was cut short in part %d", n)
			return c.head, first
		}
		if crc32.Checksum(stored, castagnoli) != binary.LittleEndian.Uint32(head[8:]) {
			fail("part %d does not match its checksum and is left out", n)
			continue
		}
		raw, err = unzip.DecodeAll(stored, raw[:0])
		if err != nil || len(raw) != int(rawLen) {
			fail("part %d cannot be unpacked and is left out", n)
			continue
		}
		if err := c.frame(raw); err != nil {
			fail("part %d: %v", n, err)
		}
	}
}

func sized(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

type compactReader struct {
	sink   target
	head   Header
	proc   leak.ProcID
	latest int64 // time of the latest event
	ended  bool
	batch  []leak.Verdict
	held   []leak.Held
	edges  []leak.Edge
	open   []leak.Descriptor // of the listing whose parts are being read
	parts  uint64            // how many of them there were

	// The frame that is being read.
	raw []byte
	d   deltas
	bad bool
}

var errShort = errors.New("an event is not complete")

// frame says the events of one frame. What was said before an error stays.
func (c *compactReader) frame(raw []byte) error {
	c.raw, c.d, c.bad = raw, deltas{}, false
	c.proc = c.head.Proc
	for len(c.raw) > 0 {
		tag := c.byte()
		if !c.event(tag) {
			return fmt.Errorf("there is no event %d", tag)
		}
		if c.bad {
			return errShort
		}
	}
	return nil
}

// event reads one event and says it unless it is not complete; false when
// there is no such event.
func (c *compactReader) event(tag byte) bool {
	switch tag {
	case tagHeader:
		c.header()
	case tagProc:
		c.proc = leak.ProcID{PID: c.int(), Start: c.uint()}
	case tagMap:
		c.mapping()
	case tagStack:
		c.stack()
	case tagAcquire:
		a := leak.Acquire{At: c.at(), Ref: c.ref(), Size: c.uint(), Stack: leak.StackID(c.uint()), Weight: 1}
		b := c.byte()
		a.Exact = b&1 != 0
		if b&2 == 0 {
			a.Weight = c.float()
		}
		if b&4 != 0 {
			a.Call = c.text()
		}
		c.say(func() { c.sink.Acquire(a) })
	case tagRelease:
		r := leak.Release{At: c.at(), Ref: c.ref()}
		c.say(func() { c.sink.Release(r) })
	case tagReleasedBy:
		r := leak.Release{At: c.at(), Ref: c.ref(), Stack: leak.StackID(c.uint()), Call: c.text()}
		c.say(func() { c.sink.Release(r) })
	case tagInvalid:
		i := leak.Invalid{At: c.at(), Ref: c.ref(), Size: c.uint(), Double: c.byte()&1 != 0}
		i.Stack, i.Acquired, i.Released = leak.StackID(c.uint()), leak.StackID(c.uint()), leak.StackID(c.uint())
		c.say(func() { c.sink.Invalid(i) })
	case tagTally:
		y := leak.Tally{At: c.at(), Proc: c.proc, Kind: leak.Kind(c.byte()), Stack: leak.StackID(c.uint())}
		y.Acquired = leak.Count{N: c.float(), Bytes: c.float()}
		y.Released = leak.Count{N: c.float(), Bytes: c.float()}
		y.Exact = c.byte()&1 != 0
		c.say(func() { c.sink.Tally(y) })
	case tagGauge:
		g := leak.Gauge{At: c.at(), Proc: c.proc, Name: leak.GaugeName(c.text()), Value: c.float()}
		c.say(func() { c.sink.Gauge(g) })
	case tagLook:
		c.look()
	case tagVerdicts:
		vs := c.verdicts()
		c.say(func() { c.sink.Verdicts(vs) })
	case tagBlocks:
		vs := c.verdicts()
		c.say(func() { c.sink.Blocks(vs) })
	case tagHeld:
		c.holders()
	case tagEdges:
		n := c.batchLen(2)
		c.edges = c.edges[:0]
		for range n {
			e := leak.Edge{From: c.delta(&c.d.from)}
			e.To = c.delta(&c.d.to)
			c.edges = append(c.edges, e)
		}
		c.say(func() { c.sink.Edges(c.edges) })
	case tagGap:
		g := leak.Gap{At: c.at(), Proc: c.proc, Source: c.text(), What: c.text(), Lost: c.uint()}
		c.say(func() { c.sink.Gap(g) })
	case tagRecorded:
		c.recorded()
	case tagName:
		c.name()
	case tagNote:
		s := c.text()
		c.say(func() { c.sink.more.Note(s) })
	case tagEnd:
		c.ended = true
	default:
		return c.descriptorEvent(tag)
	}
	return true
}

func (c *compactReader) say(f func()) {
	if !c.bad {
		f()
	}
}

// The fields. After the first that is not complete all are zero, and bad is
// set.

func (c *compactReader) fail() {
	c.bad = true
	c.raw = nil
}

func (c *compactReader) byte() byte {
	if len(c.raw) == 0 {
		c.fail()
		return 0
	}
	b := c.raw[0]
	c.raw = c.raw[1:]
	return b
}

func (c *compactReader) uint() uint64 {
	if len(c.raw) > 0 && c.raw[0] < 0x80 {
		n := uint64(c.raw[0])
		c.raw = c.raw[1:]
		return n
	}
	n, used := binary.Uvarint(c.raw)
	if used <= 0 {
		c.fail()
		return 0
	}
	c.raw = c.raw[used:]
	return n
}

func (c *compactReader) int() int { return int(min(c.uint(), math.MaxInt32)) }

func (c *compactReader) delta(last *uint64) uint64 {
	*last += uint64(unzigzag(c.uint()))
	return *last
}

func (c *compactReader) at() time.Duration {
	c.d.at += unzigzag(c.uint())
	c.latest = max(c.latest, c.d.at)
	return time.Duration(c.d.at)
}

func (c *compactReader) text() string {
	n := c.uint()
	if n > stringMax || n > uint64(len(c.raw)) {
		c.fail()
		return ""
	}
	s := string(c.raw[:n])
	c.raw = c.raw[n:]
	return s
}

func (c *compactReader) float() float64 {
	n := c.uint()
	if n&1 != 0 {
		return float64(n >> 1)
	}
	if len(c.raw) < 8 {
		c.fail()
		return 0
	}
	f := math.Float64frombits(binary.LittleEndian.Uint64(c.raw))
	c.raw = c.raw[8:]
	return f
}

func (c *compactReader) place() leak.Frame {
	return leak.Frame{Map: leak.MapID(c.uint()), Off: c.uint()}
}

func (c *compactReader) ref() leak.Ref {
	k := leak.Kind(c.byte())
	return leak.Ref{Proc: c.proc, Kind: k, ID: c.delta(&c.d.id)}
}

// batchLen reads how many entries follow; each takes least bytes at least.
func (c *compactReader) batchLen(least int) int {
	n := c.uint()
	if n > batchMax || n*uint64(least) > uint64(len(c.raw)) {
		c.fail()
		return 0
	}
	return int(n)
}

// The events that have many parts.

func (c *compactReader) header() {
	h := Header{Comm: c.text(), Exe: c.text(), Proc: leak.ProcID{PID: c.int(), Start: c.uint()}}
	if c.byte()&1 == 0 {
		sec, nsec := unzigzag(c.uint()), c.uint()
		h.Start = time.Unix(sec, int64(min(nsec, 999_999_999))).UTC()
	}
	h.UptimeS = c.float()
	h.Version = c.text()
	c.say(func() { c.head, c.proc = h, h.Proc })
}

func (c *compactReader) mapping() {
	m := leak.Mapping{ID: leak.MapID(c.uint()), Start: leak.Addr(c.uint()), End: leak.Addr(c.uint())}
	b := c.byte()
	m.Read, m.Write, m.Exec, m.Shared, m.Deleted = b&1 != 0, b&2 != 0, b&4 != 0, b&8 != 0, b&16 != 0
	m.Offset, m.Dev, m.Inode = c.uint(), c.uint(), c.uint()
	m.Path, m.BuildID = c.text(), c.text()
	c.say(func() { c.sink.Map(m) })
}

func (c *compactReader) stack() {
	id := leak.StackID(c.uint())
	n := c.uint()
	if n > framesMax || n*2 > uint64(len(c.raw)) {
		c.fail()
		return
	}
	frames := make([]leak.Frame, 0, n)
	for range n {
		frames = append(frames, c.place())
	}
	c.say(func() { c.sink.Stack(id, frames) })
}

func (c *compactReader) look() {
	k := leak.Look{N: c.int(), At: c.at(), Proc: c.proc, Allocator: c.text()}
	b := c.byte()
	k.Walked, k.Single, k.PendingIO, k.Final = b&1 != 0, b&2 != 0, b&4 != 0, b&8 != 0
	k.Blocks, k.Bytes, k.Free, k.LostBlocks, k.LostBytes = c.uint(), c.uint(), c.uint(), c.uint(), c.uint()
	k.Pause, k.ReadBytes = time.Duration(c.uint()), c.uint()
	for range c.batchLen(1) {
		k.Uncertainty = append(k.Uncertainty, c.text())
	}
	c.say(func() { c.sink.Look(k) })
}

func (c *compactReader) verdicts() []leak.Verdict {
	c.batch = c.batch[:0]
	for range c.batchLen(2) {
		c.batch = append(c.batch, c.verdict())
	}
	return c.batch
}

func (c *compactReader) verdict() leak.Verdict {
	d := &c.d
	first, extra := c.byte(), byte(0)
	if first&vExtra != 0 {
		extra = c.byte()
	}
	v := leak.Verdict{State: leak.State(first & vState), Shape: leak.Shape(first >> vShape & 7)}
	v.Ref = leak.Ref{Proc: c.proc, Kind: leak.KindMemory, ID: c.delta(&d.addr)}
	if first&vSameSize == 0 {
		d.size = c.uint()
	}
	v.Size = d.size
	if extra&xShape != 0 {
		v.Shape = leak.Shape(c.byte())
	}
	if extra&xType != 0 {
		d.typ.m, d.typ.off = c.uint(), c.uint()
	}
	if extra&xType != 0 || first&vSameType != 0 {
		v.Type = leak.Frame{Map: leak.MapID(d.typ.m), Off: d.typ.off}
	}
	if extra&xMagic != 0 {
		v.Magic = c.byte()
	}
	if extra&xOwner != 0 {
		v.Owner = c.delta(&d.owner)
	}
	if extra&xHead != 0 {
		v.Head = []byte(c.text())
	}
	return v
}

func (c *compactReader) holders() {
	c.held = c.held[:0]
	for range c.batchLen(9) {
		h := leak.Held{Proc: c.proc, Root: leak.Root{What: c.text(), Frame: c.place(), TID: c.int()}, Size: c.uint()}
		h.Shape = leak.Shape(c.byte())
		h.Type = c.place()
		h.N, h.Bytes = c.uint(), c.uint()
		c.held = append(c.held, h)
	}
	c.say(func() { c.sink.Held(c.held) })
}

func (c *compactReader) recorded() {
	n := c.uint()
	if n > documentMax || n > uint64(len(c.raw)) {
		c.fail()
		return
	}
	var r leak.Recorded
	if json.Unmarshal(c.raw[:n], &r) != nil {
		c.fail()
		return
	}
	c.raw = c.raw[n:]
	c.say(func() { c.sink.more.Recorded(r) })
}

func (c *compactReader) name() {
	f := c.place()
	var names []leak.StackFrame
	for range c.batchLen(7) {
		n := leak.StackFrame{Function: c.text(), File: c.text(), Line: c.int(), Module: c.text(), BuildID: c.text(), Offset: c.uint()}
		n.Inlined = c.byte()&1 != 0
		names = append(names, n)
	}
	c.say(func() { c.sink.more.Name(f, names) })
}
