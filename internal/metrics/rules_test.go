package metrics

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"

	"stanch/internal/series"
)

// The names are not real ones: any list must do.
var detectors = []Detector{{"trend.first", "the lowest values rise"}, {"trend.second", `says "{{ x }}" and 'y'.`}}

func rulesText(t testing.TB, o RuleOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Rules(&b, detectors, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRulesAreValid asks Debian's promtool and the parser of the newest
// Prometheus, which also runs the templates.
func TestRulesAreValid(t *testing.T) {
	for _, every := range []time.Duration{0, 100 * time.Millisecond, time.Second, 7 * time.Second, 10 * time.Second, 45 * time.Second, 5 * time.Minute} {
		text := rulesText(t, RuleOptions{Every: every})
		path := filepath.Join(t.TempDir(), "rules.yml")
		write(t, path, text)
		if out, err := exec.Command("promtool", "check", "rules", "--lint-fatal", path).CombinedOutput(); err != nil {
			t.Errorf("every %v: promtool: %v\n%s", every, err, out)
		}
		groups, errs := rulefmt.Parse([]byte(text), false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
		for _, err := range errs {
			t.Errorf("every %v: %v", every, err)
		}
		if len(errs) > 0 {
			continue
		}
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				if time.Duration(r.For) > 15*time.Minute || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Annotations["next"] == "" {
					t.Errorf("every %v: %s lacks something: %+v", every, r.Alert, r)
				}
			}
		}
	}
}

// TestRulesName holds the rules against what they name: metrics that exist,
// and all detectors.
func TestRulesName(t *testing.T) {
	text := rulesText(t, RuleOptions{})
	page := scrape(t, everything())
	for _, name := range regexp.MustCompile(`\bstanch_[a-z0-9_]+\b`).FindAllString(text, -1) {
		if !strings.Contains(page, "# HELP "+name+" ") {
			t.Errorf("the rules name %s, which is not on the page", name)
		}
	}
	for _, d := range detectors {
		if !strings.Contains(text, `eq $labels.detector "`+d.Name+`"`) || !strings.Contains(text, plain(strings.ReplaceAll(d.Doc, "'", "''"))) {
			t.Errorf("the rules do not explain %s", d.Name)
		}
	}
	if err := Rules(&bytes.Buffer{}, nil, RuleOptions{}); err != nil {
		t.Errorf("without detectors: %v", err)
	}
}

func TestRuleLengths(t *testing.T) {
	for _, test := range []struct {
		every, length, scaled, span time.Duration
	}{
		{10 * time.Second, time.Hour, time.Hour, time.Hour},
		{time.Second, time.Hour, 6 * time.Minute, 6 * time.Minute},
		{time.Minute, time.Hour, time.Hour, time.Hour},
		{5 * time.Minute, 15 * time.Minute, 15 * time.Minute, 20 * time.Minute},
		{100 * time.Millisecond, 30 * time.Second, time.Second, time.Second},
	} {
		o := RuleOptions{Every: test.every}
		if a, b := o.scaled(test.length), o.span(test.length); time.Duration(a) != test.scaled || time.Duration(b) != test.span {
			t.Errorf("%v of samples every %v: %v and %v, want %v and %v", test.length, test.every, a, b, test.scaled, test.span)
		}
	}
}

// line is a series of a story, by minute; NaN is no sample.
type line func(minute int) float64

func always(v float64) line { return func(int) float64 { return v } }

// from has values from a minute on.
func from(first int, of line) line {
	return func(minute int) float64 {
		if minute < first {
			return math.NaN()
		}
		return of(minute)
	}
}

// each has a value every n minutes only.
func each(n int, of line) line {
	return func(minute int) float64 {
		if minute%n != 0 {
			return math.NaN()
		}
		return of(minute)
	}
}

// sawtooth is what a garbage collector leaves: up for period minutes by height,
// then down, on a base that gains slope a minute.
func sawtooth(base, height, slope float64, period int) line {
	return func(m int) float64 {
		return math.Round(base + slope*float64(m) + height*float64(m%period)/float64(period))
	}
}

// TestRulesFire runs stories through promtool: which alerts fire at which
// minute, and no others.
func TestRulesFire(t *testing.T) {
	const (
		begun = string(series.Started) + `{service="a.service",worker="0"}`
		fds   = string(series.FDs) + `{service="a.service",worker="0"}`
		most  = string(series.FDLimit) + `{service="a.service",worker="0"}`
		who   = `{service="a.service",worker="0",resource="memory"`
		build = `stanch_build_info{instance="h:9142"}`

		killed = string(series.CgroupEvents) + `{service="a.service",event="oom_kill"}`
	)
	stories := []story{
		{"verdicts", map[string]line{
			`stanch_suspect` + who + `,verdict="growing",detector="trend.first"}`: func(m int) float64 {
				if m > 60 {
					return math.NaN()
				}
				return 1
			},
			`stanch_suspect_exhaustion_seconds` + who + `,limit="cgroup memory.max"}`: func(m int) float64 { return 26*3600 - float64(m)*720 },
		}, map[int]string{
			4: "", 7: "StanchGrowing warning",
			59:  "StanchExhaustionSoon warning, StanchGrowing warning",
			119: "StanchExhaustionSoon critical",
		}},
		{"descriptors, of which the limit is said every 20 minutes", map[string]line{
			fds:  func(m int) float64 { return 700 + 4*float64(m) },
			most: each(20, always(1024)),
		}, map[int]string{25: "", 39: "StanchDescriptorsNearLimit warning", 75: "StanchDescriptorsNearLimit critical"}},
		{"no limit", map[string]line{fds: always(5000), most: always(math.Inf(1))}, map[int]string{30: ""}},
		{"limits of a cgroup and of the host", map[string]line{
			string(series.CgroupMemory) + `{service="a.service"}`:                           always(95),
			string(series.CgroupLimit) + `{service="a.service"}`:                            always(100),
			string(series.CgroupTasks) + `{service="b.service"}`:                            always(95),
			string(series.CgroupTasksMax) + `{service="b.service"}`:                         always(100),
			string(series.HostAvailable):                                                    always(4),
			string(series.HostMemory):                                                       always(100),
			string(series.HostFiles):                                                        always(81),
			string(series.HostFilesMax):                                                     always(100),
			string(series.HostConntrack):                                                    always(79),
			string(series.HostConntrackMax):                                                 always(100),
			string(series.HostOOMKills):                                                     func(m int) float64 { return float64(m / 20) },
			string(series.Zombies) + `{service="a.service",worker="0"}`:                     always(25),
			string(series.Sockets) + `{service="a.service",worker="0",state="CLOSE_WAIT"}`:  func(m int) float64 { return 30 - 29*float64(m%50/49) },
			string(series.Sockets) + `{service="a.service",worker="1",state="ESTABLISHED"}`: always(3000),
		}, map[int]string{
			5:  "StanchHostFilesNearLimit warning, StanchHostMemoryLow warning, StanchMemoryNearLimit warning, StanchTasksNearLimit warning",
			40: "StanchHostFilesNearLimit warning, StanchHostMemoryLow warning, StanchHostOOMKill warning, StanchMemoryNearLimit warning, StanchTasksNearLimit warning, StanchSocketsNotClosed warning, StanchZombies warning",
			70: "StanchHostFilesNearLimit warning, StanchHostMemoryLow warning, StanchMemoryNearLimit warning, StanchHostOOMKill warning, StanchTasksNearLimit warning, StanchZombies warning",
		}},
		{"limits of zero, which are none", map[string]line{
			fds:                             always(5),
			most:                            always(0),
			string(series.HostConntrack):    always(5),
			string(series.HostConntrackMax): always(0),
		}, map[int]string{30: ""}},
		{"a moment with many of what a busy server has a few", map[string]line{
			string(series.Sockets) + `{service="a.service",worker="0",state="CLOSE_WAIT"}`: func(m int) float64 { return 30 * float64(max(0, 4-m)) },
			string(series.Zombies) + `{service="a.service",worker="0"}`:                    func(m int) float64 { return 30 * float64(max(0, 4-m)) },
		}, map[int]string{1: "", 3: "", 20: ""}},
		{"the first kill in a cgroup", map[string]line{
			killed: func(m int) float64 { return float64(min(m/90, 1)) },
		}, map[int]string{80: "", 95: "StanchOOMKill warning", 140: "StanchOOMKill warning", 250: ""}},
		{"another kill in a cgroup", map[string]line{
			killed: func(m int) float64 { return float64(3 + m/90) },
		}, map[int]string{80: "", 95: "StanchOOMKill warning", 160: ""}},
		{"kills before the watch began", map[string]line{
			killed: from(90, always(3)),
		}, map[int]string{95: "", 140: "", 170: ""}},
		{"restarts every quarter of an hour", map[string]line{begun: func(m int) float64 { return float64(m / 13) }},
			map[int]string{30: "", 60: "StanchRestarts warning"}},
		{"a watch that ends", map[string]line{build: always(1), string(series.HostAvailable): func(m int) float64 {
			if m > 30 {
				return math.NaN()
			}
			return 50
		}, "stanch_watch_last_sweep_timestamp_seconds": always(600)},
			map[int]string{9: "", 20: "StanchWatchStale warning", 45: "StanchWatchDown warning, StanchWatchStale warning"}},
		{"a watch in trouble", map[string]line{
			"stanch_store_failed_samples_total":         func(m int) float64 { return float64(m) },
			"stanch_remote_write_dropped_samples_total": func(m int) float64 { return float64(m) },
			"stanch_series_left_out":                    always(7),
			"stanch_suspects_left_out":                  always(0),
		}, map[int]string{20: "StanchHistoryNotWritten warning, StanchRemoteWriteDrops warning, StanchSeriesLeftOut info"}},
	}
	runStories(t, 1, stories)
}

// TestHistoryRulesFire: growth in the series alone, and what looks like it.
func TestHistoryRulesFire(t *testing.T) {
	const (
		memory = string(series.Anonymous) + `{service="a.service",worker="0"}`
		begun  = string(series.Started) + `{service="a.service",worker="0"}`
		fds    = string(series.FDs) + `{service="a.service",worker="0"}`

		build        = `stanch_build_info{instance="h:9142"}`
		scraped      = string(series.Anonymous) + `{service="a.service",worker="0",instance="h:9142"}`
		scrapedBegun = string(series.Started) + `{service="a.service",worker="0",instance="h:9142"}`
	)
	runStories(t, 5, []story{
		{"growth below a sawtooth", map[string]line{memory: sawtooth(1e8, 5e6, 2e5, 7), begun: always(1)},
			map[int]string{200: "", 420: "StanchNeverFallsBack warning"}},
		{"growth that is scraped with its verdicts", map[string]line{scraped: sawtooth(1e8, 5e6, 2e5, 7), scrapedBegun: always(1), build: always(1)},
			map[int]string{420: ""}},
		{"growth that is sent, while another host is scraped", map[string]line{memory: sawtooth(1e8, 5e6, 2e5, 7), begun: always(1), build: always(1)},
			map[int]string{420: "StanchNeverFallsBack warning"}},
		{"growth and a restart", map[string]line{memory: sawtooth(1e8, 5e6, 2e5, 7), begun: func(m int) float64 { return float64(m / 300) }},
			map[int]string{420: ""}},
		{"a collector", map[string]line{memory: sawtooth(1e8, 2e8, 0, 47), begun: always(1)}, map[int]string{400: "", 420: ""}},
		{"a cache that fills and stops", map[string]line{memory: func(m int) float64 { return 1e8 + 1e8*(1-math.Exp(-float64(m)/40)) }, begun: always(1)},
			map[int]string{500: ""}},
		{"descriptors that climb by 10 an hour", map[string]line{fds: func(m int) float64 { return float64(20 + m/6) }, begun: always(1)},
			map[int]string{420: "StanchNeverFallsBack warning"}},
	})
}

type story struct {
	name  string
	lines map[string]line
	fires map[int]string // by minute: names and severities
}

// The form of promtool's unit tests:
// https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
type (
	unitSample struct {
		Labels string  `yaml:"labels"`
		Value  float64 `yaml:"value"`
	}
	unitExpr struct {
		Expr    string       `yaml:"expr"`
		At      string       `yaml:"eval_time"`
		Samples []unitSample `yaml:"exp_samples"`
	}
	unitSeries struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	unitAlert struct {
		Alert  string      `yaml:"alertname"`
		At     string      `yaml:"eval_time"`
		Alerts []unitFired `yaml:"exp_alerts"`
	}
	unitFired struct {
		Labels      map[string]string `yaml:"exp_labels"`
		Annotations map[string]string `yaml:"exp_annotations"`
	}
	unitTest struct {
		Name   string       `yaml:"name"`
		Every  string       `yaml:"interval"`
		Input  []unitSeries `yaml:"input_series"`
		Exprs  []unitExpr   `yaml:"promql_expr_test,omitempty"`
		Alerts []unitAlert  `yaml:"alert_rule_test,omitempty"`
	}
	unitFile struct {
		Rules []string   `yaml:"rule_files"`
		Every string     `yaml:"evaluation_interval"`
		Tests []unitTest `yaml:"tests"`
	}
)

// runStories has samples and looks at the rules every so many minutes.
func runStories(t *testing.T, every int, stories []story) {
	t.Helper()
	pace := fmt.Sprintf("%dm", every)
	file := unitFile{Rules: []string{"rules.yml"}, Every: pace}
	for _, s := range stories {
		u := unitTest{Name: s.name, Every: pace}
		last := slices.Max(slices.Collect(maps.Keys(s.fires)))
		for _, name := range slices.Sorted(maps.Keys(s.lines)) {
			var values []string
			for m := 0; m <= last; m += every {
				if v := s.lines[name](m); math.IsNaN(v) {
					values = append(values, "_")
				} else {
					values = append(values, fmt.Sprint(v))
				}
			}
			u.Input = append(u.Input, unitSeries{name, strings.Join(values, " ")})
		}
		for m, names := range s.fires {
			e := unitExpr{Expr: `count by (alertname, severity) (ALERTS{alertstate="firing"})`, At: fmt.Sprintf("%dm", m)}
			for name := range strings.SplitSeq(names, ", ") {
				if name, severity, ok := strings.Cut(name, " "); ok {
					e.Samples = append(e.Samples, unitSample{fmt.Sprintf(`{alertname=%q, severity=%q}`, name, severity), 1})
				}
			}
			u.Exprs = append(u.Exprs, e)
		}
		file.Tests = append(file.Tests, u)
	}
	runUnits(t, file)
}

func runUnits(t *testing.T, file unitFile) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rules.yml"), rulesText(t, RuleOptions{}))
	data, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "unit.yml"), string(data))
	if out, err := exec.Command("promtool", "test", "rules", filepath.Join(dir, "unit.yml")).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// TestAnnotations reads what a person would: the numbers, the detector's
