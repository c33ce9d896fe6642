package symbol

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"stanch/internal/proc"
)

const (
	maxPerfMap   = 64 << 20
	maxPerfNames = 1 << 20
)

// jitTable is what a just-in-time compiler wrote to /tmp/perf-PID.map: one line
// "start size name" per function, numbers in hexadecimal. The format is the
// one of Linux' tools/perf/Documentation/jit-interface.txt.
type jitTable struct {
	size  int64 // of the file when it was read
	mtime time.Time
	list  []jitFunc
}

type jitFunc struct {
	start, size uint64
	name        string
}

// perfMap opens the target's map, when it belongs to the target's user: names
// in it go into reports, and /tmp is open to all.
func perfMap(t *proc.Target) (*os.File, error) {
	uid, inner, err := idents(t)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.Path("root"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	p := fmt.Sprintf("tmp/perf-%d.map", inner)
	named, err := root.Lstat(p)
	if err != nil {
		return nil, err
	}
	f, err := rootTree{root}.open(p)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !os.SameFile(st, named) {
		err = fmt.Errorf("%s is a link", p)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); err == nil && (!ok || sys.Uid != uid) {
		err = fmt.Errorf("%s does not belong to the user of the process", p)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// idents reads the effective uid of the target, and its pid in its own
// namespace (NSpid, since Linux 4.1).
func idents(t *proc.Target) (uid uint32, pid int, err error) {
	b, err := os.ReadFile(t.Path("status"))
	if err != nil {
		return 0, 0, err
	}
	pid = t.ID.PID
	for line := range strings.Lines(string(b)) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		switch {
		case key == "Uid" && len(fields) == 4:
			n, err := strconv.ParseUint(fields[1], 10, 32)
			if err != nil {
				return 0, 0, err
			}
			uid = uint32(n)
		case key == "NSpid" && len(fields) > 0:
			if pid, err = strconv.Atoi(fields[len(fields)-1]); err != nil {
				return 0, 0, err
			}
		}
	}
	return uid, pid, nil
}

// refresh reads the file again when it has changed, since compilers append to
// it as they work.
func (j *jitTable) refresh(f *os.File) error {
	st, err := f.Stat()
	if err != nil || st.Size() == j.size && st.ModTime().Equal(j.mtime) {
		return err
	}
	j.size, j.mtime = st.Size(), st.ModTime()
	j.list, err = parsePerfMap(io.NewSectionReader(f, 0, maxPerfMap))
	return err
}

// parsePerfMap reads the lines of a perf map; lines of another form are passed
// over. Of functions at one address the last line counts.
func parsePerfMap(r io.Reader) ([]jitFunc, error) {
	var list []jitFunc
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxString)
	for sc.Scan() && len(list) < maxPerfNames {
		first, rest, _ := strings.Cut(sc.Text(), " ")
		second, name, ok := strings.Cut(rest, " ")
		start, err1 := strconv.ParseUint(strings.TrimPrefix(first, "0x"), 16, 64)
		size, err2 := strconv.ParseUint(strings.TrimPrefix(second, "0x"), 16, 64)
		if ok && err1 == nil && err2 == nil && size > 0 && name != "" {
			list = append(list, jitFunc{start, size, name})
		}
	}
	slices.SortStableFunc(list, func(a, b jitFunc) int { return cmpUint(a.start, b.start) })
	return list, sc.Err()
}

// find gives the function at addr, "" when none is.
func (j *jitTable) find(addr uint64) string {
	i := sort.Search(len(j.list), func(i int) bool { return j.list[i].start > addr })
	if i == 0 || addr-j.list[i-1].start >= j.list[i-1].size {
		return ""
	}
	return j.list[i-1].name
}
