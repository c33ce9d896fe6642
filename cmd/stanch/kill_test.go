package main

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stanch/internal/fixture"
)

// victims is how many targets are worked on at a time: most of the time
// stanch waits.
const victims = 4

// TestKilledAtSteps kills stanch after one effect on the target: each kind of
// effect that a whole run has, the first, a middle and the last of it. The
// target must go on and check out, and a second stanch must clean it. Package
// ptrace does the same for every single step of a snapshot.
func TestKilledAtSteps(t *testing.T) {
	privileged(t)
	exe := build(t, "faults")
	var points []killPoint
	counted := fixture.Start(t, fixture.Build(t, "harm"))
	for _, c := range []struct {
		command []string
		each    []float64 // which steps of each kind, from the first to the last
	}{
		{[]string{"scan", roomy}, []float64{0.5}}, // diagnose begins with the same
		{[]string{"diagnose", roomy, "--for", "2s"}, []float64{0, 0.5, 1}},
	} {
		o := beginAs(t, faulty(exe, "STANCH_STEPS=1"), append(c.command, pid(counted))...).wait()
		o.wantCode(t, 0, 3)
		points = append(points, choose(t, c.command, o.err, c.each)...)
	}
	counted.Ask("check", "ok")
	counted.Quit()

	// Late deaths take longest: all workers get some of each.
	queue := make(chan killPoint, len(points))
	for _, p := range points {
		queue <- p
	}
	close(queue)
	var mu sync.Mutex
	died := map[string]int{}
	t.Run("targets", func(t *testing.T) {
		for i := range victims {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				v := newVictim(t)
				for p := range queue {
					o := beginAs(t, faulty(exe, "STANCH_STEPS=1", fmt.Sprintf("%s=%d", p.source.env, p.n)), append(p.command, v.pid)...).wait()
					name := p.String() + " (ended before)"
					if o.code < 0 {
						// Steps are not the same each time: signals come in between.
						name = p.source.prefix + lastStep(o.err, p.source)
					} else {
						o.wantCode(t, 0, 3) // fewer steps than the first time
					}
					v.examine(p.String()+": "+name, o)
					mu.Lock()
					died[name]++
					mu.Unlock()
					if t.Failed() {
						return
					}
				}
			})
		}
	})
	for _, name := range slices.Sorted(maps.Keys(died)) {
		t.Logf("%3d x %s", died[name], name)
	}
}

// TestKilledAtRandom kills stanch 30 times at random moments.
func TestKilledAtRandom(t *testing.T) {
	privileged(t)
	const kills = 30
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("STANCH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("STANCH_SEED=%d", seed)
	for i := range victims {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			v := newVictim(t)
			for n := i; n < kills && !t.Failed(); n += victims {
				// One third of the deaths is spread over all of it, the others
				// come early, where most happens at once.
				after := time.Duration(random.Int64N(int64(4 * time.Second)))
				if n%3 != 0 {
					after /= 16
				}
				s := begin(t, "diagnose", roomy, "--for", "2s", v.pid)
				select {
				case <-time.After(after):
				case <-s.done:
				}
				o := s.kill()
				v.examine(fmt.Sprintf("killed after %v", after), o)
			}
		})
	}
}

// TestScanAfterDeath: a stanch that was killed while its probe recorded lost
// blocks has left their addresses in the target. A second one must neither take
// them for pointers nor leave them there.
func TestScanAfterDeath(t *testing.T) {
	privileged(t)
	t.Parallel()
	for _, second := range [][]string{{"scan", roomy}, {"diagnose", roomy, "--for", "2s"}, {"diagnose", roomy, "--for", "2s", "--no-probe"}} {
		p := fixture.Start(t, fixture.Build(t, "direct"))
		p.Ask("leak 40", "ok")
		before := look(t, p.PID())
		s := begin(t, "diagnose", roomy, "--for", "1m", pid(p))
		s.await("watching")
		p.Ask("leak 40", "ok") // recorded, one by one
		s.kill()
		o := patiently(t, append(second, "--format", "json", pid(p))...)
		o.wantCode(t, 3)
		if sum := sumLeaks(o.report(t)); sum.count < 79 || sum.count > 80 {
			t.Errorf("%v after a killed stanch: %d blocks are called leaked, 80 are:\n%s", second, sum.count, o.out)
		}
		if o := patiently(t, "detach", pid(p)); o.code != 0 || !strings.Contains(o.out, "nothing was left behind") {
			t.Errorf("detach after %v: exit code %d %s%s", second, o.code, o.out, o.err)
		}
		untouched(t, p.PID(), before)
		p.Quit()
	}
}

// victim is a target that stanch dies on, again and again.
type victim struct {
	t      *testing.T
	p      *fixture.Proc
	pid    string
	before traces
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{t: t}
	v.start()
	return v
}

