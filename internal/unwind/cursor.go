package unwind

import "encoding/binary"

// cursor reads numbers from bytes. Past the end it gives zeros and sets bad,
// so that a parser may test once.
type cursor struct {
	b   []byte
	at  int
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b)-c.at {
		c.bad = true
		c.at = len(c.b)
		return nil
	}
	c.at += n
	return c.b[c.at-n : c.at]
}

func (c *cursor) skip(n uint64) {
	if n > uint64(len(c.b)-c.at) {
		c.bad = true
		c.at = len(c.b)
		return
	}
	c.at += int(n)
}

func (c *cursor) u8() uint8 {
	if c.at < len(c.b) {
		c.at++
		return c.b[c.at-1]
	}
	c.bad = true
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) uleb() uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		b := c.u8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		if b < 0x80 {
			return v
		}
	}
}

func (c *cursor) sleb() int64 {
	var v int64
	for shift := uint(0); ; shift += 7 {
		b := c.u8()
		if shift < 64 {
			v |= int64(b&0x7f) << shift
		}
		if b < 0x80 {
			if b&0x40 != 0 && shift+7 < 64 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// text reads a string that ends in a zero byte.
func (c *cursor) text() []byte {
	start := c.at
	for {
		if b := c.u8(); b == 0 {
			break
		}
	}
	if c.bad {
		return nil
	}
	return c.b[start : c.at-1]
}
