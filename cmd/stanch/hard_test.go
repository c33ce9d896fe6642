package main

import (
	"os/exec"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/proc"
)

// TestSandboxes: targets that a service manager has confined are done as far
// as their rules surely allow, or refused; a filter never kills one for what
// stanch called inside of it.
func TestSandboxes(t *testing.T) {
	privileged(t)
	exe := compile(t, "hardened.c")
	for _, c := range []struct {
		mode    string
		leaks   bool // a scan must find what was lost
		placed  bool // a probe must have been placed
		refusal string
	}{
		{mode: "service", leaks: true, placed: true},
		{mode: "errno", leaks: true, placed: true},
		{mode: "mdwe", leaks: true, placed: true},
		// No clone, no wait4, no signal mask: the heap is read while it stands still.
		{mode: "narrow", leaks: true},
		{mode: "quiet", leaks: true},
		{mode: "strict", refusal: "strict seccomp mode"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			if c.mode == "mdwe" {
				if out, err := exec.Command(exe, c.mode).CombinedOutput(); err != nil || strings.Contains(string(out), "unsupported") {
					t.Skipf("this kernel has no PR_SET_MDWE (Linux 6.3): %s", out)
				}
			}
			p := fixture.Start(t, exe, c.mode)
			p.Ask("leak 40", "ok")
			before := look(t, p.PID())
			for _, command := range [][]string{{"scan"}, {"diagnose", "--for", "3s"}} {
				o := stanch(t, append(command, roomy, "--format", "json", pid(p))...)
				t.Logf("%s %s: exit code %d %s", command[0], c.mode, o.code, complaint(o))
				p.Ask("check", "ok") // first of all
				if c.refusal != "" {
					o.wantLine(t, 1, c.refusal)
					continue
				}
				if c.leaks {
					o.wantCode(t, 3)
					if s := sumLeaks(o.report(t)); s.count < 39 || s.count > 40 {
						t.Errorf("%d blocks are called leaked, 40 are:\n%s", s.count, o.out)
					}
				}
				r := o.report(t)
				if command[0] == "diagnose" && c.placed && (r.Observed.ProbeRemoved == nil || !*r.Observed.ProbeRemoved) {
					t.Errorf("no probe was placed and removed; notes: %q", r.Notes)
				}
				for _, n := range r.Notes {
					t.Log(n)
				}
			}
			stanch(t, "detach", pid(p)).wantCode(t, 0, 1)
			p.Ask("check", "ok")
			untouched(t, p.PID(), before)
			p.Quit()
		})
	}
}

// TestFullMemory: targets close to the limit of their memory cgroup that write
// to all of their memory all the time. A snapshot's copies are charged to them:
// stanch refuses, reads them while they stand still, or gives the snapshot up
// in time. The kernel never kills the target.
func TestFullMemory(t *testing.T) {
	privileged(t)
	for _, c := range []struct {
		name    string
		percent uint64
	}{{"90", 90}, {"97", 97}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newCgroup(t, "memory")
			p := fixture.StartCmd(t, g.command(compile(t, "filler.c"), "160", "3"))
			p.Ask("leak 40", "ok")
			used := g.used(t, "memory")
			g.limit(t, "memory", used*100/c.percent)
			before := look(t, p.PID())
			for _, command := range [][]string{
				{"scan"}, {"diagnose", "--for", "3s"}, {"scan", "--max-pause", "2s"}, {"diagnose", "--for", "2s", "--max-pause", "2s"},
			} {
				o := stanch(t, append(command, pid(p))...)
				t.Logf("%v at %d of %d MiB: exit code %d %s; killed by the kernel: %s", command, g.used(t, "memory")>>20,
					used*100/c.percent>>20, o.code, complaint(o), g.oomKills(t))
				o.wantCode(t, 0, 1, 3, 4)
				if o.code == 1 {
					o.wantLine(t, 1)
				}
				if !p.Alive() {
					t.Fatalf("the target is gone:\n%s%s", o.err, o.out)
				}
				p.Ask("check", "ok")
			}
			untouched(t, p.PID(), before)
			if n := g.oomKills(t); n != "0" {
				t.Errorf("the kernel killed %s processes in the group", n)
			}
			p.Quit()
		})
	}
}

