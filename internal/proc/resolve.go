package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Match is one of several processes that a word could mean.
type Match struct {
	Target      *Target
	PID, PPID   int
	Comm        string
	Parent      string // comm of the parent, "" when it has none
	Args        string // the command line, secrets masked; "" when it cannot be read
	RSS         uint64 // bytes
	Descriptors int    // -1 when they may not be counted
}

// AmbiguousError says that a word names several processes.
type AmbiguousError struct {
	Word    string
	Matches []Match // by PID
}

// Error is one line with the first few matches.
func (e *AmbiguousError) Error() string {
	const shown = 6
	var b strings.Builder
	fmt.Fprintf(&b, "%d processes are meant by %q: ", len(e.Matches), e.Word)
	for i, m := range e.Matches {
		if i == shown {
			fmt.Fprintf(&b, ", and %d more", len(e.Matches)-shown)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d (%s)", m.PID, m.facts())
	}
	b.WriteString("; give the PID of one, or --all")
	return b.String()
}

func (m *Match) facts() string {
	facts := []string{fmt.Sprintf("parent %d", m.PPID), fmt.Sprintf("%.1f MB", float64(m.RSS)/1e6)}
	if m.Parent != "" {
		facts[0] += " " + m.Parent
	}
	if m.Descriptors >= 0 {
		facts = append(facts, fmt.Sprintf("%d descriptors", m.Descriptors))
	}
	return strings.Join(facts, ", ")
}

// Resolve finds what a user means by a word: a PID, a process name (comm or the
// base name of the executable, both exact), a systemd unit (its main process)
// or a container id of at least 12 hex digits (its first process). One match is
// checked with Usable. Several give an *AmbiguousError and all the targets;
// stanch itself and its ancestors are never meant by a name. No match is
// ErrGone.
func (r Root) Resolve(word string) ([]*Target, error) {
	pids, err := r.find(word)
	if err != nil {
		return nil, err
	}
	var targets []*Target
	for _, pid := range pids {
		if t, err := r.Open(pid); err == nil {
			targets = append(targets, t)
		}
	}
	switch len(targets) {
	case 0:
		return nil, refuse(ErrGone, "no process, systemd unit or container is called %q (names are compared exactly; ps -e lists them)", word)
	case 1:
		if err := targets[0].Usable(); err != nil {
			return nil, err
		}
		return targets, nil
	}
	amb := &AmbiguousError{Word: word}
	for _, t := range targets {
		amb.Matches = append(amb.Matches, t.match())
	}
	return targets, amb
}

// match gathers what tells one process from another. What cannot be read stays
// zero: the process may be another user's or ending.
func (t *Target) match() Match {
	m := Match{Target: t, PID: t.ID.PID, Descriptors: -1}
	if st, err := t.Stat(); err == nil {
		m.Comm, m.PPID = st.Comm, st.PPID
		if parent, err := t.Root.stat(st.PPID); err == nil {
			m.Parent = parent.Comm
		}
	}
	if s, err := t.Status(); err == nil {
		m.RSS = s.VMRSS
	}
	if n, err := t.DescriptorCount(); err == nil {
		m.Descriptors = n
	}
	if args, err := t.Args(); err == nil {
		m.Args = strings.Join(MaskArgs(args), " ")
	}
	return m
}

var (
	digits      = regexp.MustCompile(`^[0-9]+$`)
	containerID = regexp.MustCompile(`^[0-9a-f]{12,64}$`)
	hexRun      = regexp.MustCompile(`[0-9a-f]{12,}`)
)

// find gives the PIDs a word means, sorted.
func (r Root) find(word string) ([]int, error) {
	switch {
	case word == "":
		return nil, refuse(ErrGone, "the empty word names no process")
	case digits.MatchString(word) && len(word) < 10:
		pid, _ := strconv.Atoi(word)
		if _, err := r.stat(pid); err == nil && pid > 0 {
			return []int{pid}, nil
		}
		if pids, err := r.named(word); err != nil || len(pids) > 0 {
			return pids, err
		}
		return nil, refuse(ErrGone, "no process has the PID %s", word)
	}
	unit, isUnit := unitName(word)
	if !isUnit {
		if pids, err := r.named(word); err != nil || len(pids) > 0 {
			return pids, err
		}
	}
	groups, err := r.groups()
	if err != nil {
		return nil, err
	}
	if pids := r.leaders(groups, func(path string) bool { return inUnit(path, unit) }); len(pids) > 0 {
		return pids, nil
	}
	if containerID.MatchString(word) {
		return r.leaders(groups, func(path string) bool { return inContainer(path, word) }), nil
	}
	return nil, nil
}

// named finds processes by comm or executable. Kernel threads and zombies count
// only when nothing else has the name.
func (r Root) named(word string) ([]int, error) {
	pids, err := r.PIDs()
	if err != nil {
		return nil, err
	}
	own := r.ancestors()
	var live, dead []int
	for _, pid := range pids {
		if slices.Contains(own, pid) {
			continue
		}
		st, err := r.stat(pid)
		if err != nil {
			continue
		}
		if st.Comm != word {
			exe, err := os.Readlink(r.Path(pid, "exe"))
			if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != word {
				continue
			}
		}
		if st.Kernel() || st.State == 'Z' {
			dead = append(dead, pid)
		} else {
			live = append(live, pid)
		}
	}
	if len(live) == 0 {
		live = dead
	}
	slices.Sort(live)
	return live, nil
}

// ancestors lists stanch itself and its parents.
func (r Root) ancestors() []int {
	var list []int
	for pid := os.Getpid(); pid > 0 && !slices.Contains(list, pid); {
		list = append(list, pid)
		st, err := r.stat(pid)
		if err != nil {
			break
		}
		pid = st.PPID
	}
	return list
}

// unitName completes a word to a unit that has processes: a service, or a scope
// when the word says so.
func unitName(word string) (unit string, explicit bool) {
	if strings.HasSuffix(word, ".service") || strings.HasSuffix(word, ".scope") {
		return word, true
	}
	return word + ".service", false
}

// inUnit reports whether a cgroup path leads through a unit.
func inUnit(path, unit string) bool {
	return strings.HasSuffix(path, "/"+unit) || strings.Contains(path, "/"+unit+"/")
}

// inContainer reports whether a cgroup path leads through a container with this
// id or its beginning: /docker/ID, docker-ID.scope, cri-containerd-ID.scope,
// libpod-ID.scope, /kubepods/pod.../ID. conmon is podman's watcher outside.
func inContainer(path, id string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if strings.Contains(part, "conmon") {
			continue
		}
		for _, run := range hexRun.FindAllString(part, -1) {
			if strings.HasPrefix(run, id) {
				return true
			}
		}
	}
	return false
}

