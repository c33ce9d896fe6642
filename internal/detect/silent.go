package detect

import (
	"fmt"
	"time"

	"stanch/internal/leak"
)

// Silent reports connections on which nothing has come or gone for long.
var Silent = &Detector{
	Name: "fd.silent",
	Doc:  "many connections to one peer, or to one port, on which no data has come or gone for long",
	Run:  silent,
}

// For how long a connection must be silent both ways, how many of a group must
// be, and which part of the limit makes it a risk.
const (
	silentTime  = time.Hour
	leastSilent = 10
	silentPart  = 4 // one in so many
)

func silent(p *Pass) {
	if p.over() || p.Proc.ListedAt < 0 {
		return
	}
	for _, g := range p.fds().groups {
		if g.state != "ESTABLISHED" {
			continue
		}
		var quiet []*fdEntry
		for _, e := range g.entries {
			if s := e.Socket; s.LastReceived >= silentTime && s.LastSent >= silentTime {
				quiet = append(quiet, e)
			}
		}
		if len(quiet) < leastSilent {
			continue
		}
		n := uint64(len(quiet))
		of := *g
		of.entries, of.from = quiet, nil
		f := leak.Finding{
			Severity: leak.SeverityNote, Kind: leak.KindDescriptor.String(), What: "connections", Count: n, SiteCertainty: leak.CertaintyNone,
			Key: g.key(), NameKey: g.key(),
			Title: fmt.Sprintf("%s connections are silent: %s", leak.FormatCount(n), of.what()),
			Advice: []string{
				"a peer that went away without a word looks like this: turn on SO_KEEPALIVE with a TCP_KEEPIDLE of minutes (the default is 2 h), and give reads a timeout",
				"if it is a pool, bound how many it keeps idle and for how long",
			},
		}
		if u, ok := fdLimit(p.Proc); ok && u.Max > 0 && n*silentPart >= u.Max {
			f.Severity = leak.SeverityRisk
			f.Evidence = append(f.Evidence, fmt.Sprintf("limit: they are %s of at most %s descriptors", leak.FormatCount(n), leak.FormatCount(u.Max)))
		}
		low, high, _ := idleOf(quiet)
		f.Evidence = append(f.Evidence, fmt.Sprintf("idle: no data either way for %s; %s of the group are not", leak.FormatDurations(low, high), leak.FormatCount(uint64(len(g.entries))-n)))
		if s, _ := of.opener(); s != nil {
			f.Stack, f.Site, f.SiteCertainty = s.stack, s.line, leak.CertaintyLikely
			if only := onlySite(quiet); only != nil && only.lines == s.lines {
				f.SiteCertainty = certaintyOf(quiet)
			}
		}
		p.Report(f)
	}
}

// key names a group of sockets in a way that stays the same over time.
func (g *fdGroup) key() string {
	if g.server {
		return g.protocol + ":" + g.state + ":to" + g.local
	}
	return g.protocol + ":" + g.state + ":" + g.peer
}
