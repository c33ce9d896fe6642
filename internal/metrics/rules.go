package metrics

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

// Detector is one of those that judge trends: its name, which is the label
// "detector" of a suspect, and what it says, in one sentence.
type Detector struct{ Name, Doc string }

// RuleOptions are what the rules must know of the watch they are for. The zero
// value is that of a watch with its defaults.
type RuleOptions struct {
	// Every is the time between two samples, 10 s when it is 0. The windows of
	// the rules are so and so many samples long: those of a watch that samples
	// more often are as much shorter, and those of a slower one longer where
	// they would hold too few.
	Every time.Duration
}

// defaultEvery is the time between two samples to which the lengths in the
// list of alerts belong.
const defaultEvery = 10 * time.Second

// leastSamples is how many a window needs at least to tell anything.
const leastSamples = 4

// Rules writes alert rules for Prometheus, in the form of its rule files. They
// are made from the list of detectors, and use nothing that is younger than
// Prometheus 2.26. See the first lines of what is written for which of them
// needs what.
func Rules(w io.Writer, detectors []Detector, o RuleOptions) error {
	if o.Every <= 0 {
		o.Every = defaultEvery
	}
	file := ruleFile{}
	for _, g := range alertGroups(o, detectors) {
		out := ruleGroup{Name: g.name, Interval: o.scaled(30 * time.Second)}
		for _, a := range g.alerts {
			out.Rules = append(out.Rules, a.rule(o))
		}
		file.Groups = append(file.Groups, out)
	}
	if _, err := fmt.Fprintf(w, preface, model.Duration(o.Every)); err != nil {
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(file); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	return enc.Close()
}

const preface = `# Alert rules for stanch, made by 'stanch watch --print-rules' for a watch that samples every %v.
#
# stanch-suspects  what the watch concludes; needs its /metrics to be scraped
# stanch-limits    what is near a limit, or restarts; from /metrics or from --remote-write
# stanch-history   growth seen in the series alone; for --remote-write, silent about hosts whose verdicts are scraped
# stanch-watch     whether the watch itself works
#
# Of one watch, scrape /metrics or take remote write, not both: each alert would come twice.
`

// scaled makes a length that is written for samples every 10 s right for a
// watch that samples more often.
func (o RuleOptions) scaled(d time.Duration) model.Duration {
	if o.Every < defaultEvery {
		d = time.Duration(float64(d) * float64(o.Every) / float64(defaultEvery))
	}
	return model.Duration(max(d, time.Second).Round(time.Second))
}

// span is scaled for the window of a range: it holds enough samples to tell
// anything.
func (o RuleOptions) span(d time.Duration) model.Duration {
	return max(o.scaled(d), model.Duration(leastSamples*o.Every))
}

// The form of a rule file:
// https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/
type (
	ruleFile struct {
		Groups []ruleGroup `yaml:"groups"`
	}
	ruleGroup struct {
		Name     string         `yaml:"name"`
		Interval model.Duration `yaml:"interval"`
		Rules    []rule         `yaml:"rules"`
	}
	rule struct {
		Alert       string            `yaml:"alert"`
		Expr        string            `yaml:"expr"`
		For         model.Duration    `yaml:"for,omitempty"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	}
)

// alert is a rule before its lengths are known.
type alert struct {
	name, expr string
	pending    time.Duration // how long it must hold
	severity   string
	labels     map[string]string // further ones
	summary    string
	text       string // what it means
	next       string // what to run now; "" for the usual
}

func (a alert) rule(o RuleOptions) rule {
	r := rule{Alert: a.name, Expr: a.expr, Labels: map[string]string{"severity": a.severity}}
	if a.pending > 0 {
		r.For = o.scaled(a.pending)
	}
	for name, value := range a.labels {
		r.Labels[name] = value
	}
	next := a.next
	if next == "" {
		next = nextOfWorker
	}
	r.Annotations = map[string]string{"summary": a.summary, "description": a.text, "next": next}
	return r
}

// The words of annotations. $labels has "" for a label that is not there, and
// a matcher for "" finds series without the label, so the queries are right
// for scraped and for sent series.
const (
	service = `{{ $labels.service }}` + on
	worker  = `{{ $labels.service }}{{ with $labels.worker }} (worker {{ . }}){{ end }}` + on
	host    = `{{ with $labels.instance }}{{ . }}{{ else }}the host{{ end }}`
	on      = `{{ with $labels.instance }} on {{ . }}{{ end }}`

	withPID = `{{ with printf "stanch_process_pid{service=%q,worker=%q,instance=%q}" $labels.service $labels.worker $labels.instance | query }}`
	pid     = `{{ . | first | value | printf "%.0f" }}`
	// The command is pasted into a shell, and whoever starts a program names it.
	nextOfService = `stanch suspects '{{ reReplaceAll "'" "'\\''" $labels.service }}'`
	nextOfWorker  = nextOfService + withPID + `, then stanch diagnose ` + pid + `{{ end }}`
	nextOfTable   = nextOfService + withPID + `, then stanch fds ` + pid + ` and stanch diagnose ` + pid + `{{ end }}`
	nextOfHost    = `stanch suspects`
)

// ofSuspect is the value of a metric of the same suspect, as bytes for memory.
func ofSuspect(metric string) string {
	return `{{ with printf "` + metric + `{service=%q,worker=%q,resource=%q,instance=%q}" $labels.service $labels.worker $labels.resource $labels.instance | query }}` +
		amount(`. | first | value`) + `{{ end }}`
}

// inBytes matches the resources that are measured in bytes.
const inBytes = "memory|address space|slab"

// amount formats a value of the labels' resource.
func amount(value string) string {
	return `{{ if match "` + inBytes + `" $labels.resource }}{{ ` + value + ` | humanize1024 }}B{{ else }}{{ ` + value + ` | humanize }}{{ end }}`
}

// explain is a template that says what the detector of a suspect says.
func explain(detectors []Detector) string {
	var b strings.Builder
	for i, d := range detectors {
		word := "else if"
		if i == 0 {
			word = "if"
		}
		fmt.Fprintf(&b, "{{ %s eq $labels.detector %q }} %s: %s", word, d.Name, plain(d.Name), sentence(plain(d.Doc)))
	}
	if len(detectors) > 0 {
		b.WriteString("{{ end }}")
	}
	return b.String()
}

// plain keeps a text from being taken for a template.
func plain(s string) string { return strings.NewReplacer("{{", "{ {", "}}", "} }").Replace(s) }

func sentence(s string) string { return strings.TrimSuffix(s, ".") + "." }
