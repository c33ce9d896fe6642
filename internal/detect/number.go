package detect

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"stanch/internal/leak"
)

// meaning is a leak.Meaning with its likelihood.
type meaning struct {
	leak.Meaning
	score int // higher is likelier
}

// Explain says what a number may be when it is not the size or count that it
// claims to be, most likely first. Suspicious is set on those meanings that
// everyday sizes do not have.
func Explain(n uint64) []leak.Meaning {
	var all []meaning
	for _, read := range []func(uint64) []meaning{
		asText, asTextWithHeader, asRecord, asPattern, asNegative, asTime, asAddress, asSocket, asPower, asFloat,
	} {
		all = append(all, read(n)...)
	}
	slices.SortStableFunc(all, func(a, b meaning) int { return -cmp.Compare(a.score, b.score) })
	out := make([]leak.Meaning, 0, len(all))
	for i := range all {
		out = append(out, all[i].Meaning)
	}
	return out
}

// Suspicious gives the likeliest meaning of a size that hardly is one.
func Suspicious(n uint64) (leak.Meaning, bool) {
	if n < largeNumber {
		return leak.Meaning{}, false
	}
	for _, m := range Explain(n) {
		if m.Suspicious {
			return m, true
		}
	}
	return leak.Meaning{}, false
}

// largeNumber is where sizes begin that may tell a story: below it every
// number is an everyday size.
const largeNumber = 1 << 16

// word is a number read as the bytes that it was in memory.
type word struct {
	bytes string // first byte in memory first
	order string // "big-endian" or "little-endian"
}

// words4and8 gives the readings of n as 4 bytes, when it fits, and as 8.
func words4and8(n uint64) []word {
	var out []word
	if n <= math.MaxUint32 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n))
		out = append(out, word{string(b[:]), "big-endian"})
		binary.LittleEndian.PutUint32(b[:], uint32(n))
		return append(out, word{string(b[:]), "little-endian"})
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	out = append(out, word{string(b[:]), "big-endian"})
	binary.LittleEndian.PutUint64(b[:], n)
	return append(out, word{string(b[:]), "little-endian"})
}

// asRecord finds binary beginnings: TLS records, gzip, ELF, PNG and others.
func asRecord(n uint64) []meaning {
	var out []meaning
	for _, w := range words4and8(n) {
		if w.order == "big-endian" && len(w.bytes) == 4 {
			if m, ok := tlsRecord(w.bytes); ok {
				out = append(out, m)
				continue
			}
		}
		for i := range leak.Magics {
			m := &leak.Magics[i]
			if len(m.Bytes) < 3 || printable(m.Bytes) || strings.HasPrefix(m.Name, "fill ") || len(m.Bytes) > len(w.bytes) && !strings.HasPrefix(m.Bytes, w.bytes) {
				continue
			}
			if !strings.HasPrefix(w.bytes, m.Bytes) && !strings.HasPrefix(m.Bytes, w.bytes) {
				continue
			}
			out = append(out, meaning{leak.Meaning{
				Text: m.Name, How: fmt.Sprintf("its first bytes % x read as a %s number", w.bytes[:min(len(m.Bytes), len(w.bytes))], w.order),
				// A small number has zeros where a short pattern says nothing.
				Suspicious: len(m.Bytes) >= 4 || w.order == "big-endian",
			}, 75})
		}
	}
	return out
}

// tlsRecord reads 4 bytes as the beginning of a TLS record: type 20 to 23,
// version 3.0 to 3.4, then the high byte of a length of at most 2^14 + 2048
// (RFC 8446, section 5).
func tlsRecord(b string) (meaning, bool) {
	types := []string{"change cipher spec", "alert", "handshake", "application data"}
	if b[0] < 20 || b[0] > 23 || b[1] != 3 || b[2] > 4 || b[3] > 0x48 {
		return meaning{}, false
	}
	return meaning{leak.Meaning{
		Text: fmt.Sprintf("a TLS record (%s, version %s)", types[b[0]-20], []string{"SSL 3.0", "1.0", "1.1", "1.2", "1.3"}[b[2]]),
		How:  fmt.Sprintf("its first bytes % x read as a big-endian number", b), Suspicious: true,
	}, 85}, true
}
