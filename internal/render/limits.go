package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
)

// What of the limits the text shows: those that are used so far, and those that
// come so soon. Nobody can tell from a short watch what comes later.
const (
	nearPart  = 0.5
	soon      = 30 * 24 * time.Hour
	soonShort = 24 * time.Hour
)

// limits writes what can run out besides the process's own descriptors.
func limits(b *page, d *leak.ReportDescriptors, short bool) {
	within := soon
	if short {
		within = soonShort
	}
	begun := false
	for i := range d.Limits {
		l := &d.Limits[i]
		if l.Max == nil || ofNumbers(*l) || !near(l, within) {
			continue
		}
		if !begun {
			b.WriteString("limits:\n")
			begun = true
		}
		limit(b, l)
	}
}

func near(l *leak.ReportLimit, within time.Duration) bool {
	return float64(l.Used) >= nearPart*float64(*l.Max) || l.InS != nil && *l.InS <= within.Seconds()
}

// limit writes "98 %  local ports 10.0.0.1 to 10.0.0.5:5432: 27,900 of 28,232
// (net.ipv4.ip_local_port_range); +120/h; limit in 3 h".
func limit(b *page, l *leak.ReportLimit) {
	const all = 100
	part := all
	if l.Used < *l.Max {
		part = int(float64(l.Used) / float64(*l.Max) * all)
	}
	amount := leak.FormatCount(l.Used) + " of " + leak.FormatCount(*l.Max)
	if l.Bytes {
		amount = of(float64(l.Used), float64(*l.Max))
	}
	text := limited(l) + ": " + together(amount)
	if l.Limit != "" {
		text += " " + together("("+Clean(l.Limit)+")")
	}
	wrap(b, fmt.Sprintf(rowLead, fmt.Sprintf("%d %%", part)), strings.Join(append([]string{text}, pace(l)...), "; "))
}

// scopes are the words between what is limited and where.
var scopes = map[string]string{string(leak.UsagePorts): " from ", string(leak.UsageBacklog): " at "}

// limited names a resource, and which one of several it is.
func limited(l *leak.ReportLimit) string {
	if l.Scope == "" {
		return Clean(l.Name)
	}
	word := scopes[l.Name]
	if word == "" {
		word = " "
	}
	return Clean(l.Name) + word + cut(Clean(l.Scope), columns/2)
}

// pace says how fast a limit comes, and when.
func pace(l *leak.ReportLimit) []string {
	var parts []string
	if l.RatePerHour != nil && *l.RatePerHour > 0 {
		rate := perHour(*l.RatePerHour)
		if l.Bytes {
			rate = leak.FormatBytes(*l.RatePerHour)
		}
		parts = append(parts, "+"+together(rate)+"/h")
	}
	switch {
	case l.Max != nil && l.Used >= *l.Max:
		parts = append(parts, together("limit reached"))
	case l.InS != nil:
		parts = append(parts, together("limit in "+seconds(*l.InS)))
	}
	return parts
}

// The most failing places that the text shows.
const maxFailures, maxFailuresShort = 10, 3

// shortages are what the C library says for the errors of a shortage.
var shortages = map[string]string{
	"EMFILE": "too many open files", "ENFILE": "too many open files in system", "ENOBUFS": "no buffer space available",
	"ENOMEM": "cannot allocate memory", "EAGAIN": "resource temporarily unavailable", "EADDRNOTAVAIL": "cannot assign requested address",
}

// failures writes what fails already.
func failures(b *page, d *leak.ReportDescriptors, short bool) {
	most := maxFailures
	if short {
		most = maxFailuresShort
	}
	dropped := drops(d)
	if len(d.Failures)+len(dropped) == 0 {
		return
	}
	b.WriteString("failing:\n")
	for i := range d.Failures[:min(len(d.Failures), most)] {
		f := &d.Failures[i]
		text := Clean(f.Call) + ": " + Clean(f.Errno)
		if e := shortages[f.Errno]; e != "" {
			text += " (" + e + ")"
		}
		if len(f.Stack) > 0 {
			text += ", from " + stackOf(f.Stack, f.Site, maxRelated)
		}
		wrap(b, fmt.Sprintf(rowLead, leak.FormatCount(f.Count)), text)
	}
	if more := d.Failures[min(len(d.Failures), most):]; len(more) > 0 {
		var n uint64
		for i := range more {
			n += more[i].Count
		}
		wrap(b, fmt.Sprintf(rowLead, leak.FormatCount(n)), "calls from "+counted(uint64(len(more)), "other place"))
	}
	for _, l := range dropped {
		what := Clean(l.Name)
		if l.Scope != "" {
			what += " (" + Clean(l.Scope) + ")"
		}
		wrap(b, fmt.Sprintf(rowLead, leak.FormatCount(l.Used)), strings.Join(append([]string{what + " so far, in the whole network namespace"}, pace(l)...), "; "))
	}
}

// drops are the losses among the limits: numbers without a bound that only
// count up. Those that stand still are of the past.
func drops(d *leak.ReportDescriptors) []*leak.ReportLimit {
	var out []*leak.ReportLimit
	for i := range d.Limits {
		l := &d.Limits[i]
		if l.Name == string(leak.UsageListenDropped) && l.Used > 0 && (l.RatePerHour == nil || *l.RatePerHour > 0) {
			out = append(out, l)
		}
	}
	return out
}

// maxOwnerless is how many kinds of ownerless sockets the text shows.
const maxOwnerless = 6

// elsewhere stands for the places that have few.
const elsewhere = "other"

// ownerless writes "sockets of no process: 1,840 TIME_WAIT :8080; 12 LAST_ACK
// to 10.0.0.5:5432".
func ownerless(b *page, d *leak.ReportDescriptors) {
	if len(d.Ownerless) == 0 {
		return
	}
	all := slices.Clone(d.Ownerless)
	slices.SortStableFunc(all, func(a, b leak.ReportOwnerless) int { return cmp.Compare(b.Count, a.Count) })
	var parts []string
	for i := range all[:min(len(all), maxOwnerless)] {
		o := &all[i]
		where := Clean(o.State) + " " + cut(Clean(o.Local), columns/2)
		if o.Local == elsewhere {
			where = elsewhere + " " + Clean(o.State)
		}
		parts = append(parts, together(leak.FormatCount(o.Count)+" "+where))
	}
	if rest := all[len(parts):]; len(rest) > 0 {
		var n uint64
		for i := range rest {
			n += rest[i].Count
		}
		parts = append(parts, together(leak.FormatCount(n)+" more"))
	}
	wrap(b, "sockets of no process: ", strings.Join(parts, "; "))
}
