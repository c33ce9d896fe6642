package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// step is a line for a program, said until an answer matches want.
type step struct{ say, want string }

// trial is a program of testdata/leaky, or of Debian, and what it is told to do
// both under stanch run and under valgrind.
type trial struct {
	program string
	debian  bool     // its numbers depend on the machine: the document has none
	flags   []string // of its build
	args    string   // "PLUGIN" stands for the library that dlopener loads
	steps   []step   // nil for programs that do what their arguments say
	own     []string // more options of valgrind
	alone   bool     // it starts processes of which nobody knows how many: only it itself is compared
	listed  bool     // it tells what it did with each block
	waits   bool     // it prints no "ready", and waits for SIGTERM in the end

	// Where the program's own list cannot be right about what is lost at the
	// exit, how many blocks it calls kept that are not.
	outdated blocks
	stale    string // why

	// Where valgrind must differ: why, and by how much at most.
	differs string
	moved   blocks   // blocks that stanch finds reachable and valgrind calls lost
	extra   leftover // what valgrind counts twice: in the parent and in the child
	varies  bool     // valgrind's numbers are not the same each time
	fails   string   // why valgrind cannot run it

	// What the C and C++ libraries give back at the exit at valgrind's request,
	// unless it is told not to ask.
	freed blocks
}

// blocks is a number of blocks and the bytes that were requested.
type blocks struct{ n, bytes uint64 }

func (b blocks) add(o blocks) blocks { return blocks{b.n + o.n, b.bytes + o.bytes} }

func (b blocks) within(o blocks) bool { return b.n <= o.n && b.bytes <= o.bytes }

// away is by how much b and o differ.
func (b blocks) away(o blocks) blocks {
	return blocks{max(b.n, o.n) - min(b.n, o.n), max(b.bytes, o.bytes) - min(b.bytes, o.bytes)}
}

func (b blocks) String() string {
	if b == (blocks{}) {
		return "0"
	}
	return fmt.Sprintf("%s (%s)", leak.FormatCount(b.n), leak.FormatCount(b.bytes))
}

// leftover is what a program had not freed at its exit. What valgrind calls
// possibly lost is reachable by a pointer into the middle of a block, and is
// counted as reachable, as stanch does.
type leftover struct {
	definite, indirect, reachable blocks
	possible                      blocks // the part of reachable that valgrind calls possibly lost
}

func (l leftover) total() blocks { return l.definite.add(l.indirect).add(l.reachable) }

func (l leftover) add(o leftover) leftover {
	return leftover{l.definite.add(o.definite), l.indirect.add(o.indirect), l.reachable.add(o.reachable), l.possible.add(o.possible)}
}

// usual is what the programs of the fixture protocol are told.
var usual = []step{{"keep 10", "ok"}, {"leak 24", "ok"}, {"free 4", "ok"}, {"keep 2", "ok"}}

// also is the usual and more lines.
func also(more ...string) []step {
	steps := slices.Clone(usual)
	for _, say := range more {
		steps = append(steps, step{say, "ok"})
	}
	return steps
}

const (
	byKernel = "The only pointers to the kept blocks are in the kernel (epoll, timers), where stanch looks and valgrind cannot. " +
		"Valgrind calls those blocks lost; stanch's numbers are the program's own."
	byTag = "The only pointers to the kept blocks bear type bits or flags, which stanch takes off and valgrind takes for a part of the address. " +
		"Valgrind calls some of those blocks lost; stanch's numbers are the program's own."
	possibly = "So many of the reachable blocks are \"possibly lost\" to valgrind: pointers lead to their middle only. Stanch counts such pointers, for they are common: " +
		"C++ objects known by their second base class, members of lists, and the thread tables (288 bytes or less) that the C library allocates for each thread."
	isStatic = "Valgrind cannot replace the allocator of a static program; its numbers are those of the dynamic one. " +
		"The additional reachable blocks are what a static C library allocates before main (`_dl_non_dynamic_init`)."
	cannotThrow = "Not compared: valgrind ends the program at the first `operator new` that fails (\"should throw an exception, but Valgrind cannot throw exceptions\"). " +
		"Stanch's numbers are those of the program's own list."
	ofDebian  = "A program of Debian. Its numbers are not the same on each machine and are not given; they are equal, to the byte. Python3 runs with PYTHONMALLOC=malloc."
	inherited = "A forked child has a copy of all that its parent held. Valgrind counts that in both; stanch counts it once, in the parent which allocated it."
)

