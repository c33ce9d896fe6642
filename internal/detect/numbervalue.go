package detect

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
)

// patterns are values that debuggers, allocators and compilers fill memory
// with.
var patterns = []struct {
	value uint32
	what  string
}{
	{0xdeadbeef, "a fill value for freed or unset memory"},
	{0xbaadf00d, "Windows' LocalAlloc fill for unset memory"},
	{0xfeeefeee, "Windows' HeapFree fill for freed memory"},
	{0xabadcafe, "a fill value for unset memory"},
	{0xcafebabe, "a Java class file, or a fill value"},
	{0xdeadc0de, "a fill value for freed memory"},
	{0xdeadd00d, "a fill value for freed memory"},
	{0xfeedface, "a Mach-O file, or a fill value"},
	{0xfeedfacf, "a Mach-O file, or a fill value"},
	{0x8badf00d, "a watchdog's mark"},
	{0xbadc0ffe, "a fill value for unset memory"},
	{0xc0ffee00, "a fill value"},
}

// fills are bytes that whole blocks are filled with.
var fills = map[byte]string{
	0xcc: "Microsoft's fill for unset stack memory", 0xcd: "Microsoft's fill for unset heap memory",
	0xdd: "Microsoft's fill for freed heap memory", 0xfd: "Microsoft's fence round heap blocks",
	0xab: "Windows' fence behind heap blocks", 0xbe: "AddressSanitizer's fill for unset memory",
	0xa5: "jemalloc's and PostgreSQL's fill for unset memory", 0x5a: "jemalloc's fill for freed memory",
	0x7f: "PostgreSQL's fill for freed memory", 0xaa: "a test pattern", 0x55: "a test pattern",
	0xdb: "CPython's fill for freed memory", 0xcb: "CPython's older fill for unset memory",
}

// asPattern finds fill patterns, in both byte orders.
func asPattern(n uint64) []meaning {
	halves := []uint32{uint32(n)}
	if hi := uint32(n >> 32); hi != 0 {
		if hi != uint32(n) {
			return nil
		}
		halves = append(halves, hi)
	}
	w := halves[0]
	b := byte(w)
	if w == uint32(b)*0x01010101 && b >= 0x20 && b != 0xff {
		what := fills[b]
		if what == "" {
			what = fmt.Sprintf("memory filled with %#02x, as MALLOC_PERTURB_ and memset do", b)
		}
		return []meaning{{leak.Meaning{Text: fmt.Sprintf("%#x", w), How: what, Suspicious: true}, 90}}
	}
	for _, p := range patterns {
		order := ""
		switch w {
		case p.value:
		case bits.ReverseBytes32(p.value):
			order = " in the other byte order"
		default:
			continue
		}
		return []meaning{{leak.Meaning{Text: fmt.Sprintf("%#x%s", p.value, order), How: p.what, Suspicious: true}, 95}}
	}
	return nil
}

// mostNegative is how far below zero a number still looks like an error or a
// difference, and not like a large unsigned one.
const mostNegative = 1 << 16

// asNegative finds small negative numbers read as unsigned.
func asNegative(n uint64) []meaning {
	try := func(neg uint64, width int) []meaning {
		m := meaning{leak.Meaning{Text: "-" + strconv.FormatUint(neg, 10), How: fmt.Sprintf("a negative number of %d bits read as unsigned", width)}, 55}
		if neg <= 4096 {
			m.score = 92
			// Limits and page multiples just below 2^32 are sizes.
			m.Suspicious = neg%4096 != 0
		}
		if neg == 1 {
			m.How += ", as an error is"
		}
		return []meaning{m}
	}
	switch {
	case n > math.MaxUint64-mostNegative:
		return try(-n, 64)
	case n <= math.MaxUint32 && n > math.MaxUint32-mostNegative:
		return try(math.MaxUint32-n+1, 32)
	}
	return nil
}

// asTime finds times between 2000 and 2040. No size is suspicious for that:
// one to two gigabytes are such times in seconds.
func asTime(n uint64) []meaning {
	for i, unit := range []struct {
		name string
		per  uint64
	}{{"seconds", 1}, {"milliseconds", 1e3}, {"microseconds", 1e6}, {"nanoseconds", 1e9}} {
		if s := n / unit.per; s >= 946684800 && s < 2208988800 {
			t := time.Unix(int64(s), int64(n%unit.per*(1e9/unit.per))).UTC()
			return []meaning{{leak.Meaning{Text: t.Format("2006-01-02 15:04:05 MST"), How: unit.name + " since 1970"}, 40 + 5*i}}
		}
	}
	return nil
}

