package heap

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/fixture"
)

// BenchmarkManyBlocks looks at 10 million blocks of 100 bytes (1.1 GB) with
// pointers between them: each in a table, in lists in the order of their
// addresses, and in lists in random order, the worst case. STANCH_BLOCKS
// changes their number.
func BenchmarkManyBlocks(b *testing.B) {
	blocks := "10000000"
	if n := os.Getenv("STANCH_BLOCKS"); n != "" {
		blocks = n
	}
	exe := compile(b, "many.c")
	for _, mode := range []string{"table", "list", "shuffled"} {
		b.Run(mode, func(b *testing.B) {
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(250 << 20))
			p := fixture.Start(b, exe, blocks, "4", mode)
			before := peak(b)
			for b.Loop() {
				began, used := time.Now(), cpu(b)
				book := scanned(b, p.PID(), Options{})
				look := book.looks[0]
				b.ReportMetric(time.Since(began).Seconds(), "s/look")
				b.ReportMetric((cpu(b) - used).Seconds(), "cpu-s/look")
				b.ReportMetric(float64(look.Pause.Microseconds())/1000, "ms-pause")
				if !look.Walked || len(look.Uncertainty) > 0 || look.LostBlocks == 0 || len(book.verdicts) != int(look.LostBlocks) {
					b.Fatalf("%+v", look)
				}
			}
			b.ReportMetric(float64(peak(b))/1e6, "MB-peak")
			b.ReportMetric(float64(before)/1e6, "MB-before")
			p.Kill()
		})
	}
}

// cpu is the processor time of this process so far.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// peak is the largest resident size of this process so far, bytes.
func peak(tb testing.TB) uint64 {
	tb.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n << 10
}
