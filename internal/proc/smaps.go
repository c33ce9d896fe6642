package proc

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"stanch/internal/leak"
)

// Usage is what a mapping, or all of them, occupies; bytes. Fields an older
// kernel does not print are zero.
type Usage struct {
	RSS            uint64
	PSS            uint64
	SharedClean    uint64
	SharedDirty    uint64
	PrivateClean   uint64
	PrivateDirty   uint64
	Anonymous      uint64 // of RSS; what a fork has to copy page tables for
	AnonHugePages  uint64 // of Anonymous, in transparent huge pages: one entry each 2 MiB
	PrivateHugetlb uint64 // not in RSS
	Swap           uint64
	Locked         uint64
}

// MapUsage is what one mapping occupies, and the kernel's flags of it.
type MapUsage struct {
	leak.Mapping
	Usage
	Flags string // VmFlags, two letters each, with a space between: "rd wr mr mw me ac"
}

// DontFork reports whether a fork leaves the mapping out (MADV_DONTFORK), so
// that a snapshot lacks it.
func (m *MapUsage) DontFork() bool { return m.flag("dc") }

// WipeOnFork reports whether a fork empties it (MADV_WIPEONFORK, Linux 4.14).
func (m *MapUsage) WipeOnFork() bool { return m.flag("wf") }

// Device reports memory of a device or an otherwise odd mapping, whose reading
// may have effects: VM_IO or VM_PFNMAP.
func (m *MapUsage) Device() bool { return m.flag("io") || m.flag("pf") }

func (m *MapUsage) flag(two string) bool { return slices.Contains(strings.Fields(m.Flags), two) }

// Rollup sums over all mappings, from /proc/PID/smaps_rollup (Linux 4.14). It
// walks the page tables, some 15 ms for a GiB of 4 KiB pages, and the target's
// mmap, munmap and brk may wait that long. It needs the rights of ptrace attach.
func (t *Target) Rollup() (Usage, error) {
	var u Usage
	b, err := os.ReadFile(t.Path("smaps_rollup"))
	if err != nil {
		return u, gone(t.ID.PID, err)
	}
	fields(string(b), u.set)
	return u, nil
}

// Smaps reads /proc/PID/smaps: Maps with the usage of each. It costs as much
// as Rollup, but the target waits for one mapping at a time.
func (t *Target) Smaps() ([]MapUsage, error) {
	b, err := os.ReadFile(t.Path("smaps"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("pid %d has no user memory: %w", t.ID.PID, ErrGone)
	}
	return parseSmaps(string(b))
}

func parseSmaps(text string) ([]MapUsage, error) {
	var list []MapUsage
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.ContainsAny(key, " -") {
			m, err := parseMap(strings.TrimSuffix(line, "\n"))
			if err != nil {
				return nil, err
			}
			list = append(list, MapUsage{Mapping: m})
			continue
		}
		if len(list) == 0 {
			continue
		}
		last := &list[len(list)-1]
		if key == "VmFlags" {
			last.Flags = strings.TrimSpace(value)
		} else {
			last.set(key, value)
		}
	}
	return list, nil
}

// set takes one "Rss:   123 kB" line in.
func (u *Usage) set(key, value string) {
	var to *uint64
	switch key {
	case "Rss":
		to = &u.RSS
	case "Pss":
		to = &u.PSS
	case "Shared_Clean":
		to = &u.SharedClean
	case "Shared_Dirty":
		to = &u.SharedDirty
	case "Private_Clean":
		to = &u.PrivateClean
	case "Private_Dirty":
		to = &u.PrivateDirty
	case "Anonymous":
		to = &u.Anonymous
	case "AnonHugePages":
		to = &u.AnonHugePages
	case "Private_Hugetlb":
		to = &u.PrivateHugetlb
	case "Swap":
		to = &u.Swap
	case "Locked":
		to = &u.Locked
	default:
		return
	}
	*to = kib(strings.TrimSpace(value))
}
