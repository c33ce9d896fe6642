package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/metrics"
	"stanch/internal/trend"
)

// watchFlags are the command line of watch.
type watchFlags struct {
	data          string
	every         time.Duration
	minAge        time.Duration
	judge         time.Duration
	listen        string
	webConfig     string
	remote        string
	remoteToken   string
	maxSize       bytesFlag
	retention     time.Duration
	logs          []string
	journals      []string
	printRules    bool
	check         bool
	diagnoseOn    string
	diagnoseEvery time.Duration
	diagnoseFor   time.Duration
}

func (a *app) watch() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch [TARGET]",
		Short: "Keep the history of the whole host: trends, verdicts, /metrics (reads only, unless --diagnose-on)",
		Long: `watch samples every process of the host, its cgroups and the host itself, keeps the history on disk, and
says on standard error which services grow without end, and when their limit comes. 'stanch suspects' asks it.

It reads /proc and touches no process. As root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, it sees
the descriptors of all; else those of its own user. With TARGET it keeps that one service only.

The history is a Prometheus TSDB. /metrics and Prometheus' query API are on --listen.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.verify(); err != nil {
				return err
			}
			if f.printRules {
				return a.printRules(&f)
			}
			word := ""
			if len(args) > 0 {
				word = args[0]
			}
			if f.check {
				return a.checkWatch(word, &f)
			}
			return a.runWatch(cmd.Context(), word, &f)
		},
	}
	fl := cmd.Flags()
	f.maxSize = 2 << 30
	fl.StringVar(&f.data, "data", dataDir(), "keep the history in this directory")
	fl.DurationVar(&f.every, "every", 10*time.Second, "time between two samples")
	fl.DurationVar(&f.minAge, "min-age", time.Minute, "leave out processes younger than this")
	fl.DurationVar(&f.judge, "judge-every", 0, "time between two judgements of a service (default 30 samples)")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:9142", "serve /metrics and the query API here; \"\" for nowhere")
	fl.StringVar(&f.webConfig, "web-config", "", "TLS and passwords for --listen, in the form of Prometheus' exporter toolkit; needed beyond loopback")
	fl.StringVar(&f.remote, "remote-write", "", "send each sample to this Prometheus remote-write URL too")
	fl.StringVar(&f.remoteToken, "remote-token-file", "", "file with the bearer token for --remote-write")
	fl.Var(&f.maxSize, "max-size", "the most bytes of history on disk; K, M, G allowed")
	f.retention = 30 * 24 * time.Hour
	fl.Var(daysFlag{&f.retention}, "retention", "how long the history is kept")
	fl.StringArrayVar(&f.logs, "log", nil, "follow this log file: which lines come before growth; may be given again")
	fl.StringArrayVar(&f.journals, "journal", nil, "follow the journal of this systemd unit likewise")
	fl.StringVar(&f.diagnoseOn, "diagnose-on", "none", "leak: when a verdict says that a process grows, diagnose it (short pauses, and a probe inside while it watches) and keep the report")
	f.diagnoseEvery = 24 * time.Hour
	fl.Var(daysFlag{&f.diagnoseEvery}, "diagnose-every", "with --diagnose-on: at most once in this time for each process")
	fl.DurationVar(&f.diagnoseFor, "diagnose-for", time.Minute, "with --diagnose-on: how long each diagnosis watches")
	fl.BoolVar(&f.printRules, "print-rules", false, "print Prometheus alert rules for these metrics, and end")
	fl.BoolVar(&f.check, "check", false, "say what this watch could see and do here, and end; exit code 1 when it could not run")
	return cmd
}

// The least and the most time between two samples.
const (
	leastEvery = 100 * time.Millisecond
	mostEvery  = 5 * time.Minute
)

// verify finds mistakes in the flags.
func (f *watchFlags) verify() error {
	if f.judge == 0 {
		f.judge = 30 * f.every
	}
	switch {
	case f.every < leastEvery || f.every > mostEvery:
		return usagef("--every is %v; it must lie between %v and %v", f.every, leastEvery, mostEvery)
	case f.minAge < 0:
		return usagef("--min-age takes a time such as 60s, not %v", f.minAge)
	case f.judge < f.every:
		return usagef("--judge-every is %v, less than --every", f.judge)
	case f.maxSize < 10<<20:
		return usagef("--max-size is %d; a history needs 10M or more", f.maxSize)
	case f.retention < time.Hour:
		return usagef("--retention is %v; it must be 1h or more", f.retention)
	case f.diagnoseOn != "none" && f.diagnoseOn != "leak":
		return usagef("--diagnose-on is leak or none, not %q", f.diagnoseOn)
	case f.diagnoseFor < 2*time.Second:
		return usagef("--diagnose-for is %v; a diagnosis needs 2s or more", f.diagnoseFor)
	case f.data == "":
		return usagef("--data takes a directory")
	case f.remoteToken != "" && f.remote == "":
		return usagef("--remote-token-file goes with --remote-write")
	}
	if f.remote != "" {
		u, err := url.Parse(f.remote)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return usagef("--remote-write takes a URL such as http://127.0.0.1:9090/api/v1/write")
		}
	}
	if f.listen != "" {
		if err := metrics.CheckAddress(f.listen, f.webConfig); err != nil {
			return codeError{ExitUsage, err}
		}
	}
	return nil
}

// printRules writes the alert rules for what the detectors say.
func (a *app) printRules(f *watchFlags) error {
	var list []metrics.Detector
	for _, d := range trend.Detectors {
		list = append(list, metrics.Detector{Name: d.Name, Doc: d.Doc})
	}
	return metrics.Rules(a.std.Out, list, metrics.RuleOptions{Every: f.every})
}

// gcPercent spares a quarter of the memory for a little more of CPU: the store
// holds the last hours of thousands of series.
const gcPercent = 50

// runWatch watches until ctx ends.
func (a *app) runWatch(ctx context.Context, word string, f *watchFlags) (err error) {
	polite()
	debug.SetGCPercent(gcPercent)
	w, err := a.newWatch(ctx, word, f)
	switch {
	case errors.Is(err, context.Canceled):
		return nil // it was ended before it began
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.serve(ctx); err != nil {
		return err
	}
	w.say("watching; history in %s; ask it with: stanch suspects", f.data)
	return w.run(ctx)
}

// reportsDir is where --diagnose-on keeps its reports.
func (f *watchFlags) reportsDir() string { return filepath.Join(f.data, "reports") }

// sayer writes lines for an operator, with the time, unless they go to the
// journal, which adds it.
func (a *app) sayer() func(format string, args ...any) {
	stamp := !journaled(a.std.Err)
	return func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if stamp {
			line = time.Now().Format("2006-01-02 15:04:05 ") + line
		}
		fmt.Fprintln(a.std.Err, line)
	}
}

// journaled reports whether systemd connected w to the journal. What a service
// starts inherits the variable that says so, and may write elsewhere
// (systemd.exec(5), JOURNAL_STREAM).
func journaled(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// logger makes a logger of a sayer, for the store and for remote write.
func logger(say func(format string, args ...any)) *slog.Logger {
	return slog.New(slog.NewTextHandler(lines(say), &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
			if len(groups) == 0 && (at.Key == slog.TimeKey || at.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return at
		},
	}))
}

// lines is a writer of lines that are said.
type lines func(format string, args ...any)

func (say lines) Write(b []byte) (int, error) {
	say("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}
