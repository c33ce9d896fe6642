package detect

import (
	"math"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		n          uint64
		want       string // in the likeliest meaning
		suspicious bool
	}{
		{1213486160, `"HTTP" (HTTP response)`, true},
		{1213486160 + 16, `"HTTP" (HTTP response) + 16`, true},
		{1213486160 + 4, `"HTTP" (HTTP response) + 4`, true},
		{1213486160 - 8, `"HTTP" (HTTP response) - 8`, true},
		{0x47455420, `"GET " (HTTP GET request)`, true},
		{0x20544547, `"GET " (HTTP GET request)`, true},
		{0x504f5354, `"POST" (HTTP POST request)`, true},
		{0x5353482d, `"SSH-" (SSH greeting)`, true},
		{0x2d485353, `"SSH-" (SSH greeting)`, true},
		{0x16030100, "a TLS record (handshake, version 1.0)", true},
		{0x16030302, "a TLS record (handshake, version 1.2)", true},
		{0x3c3f786d, `"<?xm" (XML document)`, true},
		{0x7b226964, `"{\"id" (JSON object)`, true},
		{0x504f5354202f2061, `"POST / a" (HTTP POST request)`, true},
		{0x464c457f, "ELF file", true},
		{0x89504e47, "PNG image", true},
		{0x75736572, `"user"`, true},
		{0xffffffff, "-1", true},
		{math.MaxUint64, "-1", true},
		{math.MaxUint64 - 21, "-22", true},
		{0xfffffff4, "-12", true},
		{0xdeadbeef, "0xdeadbeef", true},
		{0xefbeadde, "0xdeadbeef in the other byte order", true},
		{0xdeadbeefdeadbeef, "0xdeadbeef", true},
		{0xbaadf00d, "0xbaadf00d", true},
		{0xfeeefeee, "0xfeeefeee", true},
		{0xcccccccc, "0xcccccccc", true},
		{0xabababababababab, "0xabababab", true},
		{0x7f3a12345678, "an address", true},
		{0x55d012345678, "an address", true},
		{0x0100007f901f0002, "127.0.0.1:8080", true},
		{0x0100007f, "127.0.0.1 (little-endian)", false},
		{0xc0a80102, "192.168.1.2 (big-endian)", false},
		{1763700000, "2025-11-21 04:40:00 UTC", false},
		{1763700000123, "2025-11-21 04:40:00 UTC", false},
		{1763700000123456, "2025-11-21 04:40:00 UTC", false},
		{1763700000123456789, "2025-11-21 04:40:00 UTC", false},
		{1 << 20, "2^20", false},
		{1<<20 + 16, "2^20 + 16", false},
		{1<<16 - 8, "2^16 - 8", false},
		{12288, "3 pages", false},
		{0x3ff8000000000000, "1.5", false},
	} {
		got := Explain(c.n)
		if len(got) == 0 || !strings.HasPrefix(got[0].Text, c.want) || got[0].Suspicious != c.suspicious {
			t.Errorf("%#x: %+v, want %s", c.n, got, c.want)
		}
	}
	if got := Explain(42); len(got) != 0 {
		t.Errorf("42 is %+v", got)
	}
	// The date that a number would be is always said.
	for _, m := range Explain(1213486160) {
		if m.Text == "2008-06-14 23:29:20 UTC" {
			return
		}
	}
	t.Error("1213486160 is not said to be a date")
}

// TestEverydaySizesAreNotSuspicious tries what programs ask for: everything up
// to 128 KiB, multiples of pages and powers of two with
// headers, decimal sizes, arrays.
func TestEverydaySizesAreNotSuspicious(t *testing.T) {
	check := func(n uint64) {
		if m, ok := Suspicious(n); ok {
			t.Errorf("%d = %#x: %+v", n, n, m)
		}
	}
	for n := uint64(0); n < 1<<17; n++ {
		check(n)
	}
	for pages := uint64(1); pages < 1<<24; pages = pages*33/32 + 1 {
		for _, header := range []uint64{0, 8, 16, 24, 32, 48, 64, 4080, 4088} {
			check(pages*4096 + header)
		}
	}
	for _, unit := range []uint64{1e5, 1e6, 1e7, 1e8, 1e9, 3 << 20, 5 << 24} {
		for k := uint64(1); k <= 100; k++ {
			for _, header := range []uint64{0, 1, 16, 24} {
				check(unit*k + header)
			}
		}
	}
	for _, n := range []uint64{math.MaxInt32, 1<<32 - 4096, 1<<31 - 4096, 1 << 32, 1<<32 + 16} {
		check(n)
	}
}

func FuzzExplain(f *testing.F) {
	f.Add(uint64(0))
	f.Add(uint64(math.MaxUint64))
	f.Add(uint64(1213486160))
	f.Fuzz(func(t *testing.T, n uint64) {
		for _, m := range Explain(n) {
			if m.Text == "" || m.How == "" {
				t.Errorf("%d: %+v", n, m)
			}
		}
	})
}
