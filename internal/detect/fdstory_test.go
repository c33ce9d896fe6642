package detect

import (
	"bytes"
	"fmt"
	"strings"

	"stanch/internal/leak"
)

// fdQuestion is what a story asks of DescriptorsOf.
type fdQuestion struct {
	peer, module string
	all          bool
}

// sayDescriptors writes what DescriptorsOf says.
func sayDescriptors(out *bytes.Buffer, d *leak.ReportDescriptors) {
	if d == nil {
		fmt.Fprintln(out, "descriptors: not listed")
		return
	}
	fmt.Fprintf(out, "descriptors: %d open\n", d.Open)
	for _, g := range d.Groups {
		fmt.Fprintf(out, "  %d %s fds %v", g.Count, g.What, g.Numbers)
		if g.Bytes > 0 {
			fmt.Fprintf(out, ", %d bytes", g.Bytes)
		}
		if g.IdleLowS != nil {
			fmt.Fprintf(out, ", idle %.0f-%.0f s", *g.IdleLowS, *g.IdleHighS)
		}
		if g.CloseOnExec > 0 {
			fmt.Fprintf(out, ", %d close on exec", g.CloseOnExec)
		}
		if g.Module != "" {
			fmt.Fprintf(out, ", module %s", g.Module)
		}
		fmt.Fprintln(out)
		for _, o := range g.Openers {
			fmt.Fprintf(out, "    %d %s by %s: %s\n", o.Count, o.Certainty, o.Call, stackOf(o.Stack, o.Site))
		}
	}
	for _, l := range d.Libraries {
		fmt.Fprintf(out, "  library %s %d\n", l.Module, l.Count)
	}
	for _, x := range d.List {
		fmt.Fprintf(out, "  fd %d %s", x.Num, x.What)
		if x.AgeS != nil {
			fmt.Fprintf(out, ", age %.0f s", *x.AgeS)
		}
		if x.Opener != nil {
			fmt.Fprintf(out, ", %s by %s at %s", x.Opener.Certainty, x.Opener.Call, functionName(&x.Opener.Stack[x.Opener.Site]))
		}
		if x.LastCall != "" {
			fmt.Fprintf(out, ", %s %.0f s ago", x.LastCall, *x.LastCallS)
		}
		fmt.Fprintln(out)
	}
	for _, o := range d.Ownerless {
		fmt.Fprintf(out, "  ownerless %d %s %s\n", o.Count, o.State, o.Local)
	}
	for _, l := range d.Limits {
		fmt.Fprintf(out, "  limit %s", strings.TrimSpace(l.Name+" "+l.Scope))
		fmt.Fprintf(out, ": %d", l.Used)
		if l.Max != nil {
			fmt.Fprintf(out, " of %d", *l.Max)
		}
		if l.RatePerHour != nil {
			fmt.Fprintf(out, ", %+.0f/h", *l.RatePerHour)
		}
		if l.InS != nil {
			fmt.Fprintf(out, ", in %.0f s", *l.InS)
		}
		fmt.Fprintf(out, " (%s)\n", l.Limit)
	}
	for _, f := range d.Failures {
		fmt.Fprintf(out, "  failed %d %s %s: %s\n", f.Count, f.Call, f.Errno, stackOf(f.Stack, f.Site))
	}
}