// asAddress finds what looks like an address of an x86-64 program: 47 bits,
// where Linux maps programs and libraries.
func asAddress(n uint64) []meaning {
	var what string
	switch n >> 40 {
	case 0x55, 0x56:
		what = "a program or its heap"
	case 0x7f:
		what = "a library, a mapping or a stack"
	default:
		return nil
	}
	return []meaning{{leak.Meaning{Text: "an address", How: "where Linux puts " + what, Suspicious: true}, 65}}
}

// asSocket finds IPv4 addresses, alone in both byte orders, and with their
// port as a struct sockaddr_in begins.
func asSocket(n uint64) []meaning {
	if n > math.MaxUint32 {
		// sockaddr_in: family (2, host order), port and address (network order).
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		ip := netip.AddrFrom4([4]byte(b[4:]))
		port := binary.BigEndian.Uint16(b[2:])
		if binary.LittleEndian.Uint16(b[:]) != 2 || !usual(ip) {
			return nil
		}
		return []meaning{{leak.Meaning{Text: netip.AddrPortFrom(ip, port).String(), How: "the beginning of a struct sockaddr_in", Suspicious: true}, 70}}
	}
	var ips []string
	score := 10
	for _, w := range words4and8(n) {
		ip := netip.AddrFrom4([4]byte([]byte(w.bytes)))
		if n < 1<<24 || !usual(ip) {
			continue
		}
		word := ip.String() + " (" + w.order + ")"
		if ip.IsPrivate() || ip.IsLoopback() {
			score = 30
			ips = slices.Insert(ips, 0, word)
			continue
		}
		ips = append(ips, word)
	}
	if len(ips) == 0 {
		return nil
	}
	return []meaning{{leak.Meaning{Text: strings.Join(ips, " or "), How: "an IPv4 address"}, score}}
}

// usual reports whether an address is one that hosts have.
func usual(ip netip.Addr) bool {
	b := ip.As4()
	return b[0] != 0 && b[0] < 224 && b[3] != 0 && b[3] != 255
}

// asPower finds powers of two, alone or with a header.
func asPower(n uint64) []meaning {
	try := func(m, header uint64, sign string) []meaning {
		if bits.OnesCount64(m) != 1 || m < 1024 {
			return nil
		}
		t := fmt.Sprintf("2^%d", bits.TrailingZeros64(m))
		how := "a power of two"
		if header != 0 {
			t += fmt.Sprintf(" %s %d", sign, header)
			how += " and a header"
		}
		return []meaning{{leak.Meaning{Text: t, How: how}, 50 - int(header)}}
	}
	if out := try(n, 0, ""); out != nil {
		return out
	}
	for _, h := range append(slices.Clone(headers), 24, 32) {
		if n > h {
			if out := try(n-h, h, "+"); out != nil {
				return out
			}
		}
		if n < math.MaxUint64-h {
			if out := try(n+h, h, "-"); out != nil {
				return out
			}
		}
	}
	if n%4096 == 0 && n > 0 {
		return []meaning{{leak.Meaning{Text: leak.FormatCount(n/4096) + " pages", How: "of 4096 bytes"}, 5}}
	}
	return nil
}

// asFloat finds floating-point numbers that are short in decimal.
func asFloat(n uint64) []meaning {
	type reading struct {
		value float64
		width int
	}
	rs := []reading{{math.Float64frombits(n), 64}}
	if n <= math.MaxUint32 {
		rs = append(rs, reading{float64(math.Float32frombits(uint32(n))), 32})
	}
	for _, r := range rs {
		abs := math.Abs(r.value)
		if !(abs >= 1e-3 && abs <= 1e9) {
			continue
		}
		if s := strconv.FormatFloat(r.value, 'g', -1, r.width); len(s) <= 6 {
			return []meaning{{leak.Meaning{Text: s, How: fmt.Sprintf("a floating-point number of %d bits", r.width)}, 35}}
		}
	}
	return nil
}
