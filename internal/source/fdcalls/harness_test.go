package fdcalls

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/symbol"
)

const patience = 60 * time.Second

// books is a sink that keeps what is open.
type books struct {
	leak.Ignore
	mu       sync.Mutex
	maps     map[leak.MapID]leak.Mapping
	stacks   map[leak.StackID][]leak.Frame
	open     map[leak.Ref]leak.Acquire
	acquired map[string]int // by call
	released map[string]int
	failed   []leak.Failure
	odd      []string
}

func (b *books) Map(m leak.Mapping) { b.maps[m.ID] = m }

func (b *books) Stack(id leak.StackID, f []leak.Frame) { b.stacks[id] = f }

func (b *books) Acquire(a leak.Acquire) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, open := b.open[a.Ref]; open && (old.At != a.At || old.Stack != a.Stack) {
		b.odd = append(b.odd, fmt.Sprintf("%v is open already: %+v, then %+v", a.Ref, old, a))
	}
	b.open[a.Ref] = a
	b.acquired[a.Call]++
}

func (b *books) Release(r leak.Release) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, open := b.open[r.Ref]; !open {
		b.odd = append(b.odd, fmt.Sprintf("%v was not open: %+v", r.Ref, r))
	}
	delete(b.open, r.Ref)
	b.released[r.Call]++
}

func (b *books) Failure(f leak.Failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = append(b.failed, f)
}

// of lists what the books have of a process.
func (b *books) of(id leak.ProcID) map[int]leak.Acquire {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := map[int]leak.Acquire{}
	for ref, a := range b.open {
		if ref.Proc == id {
			open[int(ref.ID)] = a
		}
	}
	return open
}

// session is a program under a Tracer.
type session struct {
	t      *testing.T
	books  *books
	tracer *Tracer
	family *ptrace.Family
	in     *os.File
	out    *bufio.Scanner
	over   chan syscall.WaitStatus
	races  int // how many descriptors may go unseen
	names  *symbol.Symbolizer

	mu   sync.Mutex
	last map[int]map[int]leak.Acquire // by process: what was open at its exit
}

// run starts a program. Its books are held against /proc/PID/fd when it ends.
func run(t *testing.T, exe string, args ...string) *session {
	t.Helper()
	b := &books{
		maps: map[leak.MapID]leak.Mapping{}, stacks: map[leak.StackID][]leak.Frame{}, open: map[leak.Ref]leak.Acquire{},
		acquired: map[string]int{}, released: map[string]int{},
	}
	s := &session{t: t, books: b, over: make(chan syscall.WaitStatus, 1), last: map[int]map[int]leak.Acquire{}, names: symbol.New(symbol.Options{})}
	if slices.Contains(args, "races") {
		s.races = 10
	}
	root := leak.NewAtlas(b, nil)
	s.tracer = New(Options{Clock: proc.NewClock(), Sink: b, Atlas: func(*proc.Target) *leak.Atlas { return root.Beside(nil) }})
	childIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewScanner(out)
	s.family, err = ptrace.Launch(ptrace.Command{
		Path: exe, Args: append([]string{exe}, args...), Env: os.Environ(),
		Files: []*os.File{childIn, childOut, os.Stderr}, Watch: s.tracer.Watch(),
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = childIn.Close()
	_ = childOut.Close()
	t.Cleanup(func() {
		s.family.Close()
		_ = in.Close()
		_ = out.Close()
		_ = s.names.Close()
	})
	go s.follow()
	return s
}

// follow lets each process go on at each moment.
func (s *session) follow() {
	var status syscall.WaitStatus
	for e := range s.family.Events() {
		switch e.Moment {
		case ptrace.Ready:
			s.tracer.Begin(e.Target)
			_ = s.family.Resume(e.Target) // it can only have been killed
		case ptrace.Exiting:
			s.check(e.Target)
			_ = s.family.Resume(e.Target)
		case ptrace.Replaced:
		case ptrace.Ended:
			if e.Target.ID.PID == s.family.PID() {
				status = e.Status
			}
		default:
			_ = s.family.Resume(e.Target)
		}
	}
	s.over <- status
}

// check holds the books of a process that stands still against the kernel.
func (s *session) check(target *proc.Target) {
	open, err := numbers(target)
	if err != nil {
		return // it was killed
	}
	if s.races > 0 {
		s.settle(target)
	}
	held := s.books.of(target.ID)
	if got, want := slices.Sorted(maps.Keys(held)), slices.Sorted(maps.Keys(open)); !slices.Equal(got, want) {
		s.t.Errorf("process %d: books have %v open, the kernel %v", target.ID.PID, got, want)
	}
	s.settle(target)
	s.mu.Lock()
	s.last[target.ID.PID] = held
	s.mu.Unlock()
}

func (s *session) settle(target *proc.Target) {
	if err := s.tracer.Settle(target); err != nil {
		s.t.Error(err)
	}
}

// wait waits for the end of all, which must be a good one.
func (s *session) wait() {
	s.t.Helper()
	select {
	case status := <-s.over:
		if !status.Exited() || status.ExitStatus() != 0 {
			s.t.Errorf("the program ended with %#x", status)
		}
	case <-time.After(patience):
		s.t.Fatal("the program does not end")
	}
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	for i, odd := range s.books.odd {
		if i < 10 {
			s.t.Error(odd)
		}
	}
	// A close that races a dup2 onto its number may be seen to go too early.
	if went := s.books.released[""]; s.books.acquired[""] > 0 || went > s.races {
		s.t.Errorf("%d came and %d went unseen", s.books.acquired[""], went)
	}
}

func (s *session) say(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

// line waits for the next line of the program.
func (s *session) line() string {
	s.t.Helper()
	got := make(chan bool, 1)
	go func() { got <- s.out.Scan() }()
	select {
	case ok := <-got:
		if !ok {
			s.t.Fatalf("the program says no more: %v", s.out.Err())
		}
	case <-time.After(patience):
		s.t.Fatal("the program is silent")
	}
	return s.out.Text()
}

// functions names the frames of a stack, "function:line", innermost first.
func (s *session) functions(id leak.StackID) []string {
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	var names []string
	for _, f := range s.books.stacks[id] {
		for _, n := range s.names.Frames(s.books.maps[f.Map], f) {
			names = append(names, fmt.Sprintf("%s:%d", n.Function, n.Line))
		}
	}
	return names
}

// inStack reports whether a function is in a stack.
func (s *session) inStack(id leak.StackID, function string) bool {
	return slices.ContainsFunc(s.functions(id), func(name string) bool { return strings.HasPrefix(name, function+":") })
}

// compile builds a program of testdata.
func compile(t testing.TB, name string, flags ...string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), name)
	args := append([]string{"-O2", "-g", "-fomit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-o", exe, "testdata/" + name + ".c"}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", name, err, out)
	}
	return exe
}

// spawnsWord makes this test binary a Go program that starts others from
// several threads at once.
const spawnsWord = "stanch-fdcalls-spawns"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == spawnsWord {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 10 {
					if _, err := exec.Command("/bin/echo", "x").Output(); err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
				}
			})
		}
		all.Wait()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// opener is what the books say of a number of a living process.
func (s *session) opener(pid, num int) (leak.Acquire, []string) {
	s.books.mu.Lock()
	var found leak.Acquire
	for ref, a := range s.books.open {
		if ref.Proc.PID == pid && ref.ID == uint64(num) {
			found = a
		}
	}
	s.books.mu.Unlock()
	return found, s.functions(found.Stack)
}
