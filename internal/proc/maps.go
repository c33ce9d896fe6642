package proc

import (
	"bytes"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// Maps reads /proc/PID/maps, sorted by address. IDs and build-ids are not set.
func (t *Target) Maps() ([]leak.Mapping, error) {
	b, err := os.ReadFile(t.Path("maps"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	if len(b) == 0 {
		// A kernel thread or a zombie: no address space.
		return nil, fmt.Errorf("pid %d has no user memory: %w", t.ID.PID, ErrGone)
	}
	return parseMaps(b)
}

func parseMaps(b []byte) ([]leak.Mapping, error) {
	maps := make([]leak.Mapping, 0, bytes.Count(b, []byte{'\n'}))
	for line := range strings.Lines(string(b)) {
		m, err := parseMap(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		maps = append(maps, m)
	}
	return maps, nil
}

// parseMap parses "start-end perms offset major:minor inode   path".
func parseMap(line string) (leak.Mapping, error) {
	var m leak.Mapping
	bad := func() (leak.Mapping, error) { return m, fmt.Errorf("malformed maps line %q", line) }
	rest := line
	var field [5]string
	for i := range field {
		field[i], rest, _ = strings.Cut(rest, " ")
	}
	lo, hi, ok := strings.Cut(field[0], "-")
	if !ok || len(field[1]) != 4 {
		return bad()
	}
	start, err1 := strconv.ParseUint(lo, 16, 64)
	end, err2 := strconv.ParseUint(hi, 16, 64)
	off, err3 := strconv.ParseUint(field[2], 16, 64)
	major, minor, ok := strings.Cut(field[3], ":")
	maj, err4 := strconv.ParseUint(major, 16, 32)
	mnr, err5 := strconv.ParseUint(minor, 16, 32)
	ino, err6 := strconv.ParseUint(field[4], 10, 64)
	if !ok || err1 != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil || err6 != nil {
		return bad()
	}
	perm := field[1]
	m = leak.Mapping{
		Start: leak.Addr(start), End: leak.Addr(end), Offset: off,
		Read: perm[0] == 'r', Write: perm[1] == 'w', Exec: perm[2] == 'x', Shared: perm[3] == 's',
		Dev: unix.Mkdev(uint32(maj), uint32(mnr)), Inode: ino,
		Path: unescape(strings.TrimLeft(rest, " ")),
	}
	if path, cut := strings.CutSuffix(m.Path, " (deleted)"); cut && ino != 0 {
		m.Path, m.Deleted = path, true
	}
	return m, nil
}

// unescape undoes the kernel's \012 for a newline in a path, the only
// character that /proc/PID/maps escapes.
func unescape(path string) string { return strings.ReplaceAll(path, `\012`, "\n") }

// Find returns the mapping that contains a, nil when none does. maps must be
// sorted by address, as Maps returns them.
func Find(maps []leak.Mapping, a leak.Addr) *leak.Mapping {
	i := sort.Search(len(maps), func(i int) bool { return maps[i].End > a })
	if i < len(maps) && maps[i].Start <= a {
		return &maps[i]
	}
	return nil
}