// trials are all programs of testdata/leaky that are compared.
var trials = []trial{
	{program: "direct", steps: usual, listed: true},
	{program: "direct", flags: []string{"-DCLEAN"}, steps: usual, listed: true},
	{program: "direct", flags: []string{"-static"}, steps: usual, listed: true},
	{program: "lists", steps: usual, listed: true},
	{program: "lists", flags: []string{"-DCLEAN"}, steps: usual, listed: true},
	{program: "lists", flags: []string{"-static"}, steps: usual, listed: true},
	{program: "cycles", steps: usual, listed: true},
	{program: "mmapped", steps: usual, listed: true},
	{program: "memalign", steps: usual, listed: true},
	{program: "realloc", steps: usual, listed: true},
	{program: "realloc", flags: []string{"-DCLEAN"}, steps: usual, listed: true},
	{program: "freed", steps: []step{{"keep 10", "ok"}, {"leak 2", "ok"}, {"free 4", "ok"}}, listed: true},
	{program: "freed", flags: []string{"-DCLEAN"}, steps: []step{{"keep 10", "ok"}, {"leak 2", "ok"}, {"free 4", "ok"}}, listed: true},
	{program: "threads", steps: also("ended 3"), listed: true, freed: blocks{1, 288}},
	{program: "threads", flags: []string{"-static"}, steps: also("ended 3"), listed: true},
	{program: "objects", steps: usual, listed: true, freed: blocks{1, 72704}},
	{program: "objects", flags: []string{"-DCLEAN"}, steps: usual, listed: true},
	{program: "objects", flags: []string{"-static"}, steps: usual, listed: true},
	{program: "interior", steps: usual, listed: true},
	{program: "pool", steps: usual, listed: true},
	{program: "coroutine", steps: usual, listed: true, own: []string{"--max-stackframe=2000"}, freed: blocks{1, 288}},
	{program: "dlopener", args: "PLUGIN", steps: also("cycle 3", "leak 5"), listed: true, freed: blocks{3, 4664}},
	{program: "dlopener", flags: []string{"-DCLEAN"}, args: "PLUGIN", steps: also("cycle 3", "leak 5"), listed: true},
	{
		program: "sighandler", steps: append(also(), step{"check", "[1-9][0-9]* jumps"}), listed: true, own: []string{"--max-stackframe=2000"}, freed: blocks{1, 272},
		outdated: blocks{1, 65536}, stale: "Both also count a signal stack of 65,536 bytes, which the program's list calls kept: the thread that used it has ended by the exit.",
	},
	{program: "forker", steps: usual, listed: true, alone: true, freed: blocks{2, 544}},
	{program: "aiopending", steps: also("done 2"), listed: true},
	{
		program: "iouring", steps: usual, listed: true,
		outdated: blocks{8, 1088}, stale: "The 8 blocks that the program keeps are known to the kernel alone, as requests of an io_uring, which it does not tell: " +
			"both count them as lost. Stanch knows that such requests may be pending, and says its findings as notes only.",
	},
	{program: "timers", steps: usual, listed: true, differs: byKernel, moved: blocks{8, 704}},
	{program: "epollserver", steps: usual, listed: true, differs: byKernel, moved: blocks{16, 4352}, varies: true},
	{program: "tagged", steps: usual, listed: true, differs: byTag, moved: blocks{8, 640}},
	{program: "exceptions", steps: usual, listed: true, fails: cannotThrow},
	{program: "exceptions", flags: []string{"-DCLEAN"}, steps: usual, listed: true, fails: cannotThrow},
	{program: "versions", waits: true, listed: true},
	{program: "blocks", args: "-n 500 -s 100 -t 2 -l", steps: []step{}, listed: true, freed: blocks{2, 544}},
	{program: "heartbeat", args: "-t 2", steps: []step{}, listed: true},
	{program: "collector", args: "-s -r 1 -w 0 -o 300", steps: []step{{"count", "cached=1 "}, {"pause", "ok"}}, freed: blocks{1, 272}},
	{program: "ending", flags: []string{"-fno-builtin"}, args: "keep lose lose free map"},
	{program: "ending", flags: []string{"-fno-builtin"}, args: "lose start start keep"},
	{program: "runme", args: "say hello lose 7 24 chain 9 64 keep 3 64", freed: blocks{1, 4096}},
	{program: "runme", flags: []string{"-static"}, args: "say hello lose 7 24 chain 9 64 keep 3 64"},
	{program: "runme", flags: []string{"-DCONSTRUCTOR"}, args: "keep 5 40 chain 4 10 chain 2 1000"},
	{program: "runme", args: "lose 3 100 keep 1 5000 quick 6"},
	{program: "runme", args: "chain 6 100 abort"},
	{program: "runme", args: "keep 2 300 lose 2 100 kill 15"},
	{program: "runme", args: "thread lose 5 40 keep 2 40", freed: blocks{1, 272}},
	{program: "runme", args: "thread chain 5 40 exit 0"},
	{program: "runme", args: "fork fork lose 5 40 chain 3 16 exit 4"},
	{program: "runme", args: "lose 2 100 keep 3 50 fork lose 5 40", differs: inherited, extra: leftover{definite: blocks{2, 200}, reachable: blocks{3, 150}}},
	{program: "runme", args: "daemon sleep 50 lose 5 40"},
	{program: "runme", args: "daemon daemon daemon lose 5 40"},
	{program: "runme", args: "closeall undumpable usr1 lose 5 40 unmapped 100000"},
	{program: "ls", debian: true, args: "-lR /etc/default"},
	{program: "sort", debian: true, args: "/etc/services /etc/protocols /etc/passwd"},
	{program: "python3", debian: true, args: "-I -c __import__('json').dumps([1,{2:3}])"},
}