func (v *victim) start() {
	v.t.Helper()
	v.p = fixture.Start(v.t, fixture.Build(v.t, "harm"))
	v.pid = pid(v.p)
	v.p.Ask("load off", "ok")
	v.before = settled(v.t, v.p.PID())
	v.p.Ask("load low", "ok")
}

// check asks the target whether it checks out. A stanch that dies after it told
// a thread to stop, and before it could put that right, leaves what every
// SIGSTOP and SIGCONT leaves: calls that signal(7) lists under "Interruption of
// system calls and library functions by stop signals" return EINTR. No tracer
// can prevent that, so it is taken note of; the target, which would tell of it
// for ever, is replaced by a new one at the end.
func (v *victim) check() (interrupted bool) {
	v.t.Helper()
	answer := v.p.Ask("check", "")
	if strings.HasPrefix(answer, "ok") {
		return false
	}
	_, parts, _ := strings.Cut(answer, "|")
	for part := range strings.SplitSeq(parts, "|") {
		// Some calls (io_getevents, semtimedop) end early instead, when what
		// interrupted them is gone by the time they look (fs/aio.c, ipc/sem.c).
		early := strings.Contains(part, ": ended after ")
		if !early && !strings.HasSuffix(strings.TrimSpace(part), "(errno 4 Interrupted system call)") {
			v.t.Fatalf("the target: %s", answer)
		}
	}
	v.t.Log(answer)
	return true
}

// examine looks after the target once a stanch was killed: it runs and checks
// out, is cleaned, can be scanned, and is as it was before.
func (v *victim) examine(how string, killed outcome) {
	v.t.Helper()
	defer func() {
		if v.t.Failed() {
			v.t.Logf("%s; the killed stanch had said:\n%s%s", how, tail(killed.err), killed.out)
		}
	}()
	interrupted := v.check()
	patiently(v.t, "detach", v.pid).wantCode(v.t, 0)
	patiently(v.t, "scan", roomy, v.pid).wantCode(v.t, 0, 3)
	v.p.Ask("load off", "")
	if !interrupted {
		untouched(v.t, v.p.PID(), v.before)
		v.p.Ask("load low", "ok")
		v.p.Ask("check", "ok")
		return
	}
	// Its stories have gone another way since: descriptors may differ.
	sameCode(v.t, v.p.PID(), v.before, look(v.t, v.p.PID()))
	v.t.Logf("%s: calls were interrupted, as by SIGSTOP", how)
	v.p.Kill()
	v.start()
}

// tail is the end of a long text.
func tail(s string) string {
	const most = 2000
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}

func pid(p *fixture.Proc) string { return strconv.Itoa(p.PID()) }

// faulty makes a session run the binary with fault points.
func faulty(exe string, env ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Path, c.Env = exe, append(os.Environ(), env...)
	}
}

// stepSource is one of the packages whose effects are numbered in a build with
// the tag faults.
type stepSource struct{ prefix, env string }

var stepSources = []stepSource{{"", "STANCH_DIE_AT"}, {"probe ", "STANCH_PROBE_DIE_AT"}}

// killPoint is one effect on the target after which stanch dies.
type killPoint struct {
	command []string
	source  stepSource
	n       int
}

func (p killPoint) String() string {
	return fmt.Sprintf("%s killed at %sstep %d", p.command[0], p.source.prefix, p.n)
}

var stepLine = regexp.MustCompile(`(?m)^(probe )?step (\d+) (.*)$`)

// choose reads what a run with STANCH_STEPS=1 wrote and picks steps of each
// name.
func choose(t *testing.T, command []string, stderr string, each []float64) []killPoint {
	t.Helper()
	var points []killPoint
	for _, source := range stepSources {
		steps := map[string][]int{}
		for _, m := range stepLine.FindAllStringSubmatch(stderr, -1) {
			if m[1] == source.prefix {
				n, err := strconv.Atoi(m[2])
				if err != nil {
					t.Fatal(err)
				}
				steps[m[3]] = append(steps[m[3]], n)
			}
		}
		total := 0
		for _, name := range slices.Sorted(maps.Keys(steps)) {
			list := steps[name]
			total += len(list)
			var chosen []int
			for _, part := range each {
				chosen = append(chosen, list[int(part*float64(len(list)-1))])
			}
			for _, n := range slices.Compact(chosen) {
				points = append(points, killPoint{command, source, n})
			}
		}
		if total == 0 && source.prefix == "" {
			t.Fatalf("stanch %s wrote no steps:\n%s", command[0], tail(stderr))
		}
		t.Logf("%s: %d %ssteps of %d kinds", command[0], total, source.prefix, len(steps))
	}
	slices.SortStableFunc(points, func(a, b killPoint) int { return cmp.Compare(a.n, b.n) })
	return points
}

// lastStep is the name of the step at which a killed stanch died.
func lastStep(stderr string, source stepSource) string {
	last := "none"
	for _, m := range stepLine.FindAllStringSubmatch(stderr, -1) {
		if m[1] == source.prefix {
			last = m[3]
		}
	}
	return strings.TrimSpace(last)
}