// TestNoHeadroom: where a snapshot does not fit and a stopped read would take
// longer than allowed, the one line says so.
func TestNoHeadroom(t *testing.T) {
	privileged(t)
	t.Parallel()
	g := newCgroup(t, "memory")
	p := fixture.StartCmd(t, g.command(compile(t, "filler.c"), "300", "1"))
	g.limit(t, "memory", g.used(t, "memory")+(3<<20))
	before := look(t, p.PID())
	for _, command := range [][]string{{"scan"}, {"diagnose", "--for", "2s"}} {
		o := stanch(t, append(command, "--max-pause", "80ms", pid(p))...)
		for try := 1; !strings.Contains(o.err, "MiB") && try < 10; try++ {
			o.wantLine(t, 1, "--max-pause") // the machine is so busy that the stop alone took too long
			o = stanch(t, append(command, "--max-pause", "80ms", pid(p))...)
		}
		o.wantLine(t, 1, "MiB", "--max-pause")
	}
	p.Ask("check", "ok")
	untouched(t, p.PID(), before)
	o := stanch(t, "scan", "--dry-run", "--max-pause", "80ms", pid(p))
	if !strings.Contains(o.out, "No snapshot by fork") {
		t.Errorf("--dry-run does not say it: exit code %d\n%s%s", o.code, o.out, o.err)
	}
	p.Quit()
}

// TestFullOfThreads: a target at its pids.max cannot fork; it is read while it
// stands still, or refused.
func TestFullOfThreads(t *testing.T) {
	privileged(t)
	t.Parallel()
	g := newCgroup(t, "pids")
	p := fixture.StartCmd(t, g.command(compile(t, "filler.c"), "8", "20"))
	p.Ask("leak 40", "ok")
	target, err := proc.Default.Open(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	tids, err := target.Threads()
	if err != nil {
		t.Fatal(err)
	}
	before := look(t, p.PID())
	for _, room := range []uint64{0, 1, 4} {
		g.limit(t, "pids", uint64(len(tids))+room)
		for _, command := range [][]string{{"scan", roomy}, {"diagnose", roomy, "--for", "2s"}} {
			o := stanch(t, append(command, pid(p))...)
			t.Logf("%v with room for %d threads: exit code %d %s", command, room, o.code, complaint(o))
			o.wantCode(t, 1, 3)
			if o.code == 1 {
				o.wantLine(t, 1, "pids.max")
			}
			p.Ask("check", "ok")
		}
	}
	untouched(t, p.PID(), before)
	p.Quit()
}

// TestNoRightToEnd looks at a process of another user without CAP_KILL: a
// snapshot of it could never be ended, so it is read while it stands.
func TestNoRightToEnd(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, "/usr/bin/setpriv", "--reuid=65534", "--clear-groups", fixture.Build(t, "direct"))
	p.Ask("leak 50", "ok")
	without := func(c *exec.Cmd) {
		c.Args = append([]string{"setpriv", "--bounding-set=-kill", "--inh-caps=-kill", c.Path}, c.Args[1:]...)
		c.Path = "/usr/bin/setpriv"
	}
	o := beginAs(t, without, "scan", "--dry-run", roomy, pid(p)).wait()
	o.wantCode(t, 0)
	if !strings.Contains(o.out, "CAP_KILL") {
		t.Errorf("the preview does not name the right that is missing:\n%s", o.out)
	}
	o = beginAs(t, without, "scan", "--format", "json", roomy, pid(p)).wait()
	o.wantCode(t, 3)
	if len(o.report(t).Findings) == 0 {
		t.Error("nothing is found")
	}
	p.Ask("leak 1", "ok")
}
