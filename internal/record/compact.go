package record

import (
	"encoding/binary"
	"hash/crc32"
)

// The compact form:
//
//	magic    8 bytes, then one byte: the version
//	frame    repeated: 4 bytes length of the stored payload, 4 bytes length of
//	         the raw payload, 4 bytes CRC-32C of the stored payload, then the
//	         payload, a zstd frame; all numbers little endian
//
// A raw payload is a sequence of events: a tag byte, then its fields. Numbers
// are varints, addresses and times differences to the one before in the same
// frame, so that each frame can be read alone. The first event of the first
// frame is the header, the last of the last frame is the end.
const (
	compactMagic   = "\x89stanch\n"
	compactVersion = 1
	frameHeader    = 12
	frameSoft      = 256 << 10 // a frame is written when it reaches this
	frameHard      = 4 << 20   // a reader refuses larger ones
	batchMax       = 4096      // verdicts, holders or edges under one tag
	stringMax      = 4096      // PATH_MAX, the longest there is
	headMax        = 256       // bytes of a block's start, or of a root's name
	reasonsMax     = 256       // reasons of one look
	framesMax      = 4096      // frames of one stack
	namesMax       = 64        // functions at one place
	documentMax    = 64 << 10  // bytes of what was to be recorded, as JSON
	leastFrame     = 4 << 10   // a frame of a small file
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The tags of events. They appear in files and are never reused.
const (
	tagHeader byte = iota + 1
	tagProc
	tagMap
	tagStack
	tagAcquire
	tagRelease
	tagTally
	tagGauge
	tagLook
	tagVerdicts
	tagBlocks
	tagHeld
	tagEdges
	tagGap
	tagEnd
	tagInvalid
	tagRecorded
	tagName
	tagNote
	tagReleasedBy // a release of which more than the time is known
	tagListing
	tagOwnerless
	tagUsage
	tagFailure
	tagUse
	tagInput
)

// The bits of the byte that begins an entry of tagVerdicts and tagBlocks.
const (
	vState    = 0x03 // leak.State
	vShape    = 2    // shift of leak.Shape, three bits
	vSameSize = 0x20 // the size is that of the entry before
	vExtra    = 0x40 // another byte of bits follows
	vSameType = 0x80 // the type is that of the typed entry before
)

// The bits of the second byte.
const (
	xType  = 0x01
	xMagic = 0x02
	xOwner = 0x04
	xHead  = 0x08
	xShape = 0x10 // a shape beyond three bits
)

// deltas are the values that the next ones are differences to. They begin as
// zero in each frame.
type deltas struct {
	at    int64
	id    uint64 // of acquire, release and invalid
	addr  uint64 // of verdicts
	owner uint64
	size  uint64
	from  uint64
	to    uint64
	typ   struct{ m, off uint64 }
}

func zigzag(n int64) uint64   { return uint64(n<<1) ^ uint64(n>>63) }
func unzigzag(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }

// putDelta appends the difference of n to *last and makes n the last.
func putDelta(b []byte, n uint64, last *uint64) []byte {
	b = binary.AppendUvarint(b, zigzag(int64(n-*last)))
	*last = n
	return b
}