// group is a process with its place in the cgroup trees.
type group struct {
	pid   int
	paths []string
}

// groups reads the cgroup paths of every process: all hierarchies, since v1
// container runtimes use them all and systemd its own.
func (r Root) groups() ([]group, error) {
	pids, err := r.PIDs()
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	var list []group
	for _, pid := range pids {
		lines, err := r.cgroupPaths(pid)
		if err != nil {
			continue // ended meanwhile
		}
		g := group{pid: pid}
		for _, l := range lines {
			g.paths = append(g.paths, l.path)
		}
		list = append(list, g)
	}
	return list, nil
}

// leaders gives the processes of a unit or container that were there first:
// PID 1 of their own namespace when there is one, else those whose parent is
// not in it. This is what systemd calls the main process.
func (r Root) leaders(groups []group, in func(path string) bool) []int {
	member := map[int]bool{}
	for _, g := range groups {
		if slices.ContainsFunc(g.paths, in) {
			member[g.pid] = true
		}
	}
	var inits, leaders []int
	for _, g := range groups {
		if !member[g.pid] {
			continue
		}
		b, err := os.ReadFile(r.Path(g.pid, "status"))
		if err != nil {
			continue
		}
		s := parseStatus(string(b))
		if len(s.NSPid) > 1 && s.NSPid[len(s.NSPid)-1] == 1 && !member[s.PPID] {
			inits = append(inits, g.pid)
		}
		if s.State != 'Z' && !member[s.PPID] {
			leaders = append(leaders, g.pid)
		}
	}
	if len(inits) > 0 {
		return inits
	}
	return leaders
}
