package record

import (
	"time"

	"stanch/internal/leak"
)

// Descriptors, sockets and limits in the compact form. A listing may be larger
// than a frame: it comes in parts, each with its place among them, so that a
// listing that has lost one is left out.

// The bits of the byte that begins a descriptor of a listing. A byte without
// dDescriptor ends the part.
const (
	dDescriptor = 1 << iota
	dDeleted
	dCloseOnExec
	dRead
	dWrite
	dSocket
)

// How a part of a listing ends.
const (
	listingEnds byte = 0
	listingGoes byte = 2 // the next part follows
)

// descriptorsMax are the most of one listing: twice what fs.nr_open allows by
// default.
const descriptorsMax = 2 << 20

func (c *compactWriter) Listing(x leak.Listing) {
	open := x.Open[:min(len(x.Open), descriptorsMax)]
	for part := uint64(0); ; part++ {
		c.beginOf(x.Proc, tagListing)
		c.at(x.At)
		c.uint(part)
		num := uint64(0)
		for len(open) > 0 && len(c.raw) < frameSoft {
			c.descriptor(&open[0], &num)
			open = open[1:]
		}
		if len(open) == 0 {
			c.raw = append(c.raw, listingEnds)
			return
		}
		c.raw = append(c.raw, listingGoes)
	}
}

func (c *compactWriter) descriptor(d *leak.Descriptor, num *uint64) {
	c.bits(true, d.Deleted, d.CloseOnExec, d.Access == "r" || d.Access == "rw", d.Access == "w" || d.Access == "rw", d.Socket != nil)
	c.raw = putDelta(c.raw, uint64(max(d.Num, 0)), num)
	c.text(d.Kind)
	c.text(d.Name)
	c.uint(d.Size)
	c.uint(d.Inode)
	c.uint(d.Dev)
	if s := d.Socket; s != nil {
		c.text(s.Protocol)
		c.text(s.State)
		c.text(s.Local)
		c.text(s.Peer)
		c.uint(s.Inode)
		c.uint(s.PeerID)
		c.uint(s.ReceiveQueue)
		c.uint(s.SendQueue)
		c.uint(zigzag(int64(s.LastReceived)))
		c.uint(zigzag(int64(s.LastSent)))
		c.uint(uint64(s.Retransmits))
		c.uint(uint64(s.Owner))
	}
}

func (c *compactWriter) Ownerless(x leak.Ownerless) {
	c.beginOf(x.Proc, tagOwnerless)
	c.at(x.At)
	c.text(x.State)
	c.text(x.Local)
	c.uint(x.N)
}

func (c *compactWriter) Usage(x leak.Usage) {
	c.beginOf(x.Proc, tagUsage)
	c.at(x.At)
	c.text(string(x.Name))
	c.text(x.Scope)
	c.uint(x.Used)
	c.uint(x.Max)
	c.uint(x.Hard)
	c.text(x.Limit)
	c.bits(x.Bytes)
}

func (c *compactWriter) Failure(x leak.Failure) {
	c.beginOf(x.Proc, tagFailure)
	c.at(x.At)
	c.text(x.Call)
	c.text(x.Errno)
	c.uint(uint64(x.Stack))
	c.uint(x.N)
}

func (c *compactWriter) Use(x leak.Use) {
	c.beginOf(x.Ref.Proc, tagUse)
	c.at(x.At)
	c.id(x.Ref)
	c.text(x.Call)
	c.text(x.Error)
}

func (c *compactWriter) Input(x leak.Input) {
	c.beginOf(x.Proc, tagInput)
	c.at(x.At)
	c.uint(x.Size)
	c.uint(uint64(x.Stack))
	c.uint(uint64(max(x.Num, 0)))
	c.text(x.Source)
}

// descriptorEvent reads one of these events; false when tag is of none.
func (c *compactReader) descriptorEvent(tag byte) bool {
	switch tag {
	case tagListing:
		c.listing()
	case tagOwnerless:
		x := leak.Ownerless{At: c.at(), Proc: c.proc, State: c.text(), Local: c.text(), N: c.uint()}
		c.say(func() { c.sink.Ownerless(x) })
	case tagUsage:
		x := leak.Usage{At: c.at(), Proc: c.proc, Name: leak.UsageName(c.text()), Scope: c.text(), Used: c.uint(), Max: c.uint(), Hard: c.uint(), Limit: c.text()}
		x.Bytes = c.byte()&1 != 0
		c.say(func() { c.sink.Usage(x) })
	case tagFailure:
		x := leak.Failure{At: c.at(), Proc: c.proc, Call: c.text(), Errno: c.text(), Stack: leak.StackID(c.uint()), N: c.uint()}
		c.say(func() { c.sink.Failure(x) })
	case tagUse:
		x := leak.Use{At: c.at(), Ref: c.ref(), Call: c.text(), Error: c.text()}
		c.say(func() { c.sink.Use(x) })
	case tagInput:
		x := leak.Input{At: c.at(), Proc: c.proc, Size: c.uint(), Stack: leak.StackID(c.uint()), Num: c.int(), Source: c.text()}
		c.say(func() { c.sink.Input(x) })
	default:
		return false
	}
	return true
}

// listing reads one part of a listing, and says it with the last one.
func (c *compactReader) listing() {
	at, part := c.at(), c.uint()
	if part == 0 {
		c.open, c.parts = c.open[:0], 0
	}
	whole := part == c.parts
	var num uint64
	var end byte
	for !c.bad {
		first := c.byte()
		if first&dDescriptor == 0 {
			end = first
			break
		}
		d := c.descriptor(first, &num)
		if whole && !c.bad && len(c.open) < descriptorsMax {
			c.open = append(c.open, d)
		}
	}
	if c.bad || !whole {
		c.parts = 0
		return
	}
	if c.parts++; end == listingEnds {
		c.parts = 0
		c.sink.Listing(leak.Listing{At: at, Proc: c.proc, Open: c.open})
	}
}

func (c *compactReader) descriptor(first byte, num *uint64) leak.Descriptor {
	d := leak.Descriptor{Num: int(c.delta(num)), Kind: c.text(), Name: c.text(), Size: c.uint(), Inode: c.uint(), Dev: c.uint()}
	d.Deleted, d.CloseOnExec = first&dDeleted != 0, first&dCloseOnExec != 0
	if first&dRead != 0 {
		d.Access = "r"
	}
	if first&dWrite != 0 {
		d.Access += "w"
	}
	if first&dSocket != 0 {
		s := leak.Socket{Protocol: c.text(), State: c.text(), Local: c.text(), Peer: c.text(), Inode: c.uint(), PeerID: c.uint(), ReceiveQueue: c.uint(), SendQueue: c.uint()}
		s.LastReceived, s.LastSent = time.Duration(unzigzag(c.uint())), time.Duration(unzigzag(c.uint()))
		s.Retransmits, s.Owner = uint32(c.uint()), uint32(c.uint())
		d.Socket = &s
	}
	return d
}
