package symbol

import (
	"fmt"
	"os"
	"testing"
	"unsafe"

	"stanch/internal/leak"
)

// TestMain fails when a test leaves a file open.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if after := descriptors(); code == 0 && after > before {
		fmt.Printf("%d descriptors at the start, %d at the end\n", before, after)
		code = 1
	}
	os.Exit(code)
}

func descriptors() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range d {
		// What the runtime and the test framework open stays open.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to[0] == '/' && to != "/dev/null" {
			n++
		}
	}
	return n
}

func addressOf(b []byte) leak.Addr { return leak.Addr(uintptr(unsafe.Pointer(&b[0]))) }
