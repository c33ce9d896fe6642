package descriptors

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// The test binary is also the programs that are looked at, and stanch with
// fewer rights; the variable says which.
const roleVariable = "DESCRIPTORS_TEST_ROLE"

var roles = map[string]func(args []string){"network": network, "plain": plain, "many": many, "scan": scanAs}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		role(os.Args[1:])
		return
	}
	os.Exit(m.Run())
}

// must ends a role that cannot go on.
func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// ready tells the test what was made, and waits until it has looked.
func ready(facts any) {
	check(json.NewEncoder(os.Stdout).Encode(facts))
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // the end of input is the end
}

// play starts a role and decodes its facts. It ends with the test.
func play(t testing.TB, facts any, change func(*exec.Cmd), role string, args ...string) *proc.Target {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends with its input, and is waited for
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v: %s", role, err, stderr.String())
		}
	})
	if err := json.NewDecoder(out).Decode(facts); err != nil {
		t.Fatalf("%s: %v: %s", role, err, stderr.String())
	}
	target, err := proc.Default.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// many opens as many descriptors as it is told, as far as its limit allows: a
// third each of unix sockets, files and eventfds, or TCP connections.
func many(args []string) {
	want := must(strconv.Atoi(args[0]))
	var limit unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	most := max(limit.Max, uint64(want)+100)
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}) != nil {
		check(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit.Max, Max: limit.Max})) // it may not be raised here
		want = min(want, int(limit.Max)-100)
	}
	if args[1] == "tcp" {
		loopbackUp()
		keep := &holder{sockets: map[string]fact{}}
		made := 0
		for made < want {
			l := keep.listen("127.0.0.1:0") // one cannot have more connections than there are local ports
			made++
			for i := 0; i < 10_000 && made < want; i++ {
				keep.pair(l)
				made += 2
			}
		}
		ready(made)
		return
	}
	for i := range want {
		switch i % 3 {
		case 0:
			must(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		case 1:
			must(unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0))
		default:
			must(unix.Eventfd(0, 0))
		}
	}
	ready(want)
}

// report is what the scan role found.
type report struct {
	Error  string
	Denied bool
	Seen   *seen
}

// scanAs scans a process with the rights this process was started with.
func scanAs(args []string) {
	r := report{Seen: &seen{}}
	target := must(proc.Default.Open(must(strconv.Atoi(args[0]))))
	if err := (&Lister{Clock: proc.NewClock()}).Scan(context.Background(), target, r.Seen); err != nil {
		r.Error, r.Denied = err.Error(), errors.Is(err, proc.ErrDenied)
	}
	ready(r)
}

// seen keeps what was said.
type seen struct {
	leak.Ignore
	Lists  []leak.Listing
	Gone   []leak.Ownerless
	Usages []leak.Usage
	Gaps   []leak.Gap
}

func (s *seen) Listing(l leak.Listing) {
	l.Open = slices.Clone(l.Open)
	s.Lists = append(s.Lists, l)
}
func (s *seen) Ownerless(o leak.Ownerless) { s.Gone = append(s.Gone, o) }
func (s *seen) Usage(u leak.Usage)         { s.Usages = append(s.Usages, u) }
func (s *seen) Gap(g leak.Gap)             { s.Gaps = append(s.Gaps, g) }

// open is the last listing, by number.
func (s *seen) open() map[int]leak.Descriptor {
	list := map[int]leak.Descriptor{}
	if len(s.Lists) > 0 {
		for _, d := range s.Lists[len(s.Lists)-1].Open {
			list[d.Num] = d
		}
	}
	return list
}

// usage is the last one of a name, and of a scope when it is not "".
func (s *seen) usage(name leak.UsageName, scope string) leak.Usage {
	for _, u := range slices.Backward(s.Usages) {
		if u.Name == name && (scope == "" || u.Scope == scope) {
			u.At, u.Proc = 0, leak.ProcID{}
			return u
		}
	}
	return leak.Usage{}
}

// scan looks once.
func scan(t testing.TB, target *proc.Target) *seen {
	t.Helper()
	s := &seen{}
	if err := (&Lister{Clock: proc.NewClock()}).Scan(context.Background(), target, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// patience is how long until waits; nothing takes that long when all is well.
const patience = 30 * time.Second

// until asks again until wrong is "".
func until(t testing.TB, wrong func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		w := wrong()
		if w == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(w)
		}
	}
}
