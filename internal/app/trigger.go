package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/render"
)

// trigger starts a diagnosis of a process whose verdict says that it grows: one
// at a time, and one of each process within an interval. A process that stanch
// would refuse to touch is left alone. The diagnosis runs in a stanch of its
// own, so that whatever happens to it the watch goes on.
type trigger struct {
	dir   string        // where the reports are kept
	every time.Duration // between two diagnoses of one process
	long  time.Duration // how long one watches
	say   func(format string, args ...any)

	last    map[leak.ProcID]time.Time
	running *task
}

// keptReports is how many reports are kept; the oldest go.
const keptReports = 100

// pull starts a diagnosis of a process unless one runs or was made lately.
func (t *trigger) pull(ctx context.Context, c change, now time.Time) {
	if t.running != nil {
		select {
		case <-t.running.done:
			t.running = nil
		default:
			return
		}
	}
	if c.trend.PID <= 0 || c.trend.PID == os.Getpid() {
		return
	}
	target, err := proc.Default.Open(c.trend.PID)
	if err != nil {
		return // it has ended
	}
	if at, ok := t.last[target.ID]; ok && now.Sub(at) < t.every {
		return
	}
	if t.last == nil {
		t.last = map[leak.ProcID]time.Time{}
	}
	t.last[target.ID] = now
	for id, at := range t.last {
		if now.Sub(at) > t.every {
			delete(t.last, id)
		}
	}
	plan, err := ptrace.Preflight(target, ptrace.Options{})
	if err == nil && len(plan.Refusals) > 0 {
		err = errors.New(strings.Join(plan.Refusals, "; "))
	}
	if err != nil {
		t.say("%s is not diagnosed: %v", nameOf(target), err)
		return
	}
	file := filepath.Join(t.dir, fmt.Sprintf("%s-%d-%s.json", fileName(c.service), c.trend.PID, now.UTC().Format("20060102T150405Z")))
	t.say("diagnosing %s for %v, report in %s", nameOf(target), t.long, file)
	t.running = background(ctx, func(ctx context.Context) error {
		t.diagnose(ctx, target, file)
		return nil
	})
}

// diagnose runs stanch diagnose and says what came of it.
func (t *trigger) diagnose(ctx context.Context, target *proc.Target, file string) {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		t.say("not diagnosed: %v", err)
		return
	}
	// Interrupted, not killed: the probe must be taken out first.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "diagnose", "--quiet", "--for", t.long.String(), "-o", file, strconv.Itoa(target.ID.PID))
	cmd.Args[0] = os.Args[0]
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != ExitFound && exit.ExitCode() != ExitUndecided) {
		t.say("diagnose of pid %d: %v: %s", target.ID.PID, err, strings.TrimSpace(string(out)))
		return
	}
	t.say("diagnose of pid %d: %s; see: stanch report %s", target.ID.PID, firstFinding(file), file)
	t.clean()
}

// firstFinding is the title of what a report found first.
func firstFinding(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	r, err := render.ReadJSON(f)
	switch {
	case err != nil:
		return err.Error()
	case len(r.Findings) == 0:
		return "nothing found"
	}
	return fmt.Sprintf("%s: %s", r.Findings[0].Severity, r.Findings[0].Title)
}

// clean removes the oldest reports above the number that is kept.
func (t *trigger) clean() {
	files, _ := filepath.Glob(filepath.Join(t.dir, "*.json")) // the pattern is well-formed
	if len(files) <= keptReports {
		return
	}
	when := func(name string) string { return name[max(0, len(name)-len("20060102T150405Z.json")):] }
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(when(a), when(b)) })
	for _, f := range files[:len(files)-keptReports] {
		if err := os.Remove(f); err != nil {
			t.say("%v", err)
		}
	}
}

// end waits for a diagnosis that runs; it is interrupted, and takes its probe
// out.
func (t *trigger) end() error {
	if t == nil || t.running == nil {
		return nil
	}
	return t.running.end()
}

var unsafeName = regexp.MustCompile(`[^A-Za-z0-9._@-]+`)

// fileName makes a part of a file's name of a service.
func fileName(service string) string {
	name := strings.Trim(unsafeName.ReplaceAllString(service, "_"), "._")
	return name[:min(len(name), 60)]
}
