package proc

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mount is what is used of a line of mountinfo, proc_pid_mountinfo(5).
type mount struct {
	root    string   // what of the file system is mounted
	point   string   // where
	kind    string   // "cgroup2"
	options []string // of the file system, where v1 cgroups name their controllers
}

// mounts reads the mounts that stanch itself sees.
func (r Root) mounts() ([]mount, error) {
	b, err := os.ReadFile(string(r) + "/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(b)), nil
}

// mountsInside are those of the control groups that a process has in its own
// mount namespace, at their places for stanch; none where that may not be read.
func (r Root) mountsInside(pid int) []mount {
	b, err := os.ReadFile(r.Path(pid, "mountinfo"))
	if err != nil {
		return nil
	}
	list := slices.DeleteFunc(parseMountinfo(string(b)), func(m mount) bool { return m.kind != "cgroup" && m.kind != "cgroup2" })
	for i := range list {
		list[i].point = filepath.Join(r.Path(pid, "root"), list[i].point)
	}
	return list
}

// parseMountinfo leaves out lines it does not understand.
func parseMountinfo(text string) []mount {
	var list []mount
	for line := range strings.Lines(text) {
		place, system, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		p, s := strings.Fields(place), strings.Fields(system)
		if !ok || len(p) < 6 || len(s) < 2 {
			continue
		}
		m := mount{root: octal(p[3]), point: octal(p[4]), kind: s[0]}
		m.options = strings.Split(s[len(s)-1], ",")
		list = append(list, m)
	}
	return list
}

// octal undoes the \040 by which mountinfo writes blanks and backslashes.
func octal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }
