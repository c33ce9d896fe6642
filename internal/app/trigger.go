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
	"stanch/internal/source/sampler"
)

// trigger starts a diagnosis of a process whose verdict says that it grows: one
// at a time, and one of each process within an interval, whichever watch began
// it. A process that stanch would refuse to touch is left alone. The diagnosis
// runs in a stanch of its own, so that whatever happens to it the watch goes on.
type trigger struct {
	dir   string        // where the reports are kept
	every time.Duration // between two diagnoses of one process
	long  time.Duration // how long one watches
	exe   string        // what is run as stanch
	say   func(format string, args ...any)

	last    map[leak.ProcID]time.Time
	running *task
}

// keptReports is how many reports are kept; the oldest go.
const keptReports = 100

// pull starts a diagnosis of a process unless one runs or was made lately. It
// is interrupted when ctx ends; end waits for it.
func (t *trigger) pull(ctx context.Context, p sampler.Process, now time.Time) {
	if t.running != nil {
		select {
		case <-t.running.done:
			t.running = nil
		default:
			return
		}
	}
	if p.ID.PID == os.Getpid() {
		return
	}
	target, err := proc.Default.Open(p.ID.PID)
	if err != nil || target.ID != p.ID {
		return // it has ended
	}
	if t.last == nil {
		t.last = t.begun()
	}
	for id, at := range t.last {
		if age := now.Sub(at); age < 0 || age >= t.every { // below zero: the clock was set back
			delete(t.last, id)
			_ = os.Remove(t.marker(id)) // of one that was refused there is none
		}
	}
	if _, lately := t.last[target.ID]; lately {
		return
	}
	t.last[target.ID] = now
	plan, err := ptrace.Preflight(target, ptrace.Options{})
	if err == nil && len(plan.Refusals) > 0 {
		err = errors.New(strings.Join(plan.Refusals, "; "))
	}
	if err == nil {
		err = t.mark(target.ID)
	}
	if err != nil {
		t.say("%s is not diagnosed: %v", nameOf(target), err)
		return
	}
	file := filepath.Join(t.dir, fmt.Sprintf("%s-%d-%s.json", fileName(p.Service), p.ID.PID, now.UTC().Format("20060102T150405Z")))
	t.say("diagnosing %s for %v, report in %s", nameOf(target), t.long, file)
	t.running = background(ctx, func(own context.Context) error {
		// A service manager or a terminal that ends the watch signals the
		// diagnosis too, and a signal that comes a second after another kills it
		// with its probe in place: so it hears from the watch at once, not when
		// its turn comes in close.
		own, cancel := context.WithCancel(own)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		t.diagnose(own, target, file)
		return nil
	})
}

// markerName is the beginning of the name of an empty file that says by its
// age when a diagnosis of a process was begun: a watch that is started anew, by
// what a diagnosis led to perhaps, must not begin it again.
const markerName = ".begun-"

func (t *trigger) marker(id leak.ProcID) string {
	return filepath.Join(t.dir, fmt.Sprintf("%s%d-%d", markerName, id.PID, id.Start))
}

// mark notes that a diagnosis begins now.
func (t *trigger) mark(id leak.ProcID) error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(t.marker(id), nil, 0o600)
}

// begun is what the marks tell.
func (t *trigger) begun() map[leak.ProcID]time.Time {
	last := map[leak.ProcID]time.Time{}
	for _, f := range t.files() {
		var id leak.ProcID
		if n, _ := fmt.Sscanf(f.Name(), markerName+"%d-%d", &id.PID, &id.Start); n != 2 {
			continue
		}
		if info, err := f.Info(); err == nil {
			last[id] = info.ModTime()
		}
	}
	return last
}

// files are those in the directory of the reports; none when it is not there.
func (t *trigger) files() []os.DirEntry {
	files, _ := os.ReadDir(t.dir)
	return files
}

// endsWithin is how long a diagnosis that is interrupted may take for its last
// looks and to take its probe out: more than a minute for 600 MB on a host with
// ten times as much to do as it has processors (measured). Who kills it before
// leaves the probe in the target.
const endsWithin = 3 * time.Minute

// diagnose runs stanch diagnose and says what came of it.
func (t *trigger) diagnose(ctx context.Context, target *proc.Target, file string) {
	// Interrupted, not killed: the probe must be taken out first.
	cmd := exec.CommandContext(ctx, t.exe, "diagnose", "--quiet", "--for", t.long.String(), "-o", file, strconv.Itoa(target.ID.PID))
	cmd.Args[0] = os.Args[0]
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endsWithin
	out, err := cmd.CombinedOutput()
	said := strings.TrimSpace(string(out))
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() < 0: // by a signal
		t.say("diagnose of pid %[1]d was killed (%[2]v), and may have left its probe in it; take that out with: stanch detach %[1]d; %[3]s", target.ID.PID, err, said)
		return
	case err != nil && (exit == nil || exit.ExitCode() != ExitFound && exit.ExitCode() != ExitUndecided):
		t.say("diagnose of pid %d: %v: %s", target.ID.PID, err, said)
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
	files := slices.DeleteFunc(t.files(), func(f os.DirEntry) bool { return filepath.Ext(f.Name()) != ".json" })
	if len(files) <= keptReports {
		return
	}
	when := func(f os.DirEntry) string {
		name := f.Name()
		return name[max(0, len(name)-len("20060102T150405Z.json")):]
	}
	slices.SortFunc(files, func(a, b os.DirEntry) int { return strings.Compare(when(a), when(b)) })
	for _, f := range files[:len(files)-keptReports] {
		if err := os.Remove(filepath.Join(t.dir, f.Name())); err != nil {
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
