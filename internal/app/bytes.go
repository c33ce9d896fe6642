package app

import (
	"fmt"
	"strconv"
	"strings"
)

// bytesFlag is a size on the command line: 400, 64K, 1.5M, 2GiB.
type bytesFlag uint64

func (b *bytesFlag) String() string { return strconv.FormatUint(uint64(*b), 10) }

// Type is what --help shows.
func (b *bytesFlag) Type() string { return "bytes" }

// Set parses the flag.
func (b *bytesFlag) Set(s string) error {
	n, err := parseBytes(s)
	if err != nil {
		return err
	}
	*b = bytesFlag(n)
	return nil
}

// parseBytes reads a number with an optional K, M or G (powers of 1024), and
// an optional B or iB behind it.
func parseBytes(s string) (uint64, error) {
	num := strings.ToUpper(s)
	num = strings.TrimSuffix(strings.TrimSuffix(num, "B"), "I")
	shift := 0
	for i, unit := range []string{"K", "M", "G"} {
		if cut, ok := strings.CutSuffix(num, unit); ok {
			num, shift = cut, 10*(i+1)
			break
		}
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || !(f >= 0) || f*float64(uint64(1)<<shift) >= 1<<63 {
		return 0, fmt.Errorf("%q is not a size such as 400, 64K or 1.5M", s)
	}
	return uint64(f * float64(uint64(1)<<shift)), nil
}