// uncompared are the other programs, with the reason.
var uncompared = map[string]string{
	"harm":        "it complains when its calls are late, as all of them are under valgrind; it is the harm suite's own.",
	"mallocbench": "its threads allocate and free blocks of random sizes until the very end: no two runs are alike.",
	"echoload":    "it is the client of a server, and allocates nothing itself.",
	"plugin":      "a library; dlopener loads it.",
	"demo":        "it never ends, and loses at random moments; the tests of watch hold it against what stanch says.",
	"fd*":         "what they lose is descriptors; the tests of run --fds hold them against what the programs say themselves.",
}

// staticExtra bounds what a static C library allocates before main to know what
// it could load; it depends on where the program lies.
var staticExtra = blocks{5, 8192}

// row is a line of the document.
type row struct{ stanch, valgrind leftover }

// TestAccuracy runs the programs of testdata/leaky under stanch run and under
// valgrind, tells them the same, and compares what each finds at the exit with
// the other and with the program's own list. The table of docs/ACCURACY.md is
// what it measures: STANCH_ACCURACY=write writes it anew.
func TestAccuracy(t *testing.T) {
	var mu sync.Mutex
	rows := map[string]row{}
	t.Run("programs", func(t *testing.T) {
		for i := range trials {
			tr := &trials[i]
			t.Run(strings.ReplaceAll(tr.name(), " ", "_"), func(t *testing.T) {
				t.Parallel()
				var r row
				var own fixture.Blocks
				r.stanch, own = tr.underStanch(t)
				if tr.listed {
					tr.agreesWithList(t, r.stanch, of(own))
				}
				r.valgrind = r.stanch
				if tr.fails == "" {
					r.valgrind = tr.underValgrind(t, "--run-libc-freeres=no", "--run-cxx-freeres=no")
					tr.agreesWithValgrind(t, &r)
				}
				if tr.freed != (blocks{}) {
					byDefault := tr.underValgrind(t).total()
					if got := r.valgrind.total().away(byDefault); got != tr.freed || byDefault.n > r.valgrind.total().n {
						t.Errorf("valgrind has the libraries free %v, want %v", got, tr.freed)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				rows[tr.name()] = r
			})
		}
	})
	everyProgram(t)
	if t.Failed() || len(rows) < len(trials) {
		return // or some were filtered out
	}
	checkDocument(t, filepath.Join(fixture.RepoRoot(t), "docs", "ACCURACY.md"), rows)
}

// everyProgram checks that each program is compared, or said not to be.
func everyProgram(t *testing.T) {
	sources, err := filepath.Glob(filepath.Join(fixture.RepoRoot(t), "testdata", "leaky", "*.c*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		name := strings.TrimSuffix(filepath.Base(s), filepath.Ext(s))
		if strings.HasPrefix(name, "fd") {
			name = "fd*"
		}
		compared := slices.ContainsFunc(trials, func(tr trial) bool { return tr.program == name })
		if compared == (uncompared[name] != "") {
			t.Errorf("%s: it must either be compared or be named as not compared", name)
		}
	}
}

// name is the trial as the document calls it.
func (tr *trial) name() string {
	return strings.Join(append(append([]string{tr.program}, tr.flags...), strings.Fields(tr.args)...), " ")
}

func (tr *trial) static() bool { return slices.Contains(tr.flags, "-static") }

// command builds the program and gives its command line.
func (tr *trial) command(t *testing.T, flags ...string) []string {
	t.Helper()
	if tr.debian {
		return append([]string{fixture.Package(t, tr.program)}, strings.Fields(tr.args)...)
	}
	line := []string{fixture.Build(t, tr.program, flags...)}
	for _, a := range strings.Fields(tr.args) {
		if a == "PLUGIN" {
			a = fixture.Build(t, "plugin", "-shared", "-fPIC")
		}
		line = append(line, a)
	}
	return line
}

// perform runs a command line that ends with the program's own, and tells the
// program what to do.
func (tr *trial) perform(t *testing.T, line []string) (pid int, own fixture.Blocks) {
	t.Helper()
	if tr.steps == nil && !tr.waits {
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Stdout = &bytes.Buffer{} // until its end daemons are waited for
		cmd.WaitDelay = fixture.Patience
		cmd.Env = append(os.Environ(), "PYTHONMALLOC=malloc")
		if err := cmd.Run(); cmd.Process == nil {
			t.Fatal(err) // else it ended as its arguments say
		}
		return cmd.Process.Pid, own
	}
	if tr.waits {
		line = append([]string{"/bin/sh", "-c", `echo ready; exec "$@"`, "sh"}, line...)
	}
	p := fixture.Start(t, line[0], line[1:]...)
	for _, s := range tr.steps {
		for deadline := time.Now().Add(fixture.Patience); !regexp.MustCompile(s.want).MatchString(p.Ask(s.say, "")); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: no answer like %q to %q", tr.program, s.want, s.say)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if tr.listed {
		own = p.Blocks()
	}
	if tr.waits {
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	} else {
		p.Say("quit")
	}
	_ = p.Wait() // stanch's exit code is 3 when something is lost
	return p.PID(), own
}

// underStanch counts what stanch run finds in the program's processes.
func (tr *trial) underStanch(t *testing.T) (leftover, fixture.Blocks) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	line := []string{command(t, "stanch"), "run", "-o", file}
	if tr.alone {
		line = append(line, "--no-children")
	}
	_, own := tr.perform(t, append(append(line, "--"), tr.command(t, tr.flags...)...))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("no report: %v", err)
	}
	r := outcome{out: string(text)}.report(t)
	var sum leftover
	found := 0
	count := func(what string, b *leak.ReportBlocks) blocks {
		switch {
		case b == nil:
			t.Fatalf("the heap was not looked into at the exit: %q, %q", r.Notes, r.Gaps)
		case b.BytesAre != "requested":
			t.Errorf("%s: bytes are %s: %q, %q", what, b.BytesAre, r.Notes, r.Gaps)
		}
		return blocks{b.Count, b.Bytes}
	}
	for i := range r.Targets {
		g := &r.Targets[i]
		if !strings.HasPrefix(filepath.Base(g.Exe), tr.program) { // python3 is python3.11
			continue
		}
		found++
		sum = sum.add(leftover{
			definite: count("lost", g.LostDirect), indirect: count("indirectly lost", g.LostIndirect), reachable: count("reachable", g.StillReachable),
		})
	}
	if found == 0 {
		t.Fatalf("no process of %s in the report:\n%s", tr.program, text)
	}
	return sum, own
}

// of counts what the program's list says was lost, and what it keeps.
func of(own fixture.Blocks) leftover {
	count := func(m map[uint64]uint64) blocks { return blocks{uint64(len(m)), fixture.Bytes(m)} }
	lost, indirect := count(own.Lost), count(own.Indirect)
	return leftover{definite: lost.away(indirect), indirect: indirect, reachable: count(own.Kept)}
}

// agreesWithList holds stanch against what the program says of itself.
func (tr *trial) agreesWithList(t *testing.T, s, own leftover) {
	t.Helper()
	if got, want := s.definite, own.definite.add(tr.outdated); got != want {
		t.Errorf("stanch: %v definitely lost, the program: %v", got, want)
	}
	if got, want := s.indirect, own.indirect; got != want {
		t.Errorf("stanch: %v indirectly lost, the program: %v", got, want)
	}
	if got, want := s.reachable.add(tr.outdated), own.reachable; !want.within(got) {
		t.Errorf("stanch: %v reachable, the program keeps %v", got, want)
	}
}

// agreesWithValgrind holds what both found against each other.
func (tr *trial) agreesWithValgrind(t *testing.T, r *row) {
	t.Helper()
	s, v := r.stanch.add(tr.extra), r.valgrind
	if tr.static() && v.reachable.within(s.reachable) && s.reachable.away(v.reachable).within(staticExtra) {
		s.reachable = v.reachable
	}
	if s.total() != v.total() {
		t.Errorf("held at the exit: stanch %v, valgrind %v", s.total(), v.total())
	}
	for _, c := range []struct {
		what string
		s, v blocks
	}{
		{"definitely lost", s.definite, v.definite}, {"indirectly lost", s.indirect, v.indirect}, {"reachable", s.reachable, v.reachable},
	} {
		if !c.s.away(c.v).within(tr.moved) {
			t.Errorf("%s: stanch %v, valgrind %v", c.what, c.s, c.v)
		}
	}
	if tr.differs != "" && r.stanch == (leftover{v.definite, v.indirect, v.reachable, blocks{}}) {
		t.Error("valgrind does not differ any more: the allowance is not needed")
	}
}

var valgrindLine = regexp.MustCompile(`(definitely lost|indirectly lost|possibly lost|still reachable): ([\d,]+) bytes in ([\d,]+) blocks$`)

// underValgrind counts what valgrind finds in the program's processes. It
// cannot replace the allocator of a static program, and gets the dynamic one.
func (tr *trial) underValgrind(t *testing.T, options ...string) leftover {
	t.Helper()
	dir := t.TempDir()
	flags := slices.DeleteFunc(slices.Clone(tr.flags), func(f string) bool { return f == "-static" })
	line := fixture.Valgrind(t, append(options, "--show-leak-kinds=all", "--log-file="+filepath.Join(dir, "log.%p"))...)
	pid, _ := tr.perform(t, slices.Concat(line, tr.own, tr.command(t, flags...)))
	logs := filepath.Join(dir, "log.*")
	if tr.alone {
		logs = filepath.Join(dir, fmt.Sprintf("log.%d", pid))
	}
	paths, err := filepath.Glob(logs)
	if err != nil {
		t.Fatal(err)
	}
	var sum leftover
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "ERROR SUMMARY") {
			t.Fatalf("valgrind did not finish:\n%s", text)
		}
		sum = sum.add(readValgrind(string(text)))
	}
	if len(paths) == 0 {
		t.Fatalf("no log of valgrind")
	}
	return sum
}

