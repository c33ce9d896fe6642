package accuracy

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// Print writes the tables: all methods, by signal to noise, by window, by
// family; false alarms by name; steps, intervals and times.
func Print(w io.Writer, outs []Outcome) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "\ttraces\tleaks\tprecision\trecall\tfalse alarms\tprecision, recall of predict_linear\tof regression\t\n")
	row := func(name string, outs []Outcome) {
		if len(outs) == 0 {
			return
		}
		s, p, r := Count(outs, Stanch), Count(outs, PredictLinear), Count(outs, Regression)
		fmt.Fprintf(tw, "%s\t%d\t%d\t%.4f\t%s\t%d\t%.3f, %s\t%.3f, %s\t\n", name, s.Traces, s.Leaks, s.Precision(), recall(s), s.Positives-s.True, p.Precision(), recall(p), r.Precision(), recall(r))
	}
	row("all", outs)
	row("generated", filter(outs, func(o *Outcome) bool { return !o.Real }))
	row("recorded", filter(outs, func(o *Outcome) bool { return o.Real }))
	each(outs, func(o *Outcome) time.Duration { return o.Trace.Window }, func(k time.Duration, outs []Outcome) {
		row("window "+k.String(), outs)
	})
	_ = tw.Flush() // w is asked by whoever owns it
	fmt.Fprintln(w)
	bySNR(w, outs)
	byFamily(w, outs)
	named(w, outs)
	measures(w, outs)
}

func recall(s Score) string {
	if s.Strong == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", s.Recall())
}

// bySNR is recall against signal to noise and window.
func bySNR(w io.Writer, outs []Outcome) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	leaks := filter(outs, func(o *Outcome) bool { return o.Trace.Leak && !o.Real })
	bounds := []float64{0, 1.5, 2.5, 3.5, 5, 8, 15, 1e9}
	fmt.Fprint(tw, "recall at signal to noise\t")
	for i := 1; i < len(bounds)-1; i++ {
		fmt.Fprintf(tw, "to %g\t", bounds[i])
	}
	fmt.Fprintln(tw, "above\t")
	line := func(name string, of []Outcome, method func(*Outcome) bool) {
		fmt.Fprintf(tw, "%s\t", name)
		for i := 1; i < len(bounds); i++ {
			in := filter(of, func(o *Outcome) bool { return o.SNR > bounds[i-1] && o.SNR <= bounds[i] })
			found := filter(in, method)
			if len(in) == 0 {
				fmt.Fprint(tw, "-\t")
				continue
			}
			fmt.Fprintf(tw, "%.3f\t", float64(len(found))/float64(len(in)))
		}
		fmt.Fprintln(tw)
	}
	line("all windows", leaks, Stanch)
	line("predict_linear", leaks, PredictLinear)
	line("regression", leaks, Regression)
	each(leaks, func(o *Outcome) time.Duration { return o.Trace.Window }, func(k time.Duration, of []Outcome) {
		line("window "+k.String(), of, Stanch)
	})
	_ = tw.Flush() // w is asked by whoever owns it
	fmt.Fprintln(w)
}

func byFamily(w io.Writer, outs []Outcome) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "family\ttraces\tpositive\tof strong\tpredict_linear\tregression\tverdicts")
	each(filter(outs, func(o *Outcome) bool { return !o.Real }), func(o *Outcome) string {
		if o.Trace.Leak {
			return "leak/" + o.Trace.Family
		}
		return "none/" + o.Trace.Family
	}, func(k string, of []Outcome) {
		verdicts := map[string]int{}
		for _, o := range of {
			verdicts[o.Trend.Verdict]++
		}
		text := ""
		for _, v := range slices.Sorted(maps.Keys(verdicts)) {
			text += fmt.Sprintf("%s %d  ", v, verdicts[v])
		}
		s, p, r := Count(of, Stanch), Count(of, PredictLinear), Count(of, Regression)
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%d\t%d\t%s\n", k, s.Traces, s.Positives, recall(s), p.Positives, r.Positives, text)
	})
	_ = tw.Flush() // w is asked by whoever owns it
	fmt.Fprintln(w)
}

// named lists each false alarm, each recording, and how many strong leaks were
// missed.
func named(w io.Writer, outs []Outcome) {
	for i := range outs {
		if o := &outs[i]; o.Positive && !o.Trace.Leak {
			fmt.Fprintf(w, "false alarm: %s: %s %v %v\n", o.Trace.Name, o.Trend.Verdict, o.Trend.Detectors, o.Trend.Evidence)
		}
	}
	for i := range outs {
		if o := &outs[i]; o.Real {
			word := "right"
			if o.Positive != o.Trace.Leak {
				word = "WRONG"
			}
			fmt.Fprintf(w, "recorded: %s: leak %v, signal to noise %.1f, verdict %s (%s)\n", o.Trace.Name, o.Trace.Leak, o.SNR, o.Trend.Verdict, word)
		}
	}
	for i := range outs {
		if o := &outs[i]; o.Trace.Leak && !o.Positive && o.SNR >= Enough-1e-9 {
			fmt.Fprintf(w, "missed: %s: %s %v %v\n", o.Trace.Name, o.Trend.Verdict, o.Trend.Detectors, o.Trend.Evidence)
		}
	}
}

func measures(w io.Writer, outs []Outcome) {
	hit, all, stepping, holds, intervals := 0, 0, 0, 0, 0
	var took []time.Duration
	for _, o := range outs {
		if o.StepsAll > 0 {
			stepping++
		}
		hit, all = hit+o.StepsHit, all+o.StepsAll
		if o.Holds != nil {
			intervals++
			if *o.Holds {
				holds++
			}
		}
		took = append(took, o.Took)
	}
	slices.Sort(took)
	fmt.Fprintf(w, "steps: of %d traces judged stepping, %d of %d true steps found within one sample (%.4f)\n", stepping, hit, all, part(hit, all))
	fmt.Fprintf(w, "intervals: the 95 %% interval holds the true slope in %d of %d traces with linear growth of enough signal (%.3f)\n", holds, intervals, part(holds, intervals))
	if len(took) > 0 {
		fmt.Fprintf(w, "time to judge a process: median %v, longest %v\n", took[len(took)/2].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond))
	}
}

func filter(outs []Outcome, keep func(*Outcome) bool) (kept []Outcome) {
	for i := range outs {
		if keep(&outs[i]) {
			kept = append(kept, outs[i])
		}
	}
	return kept
}

// each calls f for the outcomes of each key, in order.
func each[K cmp.Ordered](outs []Outcome, key func(*Outcome) K, f func(K, []Outcome)) {
	groups := map[K][]Outcome{}
	for i := range outs {
		k := key(&outs[i])
		groups[k] = append(groups[k], outs[i])
	}
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		f(k, groups[k])
	}
}
