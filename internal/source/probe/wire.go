package probe

import (
	"crypto/sha256"
	_ "embed" // blob_amd64.bin
	"encoding/binary"
	"math/bits"
	"time"

	"stanch/internal/leak"
)

// blob is the probe's text as probe/gen.go built it, without the trampolines'
// contents. Its first page is left for struct header.
//
//go:embed blob_amd64.bin
var blob []byte

// buildID tells texts of different builds apart.
func buildID() [16]byte {
	sum := sha256.Sum256(blob)
	return [16]byte(sum[:16])
}

// magic begins every region of the probe.
const magic = 0x01ff68636e617473

// patchBytes is the room for displaced bytes in struct patch.
const patchBytes = 16

var order = binary.LittleEndian

// memory is where regions are written: a stopped target, or a running one.
type memory interface {
	leak.Memory
	put(at uint64, p []byte) error
}

func put32(m memory, at uint64, v uint32) error {
	return m.put(at, order.AppendUint32(nil, v))
}

func put64(m memory, at uint64, v ...uint64) error {
	var b []byte
	for _, w := range v {
		b = order.AppendUint64(b, w)
	}
	return m.put(at, b)
}

// read reads n bytes, all or an error.
func read(m leak.Memory, at, n uint64) ([]byte, error) {
	b := make([]byte, n)
	_, err := m.ReadAt(b, leak.Addr(at))
	return b, err
}

// readInto is read into b.
func readInto(m leak.Memory, b []byte, at uint64) error {
	_, err := m.ReadAt(b, leak.Addr(at))
	return err
}

func get32(m leak.Memory, at uint64) (uint32, error) {
	b, err := read(m, at, 4)
	return order.Uint32(b), err
}

func get64(m leak.Memory, at uint64) (uint64, error) {
	b, err := read(m, at, 8)
	return order.Uint64(b), err
}

// patch is struct patch: one function that was changed.
type patch struct {
	at, target uint64
	old        []byte
	hook       int
}

func (p *patch) encode() []byte {
	b := make([]byte, wPatchSize)
	order.PutUint64(b[wPatchAt:], p.at)
	order.PutUint64(b[wPatchTarget:], p.target)
	copy(b[wPatchOld:], p.old)
	b[wPatchLen], b[wPatchHook] = byte(len(p.old)), byte(p.hook)
	return b
}

// header is struct header: the first bytes of a text.
type header struct {
	version  uint32
	textSize uint32
	build    [16]byte
	nearSize uint64
	owner    leak.ProcID
	data     []region
	islands  []region
	patches  []patch
}

func (h *header) encode() []byte {
	b := make([]byte, wHeaderSize)
	order.PutUint64(b[wHeaderMagic:], magic)
	order.PutUint32(b[wHeaderVersion:], h.version)
	order.PutUint32(b[wHeaderText:], h.textSize)
	copy(b[wHeaderBuild:], h.build[:])
	order.PutUint64(b[wHeaderNear:], h.nearSize)
	order.PutUint32(b[wHeaderOwnerPid:], uint32(h.owner.PID))
	order.PutUint64(b[wHeaderOwnerStart:], h.owner.Start)
	for i, r := range h.data {
		order.PutUint64(b[wHeaderData+16*i:], r.start)
		order.PutUint64(b[wHeaderData+16*i+8:], r.size)
	}
	for i, r := range h.islands {
		order.PutUint64(b[wHeaderIsland+16*i:], r.start)
		order.PutUint64(b[wHeaderIsland+16*i+8:], r.size)
	}
	for i := range h.patches {
		copy(b[wHeaderPatch+wPatchSize*i:], h.patches[i].encode())
	}
	return b
}