// words, the commands with the PID of now.
func TestAnnotations(t *testing.T) {
	const who = `{service="a.service",worker="0",instance="h:9142",resource="memory"`
	u := unitTest{Name: "words", Every: "1m"}
	for name, v := range map[string]float64{
		`stanch_suspect` + who + `,verdict="stepping",detector="trend.second"}`:    1,
		`stanch_suspect_value` + who + `}`:                                         5 << 30,
		`stanch_suspect_growth_per_hour` + who + `}`:                               12 << 20,
		`stanch_process_pid{service="a.service",worker="0",instance="h:9142"}`:     4711,
		`stanch_process_pid{service="a.service",worker="0",instance="other:9142"}`: 12,
	} {
		u.Input = append(u.Input, unitSeries{name, fmt.Sprintf("%v+0x20", v)})
	}
	u.Alerts = []unitAlert{{"StanchStepping", "10m", []unitFired{{
		Labels: map[string]string{"service": "a.service", "worker": "0", "instance": "h:9142", "resource": "memory", "verdict": "stepping", "detector": "trend.second", "severity": "warning"},
		Annotations: map[string]string{
			"summary":     "a.service (worker 0) on h:9142: memory grows by steps",
			"description": `It holds 5GiB now, and gains 12MiB per hour. Nothing seen so far says that this ends. trend.second: says "{ { x } }" and 'y'.`,
			"next":        "stanch suspects 'a.service', then stanch diagnose 4711",
		},
	}}}}
	runUnits(t, unitFile{Rules: []string{"rules.yml"}, Every: "1m", Tests: []unitTest{u}})
}