// readValgrind reads a leak summary, which is missing when nothing was held.
func readValgrind(text string) leftover {
	number := func(word string) uint64 {
		n, _ := strconv.ParseUint(strings.ReplaceAll(word, ",", ""), 10, 64) // the expression takes nothing else
		return n
	}
	var l leftover
	for line := range strings.Lines(text) {
		m := valgrindLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		b := blocks{number(m[3]), number(m[2])}
		switch m[1] {
		case "definitely lost":
			l.definite = b
		case "indirectly lost":
			l.indirect = b
		case "possibly lost":
			l.possible = b
		case "still reachable":
			l.reachable = b
		}
	}
	l.reachable = l.reachable.add(l.possible)
	return l
}

// The document has prose and, between these lines, what the test measured.
const (
	madeBegin = "<!-- made by TestAccuracy -->\n"
	madeEnd   = "<!-- end of what TestAccuracy made -->\n"
)

// checkDocument compares the measured part of the document, or writes it.
func checkDocument(t *testing.T, path string, rows map[string]row) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), madeBegin)
	have, after, ok2 := strings.Cut(rest, madeEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", path, madeBegin, madeEnd)
	}
	want := measured(rows)
	if have == want {
		return
	}
	if os.Getenv("STANCH_ACCURACY") == "write" {
		if err := os.WriteFile(path, []byte(before+madeBegin+want+madeEnd+after), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
		return
	}
	is, should := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range max(len(is), len(should)) {
		var a, b string
		if i < len(is) {
			a = is[i]
		}
		if i < len(should) {
			b = should[i]
		}
		if a != b {
			t.Errorf("docs/ACCURACY.md, line %d of what is measured, is\n%s\nand should be\n%s", i+1, a, b)
		}
	}
	t.Error("STANCH_ACCURACY=write writes it anew")
}

