package detect

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"stanch/internal/leak"
)

// Descriptors reports descriptors that grow or come near their limit.
var Descriptors = &Detector{
	Name: "fd.growth",
	Doc:  "descriptors that grew over the whole watch, by class, or are near their limit",
	Run:  descriptors,
}

// classes are the gauges of the classes of descriptors, and their words.
var classes = []struct {
	name leak.GaugeName
	word string
}{
	{leak.GaugeFDSockets, "sockets"}, {leak.GaugeFDFiles, "files"}, {leak.GaugeFDPipes, "pipes"},
	{leak.GaugeFDAnon, "event descriptors (epoll, timer, signal)"}, {leak.GaugeFDOther, "others"},
}

// The least growth of descriptors that is reported, and the part of the limit
// from which on it is near.
const (
	leastDescriptors = 3
	nearLimit        = 0.8
)

func descriptors(p *Pass) {
	series := p.Proc.Gauges[leak.GaugeFDs]
	limit, limited := latest(p.Proc, leak.GaugeFDLimit)
	usage, used := fdLimit(p.Proc)
	if used {
		limit, limited = float64(usage.Max), usage.Max > 0
	}
	if used && len(series) == 0 {
		series = usage.Points
	}
	if len(series) == 0 || p.Proc.Ended() && p.Proc.TracedAt >= 0 {
		return // fd.unclosed lists what is left at the exit
	}
	now := series[len(series)-1].Value
	t, grows := rising(series)
	if grows && t.grown >= leastDescriptors {
		// What others name by its line is not said again.
		if !p.fds().explain(t) {
			p.Report(descriptorGrowth(p, t, now, limit, limited))
		}
		return
	}
	if !limited || now < nearLimit*limit || p.Proc.Ended() || slices.ContainsFunc(p.Proc.Usages, isDescriptors) {
		return // what there is a Usage of fd.limit says
	}
	p.Report(leak.Finding{
		Key: "limit", NameKey: "limit", Severity: leak.SeverityRisk, Kind: leak.KindDescriptor.String(), SiteCertainty: leak.CertaintyNone,
		What: "descriptors", Title: fmt.Sprintf("%s of %s descriptors are in use", number(now), number(limit)), Count: uint64(now),
		Evidence: append([]string{"seen: they did not grow while it was watched"}, classCounts(p)...),
		Advice:   []string{"raise LimitNOFILE= (or ulimit -n) before it fails with EMFILE, and find out whether so many are needed"},
	})
}

func descriptorGrowth(p *Pass, t trend, now, limit float64, limited bool) leak.Finding {
	f := leak.Finding{
		Key: "all", NameKey: "all", Severity: leak.SeverityGrowth, Kind: leak.KindDescriptor.String(), SiteCertainty: leak.CertaintyNone,
		What: "descriptors", Count: uint64(t.grown),
		Rate:   &leak.Rate{CountPerHour: t.perHour},
		Title:  fmt.Sprintf("at least %s more descriptors in %s", number(t.grown), leak.FormatDuration(t.watch)),
		Advice: []string{"find the path that opens without closing: ls -l /proc/" + fmt.Sprint(p.Proc.ID.PID) + "/fd shows what the newest ones are"},
	}
	if p.Proc.ListedAt >= 0 {
		f.Advice = []string{"find the path that opens without closing: the groups of descriptors show what they are"}
	}
	if p.Proc.Ended() {
		f.Advice = []string{"find the path that opens without closing"}
	}
	// The class that grew most makes the key.
	var most float64
	var grown []string
	for _, c := range classes {
		if ct, ok := rising(p.Proc.Gauges[c.name]); ok {
			grown = append(grown, fmt.Sprintf("+%s %s", number(ct.grown), c.word))
			if ct.grown > most {
				most = ct.grown
				word, _, _ := strings.Cut(c.word, " ")
				f.Key, f.NameKey = word, word
			}
		}
	}
	f.Evidence = append(f.Evidence, fmt.Sprintf("seen: at the lowest %s, %s and %s in the three thirds of the watch", number(t.lows[0]), number(t.lows[1]), number(t.lows[2])))
	if len(grown) > 0 {
		f.Evidence = append(f.Evidence, "kinds: "+strings.Join(grown, ", "))
	}
	if limited && t.perHour > 0 {
		left := math.Max(limit-now, 0)
		if in := left / t.perHour * 3600; in <= farthest.Seconds() {
			f.Exhaustion = &leak.Exhaustion{Limit: "RLIMIT_NOFILE", InS: in, LowS: ptr(left / t.high * 3600), HighS: ptr(left / t.low * 3600)}
		}
		f.Evidence = append(f.Evidence, limitEvidence(p)...)
	}
	return f
}

// classCounts says how many there are of each class.
func classCounts(p *Pass) []string {
	var parts []string
	for _, c := range classes {
		if n, ok := latest(p.Proc, c.name); ok && n > 0 {
			parts = append(parts, number(n)+" "+c.word)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return []string{"kinds: " + strings.Join(parts, ", ")}
}