// TestHostileName: whoever starts a program names its service, and the alert's
// command is pasted into a shell.
func TestHostileName(t *testing.T) {
	const name = `x'; touch "owned" #`
	labels := map[string]string{"service": name, "worker": "0", "resource": "memory", "verdict": "growing", "severity": "warning"}
	next := `stanch suspects 'x'\''; touch "owned" #', then stanch diagnose 4711`
	runUnits(t, unitFile{Rules: []string{"rules.yml"}, Every: "1m", Tests: []unitTest{{
		Name: "words", Every: "1m",
		Input: []unitSeries{
			{fmt.Sprintf("stanch_suspect{service=%q,worker=\"0\",resource=\"memory\",verdict=\"growing\"}", name), "1+0x20"},
			{fmt.Sprintf("stanch_process_pid{service=%q,worker=\"0\"}", name), "4711+0x20"},
		},
		Alerts: []unitAlert{{"StanchGrowing", "10m", []unitFired{{Labels: labels, Annotations: map[string]string{
			"summary":     name + " (worker 0): memory grows steadily",
			"description": "It holds  now, and gains  per hour. Nothing seen so far says that this ends.",
			"next":        next,
		}}}}},
	}}})
	command, _, _ := strings.Cut(next, ", then")
	if out, err := exec.Command("sh", "-c", "printf %s "+strings.TrimPrefix(command, "stanch suspects ")).Output(); err != nil || string(out) != name {
		t.Errorf("the shell takes it for %q, %v", out, err)
	}
}
