package leak

import (
	"strings"
	"testing"
	"time"
)

func TestFormatBytes(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 bytes", 1: "1 byte", 400: "400 bytes", 999.4: "999 bytes", 999.6: "1 KB", 1000: "1 KB", 1500: "1.5 KB",
		99_949: "99.9 KB", 99_960: "100 KB", 999_600: "1 MB", 85_840_000: "85.8 MB", 310e6: "310 MB", 7.2e9: "7.2 GB", 8e9: "8 GB", 1e15: "1 PB",
		-2500: "-2.5 KB", 2e21: "2000 EB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 15 * time.Microsecond: "15 us", 12 * time.Millisecond: "12 ms", 1500 * time.Millisecond: "1.5 s", 30 * time.Second: "30 s",
		119 * time.Second: "119 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min", 2*time.Hour - time.Second: "2 h", 2 * time.Hour: "2 h", 14 * time.Hour: "14 h",
		71 * time.Hour: "71 h", 72 * time.Hour: "3 d", 6 * 24 * time.Hour: "6 d",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestFormatDurations(t *testing.T) {
	for _, c := range []struct {
		low, high time.Duration
		want      string
	}{
		{11 * time.Hour, 17 * time.Hour, "11-17 h"},
		{100 * time.Minute, 2 * time.Hour, "1.7-2 h"},
		{117 * time.Minute, 2 * time.Hour, "2 h"},
		{54 * time.Second, 6 * time.Hour, "0-6 h"},
		{70 * time.Hour, 240 * time.Hour, "2.9-10 d"},
		{14 * time.Hour, 14*time.Hour + time.Minute, "14 h"},
		{time.Microsecond, 2 * time.Microsecond, "2 us"},
	} {
		if got := FormatDurations(c.low, c.high); got != c.want {
			t.Errorf("%v to %v: %q, want %q", c.low, c.high, got, c.want)
		}
	}
}

func TestFormatCount(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 214600: "214,600", 1234567: "1,234,567"} {
		if got := FormatCount(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// TestMagics holds what a Verdict's one byte can point to, and that no pattern
// is a small number or hides a longer one behind it.
func TestMagics(t *testing.T) {
	if len(Magics) > 256 || Magics[0] != (Magic{}) {
		t.Fatalf("%d entries, the first %+v", len(Magics), Magics[0])
	}
	seen := map[string]int{}
	for i, m := range Magics[1:] {
		if len(m.Bytes) < 3 || m.Name == "" || strings.Trim(m.Bytes[1:], "\x00") == "" {
			t.Errorf("%d: %q is too weak", i+1, m.Bytes)
		}
		for j := range m.Bytes {
			if k, ok := seen[m.Bytes[:j+1]]; ok {
				t.Errorf("%d: %q never matches after entry %d", i+1, m.Bytes, k)
			}
		}
		seen[m.Bytes] = i + 1
	}
}
