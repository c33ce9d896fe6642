package heap

import (
	"fmt"
	"os"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Bits of a /proc/PID/pagemap entry, from Documentation/admin-guide/mm/pagemap.rst.
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
)

// pagesOf lists the parts of r of which the process has pages.
func pagesOf(t *proc.Target, r leak.Range) ([]leak.Range, error) {
	f, err := os.Open(t.Path("pagemap"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []leak.Range
	buf := make([]byte, 8*min(1<<15, uint64(r.End-r.Start)/pageSize+1))
	for at := r.Start; at < r.End; {
		n, err := f.ReadAt(buf[:min(uint64(len(buf)), 8*(uint64(r.End-at)/pageSize))], int64(at/pageSize*8))
		if n < 8 {
			return nil, fmt.Errorf("pages at %v: %w", at, short(uint64(at), n, err))
		}
		for b := buf[:n&^7]; len(b) > 0; b = b[8:] {
			if load(b)&(pagePresent|pageSwapped) != 0 {
				if k := len(out) - 1; k >= 0 && out[k].End == at {
					out[k].End += pageSize
				} else {
					out = append(out, leak.Range{Start: at, End: at + pageSize})
				}
			}
			at += pageSize
		}
	}
	return out, nil
}
