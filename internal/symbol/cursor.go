package symbol

import (
	"bytes"
	"encoding/binary"
)

// maxString bounds a name or path read from a file; mangled names of heavy
// templates reach some tens of kilobytes.
const maxString = 1 << 16

// cursor reads little-endian values from a section. After an error every read
// gives zero, and err stays set: a loop over a cursor must look at err.
type cursor struct {
	s    *section
	buf  []byte // the block that pos is in
	base uint64 // section offset of buf[0]
	pos  int    // next byte in buf
	err  error
}

func newCursor(s *section, off uint64) cursor {
	c := cursor{s: s}
	c.seek(off)
	return c
}

// off is the section offset of the next byte.
func (c *cursor) off() uint64 { return c.base + uint64(c.pos) }

// seek moves to a section offset. The end itself is allowed.
func (c *cursor) seek(off uint64) {
	if c.err != nil {
		return
	}
	if off >= c.base && off-c.base <= uint64(len(c.buf)) {
		c.pos = int(off - c.base)
		return
	}
	if c.s == nil || off > c.s.size {
		c.fail()
		return
	}
	c.buf, c.base, c.pos = nil, off, 0
}

func (c *cursor) fail() {
	if c.err == nil {
		c.err = errTruncated
	}
	c.base, c.buf, c.pos = c.off(), nil, 0
}

// fill loads the block with the next byte.
func (c *cursor) fill() bool {
	if c.err != nil {
		return false
	}
	off := c.off()
	if c.s == nil {
		c.fail()
		return false
	}
	b, base, err := c.s.block(off)
	if err != nil {
		c.err = err
		c.fail()
		return false
	}
	c.buf, c.base, c.pos = b, base, int(off-base)
	return true
}

func (c *cursor) u8() byte {
	if c.pos >= len(c.buf) && !c.fill() {
		return 0
	}
	b := c.buf[c.pos]
	c.pos++
	return b
}

// uint reads size bytes, 1 to 8.
func (c *cursor) uint(size int) uint64 {
	if len(c.buf)-c.pos >= 8 {
		v := binary.LittleEndian.Uint64(c.buf[c.pos:])
		c.pos += size
		return v & (1<<(8*size) - 1)
	}
	var v uint64
	for i := range size {
		v |= uint64(c.u8()) << (8 * i)
	}
	return v
}

func (c *cursor) u16() uint16 { return uint16(c.uint(2)) }
func (c *cursor) u32() uint32 { return uint32(c.uint(4)) }

func (c *cursor) u64() uint64 {
	if len(c.buf)-c.pos >= 8 {
		v := binary.LittleEndian.Uint64(c.buf[c.pos:])
		c.pos += 8
		return v
	}
	return c.uint(4) | c.uint(4)<<32
}

func (c *cursor) uleb() uint64 {
	b := c.u8()
	if b < 0x80 {
		return uint64(b)
	}
	v, shift := uint64(b&0x7f), 7
	for b >= 0x80 && c.err == nil {
		b = c.u8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		shift += 7
	}
	return v
}

func (c *cursor) sleb() int64 {
	var v int64
	shift := 0
	for c.err == nil {
		b := c.u8()
		if shift < 64 {
			v |= int64(b&0x7f) << shift
		}
		shift += 7
		if b < 0x80 {
			if shift < 64 && b&0x40 != 0 {
				v |= -1 << shift
			}
			break
		}
	}
	return v
}

func (c *cursor) skip(n uint64) {
	if n <= uint64(len(c.buf)-c.pos) {
		c.pos += int(n)
		return
	}
	off := c.off()
	if off+n < off {
		c.fail()
		return
	}
	c.seek(off + n)
}

// str reads a zero-terminated string; one longer than maxString is cut and
// the rest passed over.
func (c *cursor) str() string {
	var long []byte
	for c.err == nil {
		if c.pos >= len(c.buf) && !c.fill() {
			return ""
		}
		b := c.buf[c.pos:]
		i := bytes.IndexByte(b, 0)
		if i >= 0 {
			c.pos += i + 1
			if long == nil {
				return string(b[:min(i, maxString)])
			}
			long = append(long, b[:i]...)
			return string(long[:min(len(long), maxString)])
		}
		if len(long) < maxString {
			long = append(long, b...)
		}
		c.pos = len(c.buf)
	}
	return ""
}

// skipStr passes over a zero-terminated string.
func (c *cursor) skipStr() {
	for c.err == nil {
		if c.pos >= len(c.buf) && !c.fill() {
			return
		}
		if i := bytes.IndexByte(c.buf[c.pos:], 0); i >= 0 {
			c.pos += i + 1
			return
		}
		c.pos = len(c.buf)
	}
}
