package sampler

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"stanch/internal/proc"
)

const (
	// longestArgs is how much of a command line is looked at. Of two long ones
	// the end tells which is which: java's class path may come before it.
	longestArgs = 32 << 10
	// keptArgs is how much of it is kept.
	keptArgs = 2 << 10
	// manyCommands is how many services of the same program there may be that
	// differ in their arguments only; what comes after is one service. Else a
	// program that is called with ever new arguments would make series without
	// end.
	manyCommands = 100
	// manyEnded is how many services are remembered that have no process.
	manyEnded = 1000
)

// name finds out what a process is; false when it is gone.
func (h *Host) name(p *process) bool {
	pid := p.ID.PID
	p.Comm = printable(string(commOf(&p.comm)))
	p.Exe, p.Args = "", nil
	if link, err := h.reader.Link(pid, "exe"); err == nil {
		p.Exe = strings.TrimSuffix(string(link), " (deleted)")
	}
	var all []string
	if text, err := h.reader.File(pid, "cmdline"); err == nil {
		all = arguments(text)
		p.Args = beginning(all)
	}
	at, err := h.placeOf(pid)
	if err != nil {
		return false
	}
	if at.service != "" {
		p.Service, p.Kind, p.group = printable(at.service), at.kind, at.group
		return true
	}
	p.Kind, p.group = KindCommand, ""
	what, args := program(p.Exe, p.Comm, all)
	if !title(all) {
		p.Service = h.limited(what, command(what, args))
		return true
	}
	if parent := h.byPID[p.PPID]; parent != nil && h.sameProgram(p, parent) {
		p.Service, p.Kind, p.group = parent.Service, parent.Kind, parent.group
		return true
	}
	p.Service = h.limited(what, command(what, titled(what, all)))
	return true
}

// arguments reads a command line, masked. What of it is cut has no part of a
// secret at its end.
func arguments(text []byte) []string {
	cut := len(text) > longestArgs
	text = bytes.TrimRight(text[:min(len(text), longestArgs)], "\x00 ")
	if len(text) == 0 {
		return nil
	}
	args := strings.Split(string(text), "\x00")
	if cut && len(args) > 1 {
		args = args[:len(args)-1]
	}
	return proc.MaskArgs(args)
}

// beginning copies what is kept of a command line.
func beginning(args []string) (kept []string) {
	left := keptArgs
	for _, arg := range args {
		if left <= 0 {
			break
		}
		kept = append(kept, strings.Clone(arg[:min(len(arg), left)]))
		left -= len(arg) + 1
	}
	return kept
}

// sameProgram names the parent where that was not done yet, and tells whether
// it is of the program that p's title names: of two that run in one interpreter
// the executable is the same.
func (h *Host) sameProgram(p, parent *process) bool {
	if parent.service == nil {
		if parent.naming {
			return false // PIDs that were given anew while they were read make a circle
		}
		p.naming = true
		named := h.name(parent)
		p.naming = false
		if !named {
			return false
		}
	}
	if p.Exe != parent.Exe && p.Exe != "" && parent.Exe != "" {
		return false
	}
	return calls(parent.Args, head(p.Args))
}

// limited replaces the name of a service that would be one too many of its
// program.
func (h *Host) limited(what, name string) string {
	if h.services[name] == nil && h.programs[what] >= manyCommands {
		name = bounded(what + " *")
		h.note("%s runs with more than %d different command lines: those that came later are sampled as one service, %q", bounded(what), manyCommands, name)
	}
	if h.services[name] == nil {
		h.found(&service{name: name, kind: KindCommand, program: what})
	}
	return name
}

// found takes a new service in; nothing runs in it yet.
func (h *Host) found(s *service) {
	s.ended = h.out.At.Boot
	h.services[s.name] = s
	if s.kind == KindCommand {
		h.programs[s.program]++
	}
}

// placeOf reads the control groups of a process. The hierarchies that systemd
// uses come first; container runtimes use all of version 1.
func (h *Host) placeOf(pid int) (place, error) {
	var best, other place
	err := h.reader.CgroupPaths(pid, func(cgroup []byte, named bool) {
		if len(cgroup) <= 1 {
			return // the root says nothing
		}
		at := placeOf(string(cgroup))
		switch {
		case at.service == "":
		case at.kind == KindContainer && best.kind != KindContainer, named && best.service == "":
			best = at
		case other.service == "":
			other = at
		}
	})
	if best.service == "" {
		best = other
	}
	return best, err
}

// serviceOf finds the service of a process, or makes it.
func (h *Host) serviceOf(p *process) *service {
	s := h.services[p.Service]
	if s == nil {
		s = &service{name: p.Service, kind: p.Kind}
		if p.Kind == KindCommand { // it was forgotten since the process was named
			s.program, _ = program(p.Exe, p.Comm, p.Args)
		}
		h.found(s)
	}
	if s.group == nil && p.group != "" {
		if h.mounted != h.sweeps { // an error leaves none
			h.mounted = h.sweeps
			h.mounts, _ = h.root().Hierarchies()
		}
		t := proc.Target{ID: p.ID, Root: h.root()}
		if g, err := t.Group(p.group, h.mounts); err == nil && !g.Empty() {
			s.group = g
			h.grouped = append(h.grouped, s)
		}
	}
	return s
}

// forget drops what is remembered of services that ended long ago, and of
// network namespaces.
func (h *Host) forget() {
	if len(h.services)-len(h.sampled) > manyEnded {
		var ended []*service
		for _, s := range h.services {
			if s.live == 0 {
				ended = append(ended, s)
			}
		}
		slices.SortFunc(ended, func(a, b *service) int { return int(a.ended - b.ended) })
		for _, s := range ended[:max(0, len(ended)-manyEnded/2)] {
			h.drop(s)
		}
		h.grouped = slices.DeleteFunc(h.grouped, func(s *service) bool { return h.services[s.name] != s })
	}
	for id, t := range h.tables {
		if h.out.At.Boot-t.read > max(2*h.slow(), 2*time.Minute, h.worth(t)) {
			delete(h.tables, id)
		}
	}
}

func (h *Host) drop(s *service) {
	delete(h.services, s.name)
	if s.kind != KindCommand {
		return
	}
	if h.programs[s.program]--; h.programs[s.program] <= 0 {
		delete(h.programs, s.program)
	}
}

// commOf cuts a comm at its zero.
func commOf(comm *[16]byte) []byte {
	text, _, _ := bytes.Cut(comm[:], []byte{0})
	return text
}