// decodeHeader reads what another stanch may have left; false when it is not
// ours, not of this version, or not sane.
func decodeHeader(b []byte) (*header, bool) {
	if len(b) < wHeaderSize || order.Uint64(b[wHeaderMagic:]) != magic {
		return nil, false
	}
	h := &header{version: order.Uint32(b[wHeaderVersion:]), textSize: order.Uint32(b[wHeaderText:]), nearSize: order.Uint64(b[wHeaderNear:])}
	copy(h.build[:], b[wHeaderBuild:])
	h.owner = leak.ProcID{PID: int(order.Uint32(b[wHeaderOwnerPid:])), Start: order.Uint64(b[wHeaderOwnerStart:])}
	if h.version != wProbeVersion || h.nearSize > 64<<20 {
		return nil, false
	}
	for i := range wRegions + wIslands {
		at, list := wHeaderData+16*i, &h.data
		if i >= wRegions {
			at, list = wHeaderIsland+16*(i-wRegions), &h.islands
		}
		r := region{order.Uint64(b[at:]), order.Uint64(b[at+8:])}
		if r.size == 0 {
			continue
		}
		if r.start%pageSize != 0 || r.size%pageSize != 0 || r.end() < r.start || r.end() > 1<<47 {
			return nil, false
		}
		*list = append(*list, r)
	}
	for i := range wPatches {
		e := b[wHeaderPatch+wPatchSize*i:][:wPatchSize]
		p := patch{at: order.Uint64(e[wPatchAt:]), target: order.Uint64(e[wPatchTarget:]), hook: int(e[wPatchHook])}
		n := int(e[wPatchLen])
		if p.at == 0 {
			continue
		}
		if n < jumpSize || n > patchBytes || p.hook >= len(hooks) {
			return nil, false
		}
		p.old = append([]byte(nil), e[wPatchOld:wPatchOld+n]...)
		h.patches = append(h.patches, p)
	}
	return h, true
}

// bookHead is struct books as far as stanch reads it back.
type bookHead struct {
	buckets, stacks, stacksMax, stacksUsed, framesMax, framesUsed uint64
	lostLive, lostStacks, cut, stale, eventsHead                  uint64
	fdsEnd, fdsLost                                               uint64
	level, levelMax, notebooks                                    uint32
}

func decodeBooks(b []byte) (*bookHead, bool) {
	if len(b) < wBooksSize || order.Uint64(b[wBooksMagic:]) != magic || order.Uint32(b[wBooksVersion:]) != wProbeVersion {
		return nil, false
	}
	u := func(off int) uint64 { return order.Uint64(b[off:]) }
	n := func(off int) uint32 { return order.Uint32(b[off:]) }
	return &bookHead{
		buckets: u(wBooksBuckets), level: n(wBooksLevel), levelMax: n(wBooksLevelMax),
		stacks: u(wBooksStacks), stacksMax: u(wBooksStacksMax), stacksUsed: u(wBooksStacksUsed),
		framesMax: u(wBooksFramesMax), framesUsed: u(wBooksFramesUsed),
		lostLive: u(wBooksLostLive), lostStacks: u(wBooksLostStacks), cut: u(wBooksCut), stale: u(wBooksStale), eventsHead: u(wBooksEventsHead),
		notebooks: n(wBooksNotebooksUsed), fdsEnd: max(u(wBooksFdsEnd), u(wBooksFdsOpen)), fdsLost: u(wBooksFdsLost),
	}, true
}

// timeCode writes milliseconds in the 20 bits that a record has for them: all
// of them up to half a minute, then the 16 highest.
func timeCode(d time.Duration) uint32 {
	ms := uint64(max(0, d/time.Millisecond))
	shift := max(0, bits.Len64(ms)-16)
	if shift >= 31 {
		return 1<<20 - 1
	}
	if ms < 1<<15 {
		return uint32(ms)
	}
	return uint32(shift+1)<<15 | uint32(ms>>shift)&(1<<15-1)
}

// timeOf reads it.
func timeOf(code uint32) time.Duration {
	ms := uint64(code & (1<<15 - 1))
	if e := code >> 15; e > 0 {
		ms = (ms | 1<<15) << (e - 1)
	}
	return time.Duration(ms) * time.Millisecond
}
