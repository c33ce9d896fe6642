package detect

import (
	"fmt"
	"slices"
	"time"

	"stanch/internal/leak"
)

// Inherited reports descriptors that a process got from its parent, or from
// the program before it, and does nothing with.
var Inherited = &Detector{
	Name: "fd.inherited",
	Doc:  "descriptors that were inherited without close-on-exec and are not used",
	Run:  inherited,
}

// How many unused ones are worth saying, if none listens, and how long a
// process must have had time to use them.
const (
	leastInherited = 3
	timeToUse      = 10 * time.Second
)

func inherited(p *Pass) {
	// Where no call on any descriptor was seen, none was looked for.
	used := func(e *fdEntry) bool { return e.Use != nil }
	if p.Proc.TracedAt < 0 || p.Proc.Exited && !p.Proc.Ended() || !slices.ContainsFunc(p.fds().entries, used) || missedCalls(p) > 0 {
		return
	}
	var idle []*fdEntry
	listens := false
	for _, e := range p.fds().entries {
		if !inheritedCall(e.Call) || e.Kind == "" || e.Num <= 2 || e.CloseOnExec || used(e) || p.View.End-e.OpenedAt < timeToUse {
			continue
		}
		idle = append(idle, e)
		listens = listens || e.Socket != nil && e.Socket.State == "LISTEN"
	}
	if len(idle) < leastInherited && !listens {
		return
	}
	f := leak.Finding{
		Severity: leak.SeverityNote, Kind: leak.KindDescriptor.String(), What: "inherited descriptors", Count: uint64(len(idle)), SiteCertainty: leak.CertaintyNone,
		Key: "all", NameKey: "all",
		Title:    fmt.Sprintf("%s inherited and not used", plural(uint64(len(idle)), "descriptor")),
		Evidence: []string{"kinds: " + kindsOf(idle), "seen: no call on them since, and they are not set to close on exec"},
		Advice:   []string{"open them with O_CLOEXEC, SOCK_CLOEXEC or accept4 in the parent, or let what starts children close all others (close_range, close_fds); as long as a child holds them, files stay on disk, ports stay taken and peers see no end"},
	}
	if listens {
		f.Evidence = append(f.Evidence, "ports: listening sockets are among them: their ports stay taken when the parent restarts")
	}
	if s := onlySite(idle); s != nil {
		f.Stack, f.Site, f.SiteCertainty = s.stack, s.line, leak.CertaintyProved
	}
	p.Report(f)
}

// onlySite is the place where all of them were opened, nil when there are
// several or none is known.
func onlySite(entries []*fdEntry) *site {
	var only *site
	for _, e := range entries {
		if e.site == nil || only != nil && only.lines != e.site.lines {
			return nil
		}
		only = e.site
	}
	return only
}
