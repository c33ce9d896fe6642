package app

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// resolve finds the one process that the word means.
func (a *app) resolve(word string) (*proc.Target, error) {
	targets, err := a.resolveAll(word, false)
	if err != nil {
		return nil, err
	}
	return targets[0], nil
}

// resolveAll finds the processes that the word means; several only when asked
// for, else the list of them is the error.
func (a *app) resolveAll(word string, all bool) ([]*proc.Target, error) {
	targets, err := proc.Default.Resolve(word)
	var ambiguous *proc.AmbiguousError
	switch {
	case errors.As(err, &ambiguous) && all:
		return targets, nil
	case errors.As(err, &ambiguous):
		a.list(ambiguous)
		return nil, codeError{ExitUsage, nil}
	case err != nil:
		return nil, codeError{ExitFault, err}
	}
	if targets[0].ID.PID == os.Getpid() {
		return nil, usagef("that is stanch itself")
	}
	return targets, nil
}

// list prints what a word could mean, one process a line.
func (a *app) list(e *proc.AmbiguousError) {
	fmt.Fprintf(a.std.Err, "stanch: %q means %d processes; give the PID of one, or --all:\n", e.Word, len(e.Matches))
	w := tabwriter.NewWriter(a.std.Err, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "PID\tPARENT\tMEMORY\tDESCRIPTORS\t COMMAND")
	for _, m := range e.Matches {
		fds := "?"
		if m.Descriptors >= 0 {
			fds = fmt.Sprint(m.Descriptors)
		}
		fmt.Fprintf(w, "%d\t%d %s\t%.1f MB\t%s\t %s\n", m.PID, m.PPID, m.Parent, float64(m.RSS)/1e6, fds, clip(m.Args, 60))
	}
	_ = w.Flush() // as the lines before it, which standard error takes or not
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n-3] + "..."
}

// onTarget runs a look at each process the word means, one after the other,
// and finishes with one report.
func (a *app) onTarget(word string, f *lookFlags, look func(*proc.Target) (*leak.Report, error)) error {
	targets, err := a.resolveAll(word, f.all)
	if err != nil {
		return err
	}
	var whole *leak.Report
	for _, t := range targets {
		if f.dryRun {
			if err := a.dryRun(t, f); err != nil {
				return err
			}
			continue
		}
		r, err := a.lookAt(t, look)
		if err != nil && len(targets) > 1 {
			// One process that refuses must not hide what the others lose.
			r, err = &leak.Report{Notes: []string{fmt.Sprintf("pid %d: %v", t.ID.PID, err)}}, nil
		}
		if err != nil {
			return err
		}
		whole = merge(whole, r)
	}
	if f.dryRun {
		return nil
	}
	return a.finish(whole, nil, &f.out)
}

func (a *app) lookAt(t *proc.Target, look func(*proc.Target) (*leak.Report, error)) (*leak.Report, error) {
	release, err := lock(t)
	if err != nil {
		return nil, err
	}
	defer release()
	return look(t)
}

// merge adds the report of a further process to the whole.
func merge(whole, r *leak.Report) *leak.Report {
	if whole == nil {
		return r
	}
	base := len(whole.Targets)
	for _, t := range r.Targets {
		t.ID += base
		whole.Targets = append(whole.Targets, t)
	}
	for _, f := range r.Findings {
		f.Target += base
		whole.Findings = append(whole.Findings, f)
	}
	whole.Observed.PauseMS = append(whole.Observed.PauseMS, r.Observed.PauseMS...)
	whole.Observed.DurationS += r.Observed.DurationS
	whole.Notes = append(whole.Notes, r.Notes...)
	whole.Gaps = append(whole.Gaps, r.Gaps...)
	return whole
}

// finish writes the report and makes the exit code: nothing walked and nothing
// found means that stanch could not decide.
func (a *app) finish(r *leak.Report, err error, out *output) error {
	if err != nil {
		return err
	}
	r.Normalize()
	if err := out.write(a.std.Out, r); err != nil {
		return err
	}
	code := out.code(r)
	if code == ExitOK && undecided(r) {
		code = ExitUndecided
	}
	if code == ExitOK {
		return nil
	}
	return codeError{code, nil}
}

// undecided reports whether no heap of the report could be walked, though
// somebody tried.
func undecided(r *leak.Report) bool {
	for i := range r.Targets {
		t := &r.Targets[i]
		if t.HeapBlocks != nil || t.Allocator == "" && t.Descriptors != nil {
			return false
		}
	}
	return true
}

func preflight(t *proc.Target) (*ptrace.Plan, error) {
	return ptrace.Preflight(t, ptrace.Options{})
}

// dryRun says what a look at t would cost and whether it would be refused.
func (a *app) dryRun(t *proc.Target, f *lookFlags) error {
	plan, err := ptrace.Preflight(t, ptrace.Options{MaxPause: f.maxPause})
	if err != nil {
		return err
	}
	w := a.std.Out
	fmt.Fprintf(w, "%s: nothing was touched\n", nameOf(t))
	fmt.Fprintf(w, "  pause    about %.0f ms for each snapshot; scan takes 2, diagnose 3 to 5 within --max-pause %v\n", plan.Pause.Seconds()*1000, f.maxPause)
	fmt.Fprintf(w, "  memory   about %s while a snapshot lives; %s left before %s\n", size(plan.Memory), size(plan.Headroom), plan.HeadroomBy)
	return a.tellVerdict(plan)
}

// tellVerdict ends a dry run: the plan's notes, and whether anything refuses.
func (a *app) tellVerdict(plan *ptrace.Plan) error {
	w := a.std.Out
	for _, n := range plan.Notes {
		fmt.Fprintf(w, "  note     %s\n", n)
	}
	for _, r := range plan.Refusals {
		fmt.Fprintf(w, "  refused  %s\n", r)
	}
	if len(plan.Refusals) > 0 {
		return codeError{ExitFault, nil}
	}
	fmt.Fprintln(w, "  would go ahead")
	return nil
}

// nameOf is "comm[pid]".
func nameOf(t *proc.Target) string {
	if st, err := t.Stat(); err == nil {
		return fmt.Sprintf("%s[%d]", st.Comm, t.ID.PID)
	}
	return fmt.Sprintf("pid %d", t.ID.PID)
}

// size writes bytes for people, in powers of 1000 as the reports do.
func size(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), -1
	for v >= 1000 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + string(units[unit]) + "B"
}