// measured is what the document says of the rows.
func measured(rows map[string]row) string {
	var b strings.Builder
	var reasons []string
	note := func(why string) string {
		i := slices.Index(reasons, why)
		if i < 0 {
			i = len(reasons)
			reasons = append(reasons, why)
		}
		return fmt.Sprintf("[%d]", i+1)
	}
	b.WriteString("| program | definitely lost | indirectly lost | reachable | |\n|---|---|---|---|---|\n")
	for i := range trials {
		tr := &trials[i]
		r := rows[tr.name()]
		s, v := r.stanch, r.valgrind
		if tr.debian {
			fmt.Fprintf(&b, "| `%s` | equal | equal | equal | %s |\n", tr.name(), note(ofDebian))
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", tr.name(),
			tr.cell(s.definite, v.definite), tr.cell(s.indirect, v.indirect), tr.reachableCell(s.reachable, v.reachable), tr.verdict(r, note))
	}
	b.WriteString("\n")
	for i, why := range reasons {
		fmt.Fprintf(&b, "%d. %s\n", i+1, why)
	}
	b.WriteString("\nWhat the C and C++ libraries free at the exit when valgrind has them do so, as it does by default:\n\n")
	b.WriteString("| program | blocks (bytes) |\n|---|---|\n")
	for i := range trials {
		if tr := &trials[i]; tr.freed != (blocks{}) {
			fmt.Fprintf(&b, "| `%s` | %v |\n", tr.name(), tr.freed)
		}
	}
	b.WriteString("\nNot compared:\n\n")
	for _, name := range slices.Sorted(maps.Keys(uncompared)) {
		fmt.Fprintf(&b, "- `%s`: %s\n", name, uncompared[name])
	}
	return b.String()
}

// cell is what both found, or what each did.
func (tr *trial) cell(s, v blocks) string {
	switch {
	case s == v:
		return s.String()
	case !tr.varies:
		return fmt.Sprintf("%v, valgrind %v", s, v)
	case s.n < v.n:
		return fmt.Sprintf("%v, valgrind more", s)
	}
	return fmt.Sprintf("%v, valgrind fewer", s)
}

// reachableCell leaves out the bytes that depend on where a static program lies.
func (tr *trial) reachableCell(s, v blocks) string {
	if tr.static() && s != v {
		return fmt.Sprintf("%v and %d more", v, s.n-v.n)
	}
	return tr.cell(s, v)
}

// verdict is the last column.
func (tr *trial) verdict(r row, note func(string) string) string {
	words := "equal"
	switch {
	case tr.differs != "":
		words = "differs " + note(tr.differs)
	case tr.fails != "":
		words = note(tr.fails)
	}
	if n := r.valgrind.possible.n; n > 0 && !tr.varies {
		words += fmt.Sprintf(", %d %s", n, note(possibly))
	}
	if tr.stale != "" {
		words += " " + note(tr.stale)
	}
	if tr.static() {
		words += " " + note(isStatic)
	}
	return words
}
