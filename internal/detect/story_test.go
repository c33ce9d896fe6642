package detect

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
	"stanch/internal/ledger"
	"stanch/internal/record"
)

var update = flag.Bool("update", false, "write what the stories of testdata say anew")

const wantMark = "-- want --\n"

// TestStories reads what was seen and compares what must be concluded.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			story, want, ok := strings.Cut(string(text), wantMark)
			if !ok {
				t.Fatalf("%s has no %q", file, wantMark)
			}
			got := tell(t, story)
			if *update {
				if err := os.WriteFile(file, []byte(story+wantMark+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
			if again := tell(t, story); again != got {
				t.Errorf("told again it says something else:\n%s", cmp.Diff(got, again))
			}
		})
	}
}

// tell runs a story. Beside the lines of a recording it may hold:
//
//	name 1+0x1139 parse_reply src/net.c:88    what a frame is called
//	object 1+0x40 vtable for Conn             what a data symbol is called
//	wrapper NAME, uptime 144h, show, list     configuration; list asks for what is still reachable
//	select                                    the program imports select
//	fds, fds all, peer P, module M            what DescriptorsOf says is told too
//	each 0..30 1: tally {t}s ... {t*400+9}    a line for each t
func tell(t *testing.T, story string) string {
	t.Helper()
	var rec strings.Builder
	rec.WriteString("stanch recording 1\nproc 4711.99\n")
	names, objects := map[string]leak.StackFrame{}, map[string]string{}
	c := Config{}
	var fds []fdQuestion
	for line := range strings.Lines(story) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "name":
			parts := strings.Fields(rest)
			f := leak.StackFrame{Function: parts[1]}
			if len(parts) > 2 {
				file, n, _ := strings.Cut(parts[2], ":")
				f.File, f.Line = file, atoi(t, n)
			}
			names[parts[0]] = f
		case "object":
			place, name, _ := strings.Cut(rest, " ")
			objects[place] = name
		case "wrapper":
			c.Wrappers = append(c.Wrappers, rest)
		case "show":
			c.ShowContents = true
		case "list":
			c.Reachable = true
		case "uptime":
			d, err := time.ParseDuration(rest)
			if err != nil {
				t.Fatal(err)
			}
			c.Uptime = d
		case "select":
			c.ImportsSelect = true
		case "fds":
			fds = append(fds, fdQuestion{all: rest == "all"})
		case "peer":
			fds = append(fds, fdQuestion{peer: rest})
		case "module":
			fds = append(fds, fdQuestion{module: rest})
		case "each":
			each(t, &rec, rest)
		default:
			rec.WriteString(line)
		}
	}
	rec.WriteString("end\n")
	c.Name = func(f leak.Frame) []leak.StackFrame {
		if s, ok := names[fmt.Sprintf("%d+%#x", f.Map, f.Off)]; ok {
			return []leak.StackFrame{s}
		}
		return nil
	}
	c.Object = func(f leak.Frame) string { return objects[fmt.Sprintf("%d+%#x", f.Map, f.Off)] }
	books := ledger.New()
	if _, err := record.Read(strings.NewReader(rec.String()), books); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	view := books.View()
	for _, f := range Run(view, c) {
		say(&out, &f)
	}
	for _, p := range view.Procs {
		if direct, indirect, reachable := Totals(p); direct != nil {
			fmt.Fprintf(&out, "at exit: direct %+v, indirect %+v, reachable %+v\n", *direct, *indirect, *reachable)
		}
		for _, q := range fds {
			c.Peer, c.Module = q.peer, q.module
			sayDescriptors(&out, DescriptorsOf(view, p, c, q.all))
		}
	}
	return out.String()
}

var expr = regexp.MustCompile(`\{t(?:([*/%])(\d+))?(?:([+-])(\d+))?\}`)

// each writes a line for each value of t.
func each(t testing.TB, out *strings.Builder, rest string) {
	t.Helper()
	head, line, _ := strings.Cut(rest, ":")
	span, step, _ := strings.Cut(head, " ")
	from, to, _ := strings.Cut(span, "..")
	for v := atoi(t, from); v <= atoi(t, to); v += atoi(t, step) {
		out.WriteString(strings.TrimSpace(expr.ReplaceAllStringFunc(line, func(s string) string {
			m := expr.FindStringSubmatch(s)
			n := v
			switch m[1] {
			case "*":
				n *= atoi(t, m[2])
			case "/":
				n /= atoi(t, m[2])
			case "%":
				n %= atoi(t, m[2])
			}
			switch m[3] {
			case "+":
				n += atoi(t, m[4])
			case "-":
				n -= atoi(t, m[4])
			}
			return strconv.Itoa(n)
		})))
		out.WriteByte('\n')
	}
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// observations gives the lines of a story that are of a recording.
func observations(t testing.TB, story string) string {
	var out strings.Builder
	for line := range strings.Lines(story) {
		switch word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "name", "object", "select", "fds", "peer", "module":
		case "each":
			each(t, &out, rest)
		default:
			out.WriteString(line)
		}
	}
	return out.String()
}

// say writes a finding with all that its numbers are.
func say(out *bytes.Buffer, f *leak.Finding) {
	fmt.Fprintf(out, "%s: %s\n    %s\n", f.Severity, f.Title, f.Key)
	if f.Kind == "memory" {
		fmt.Fprintf(out, "    %d blocks, %d bytes %s (%d direct, %d indirect with %d bytes)\n", f.Count, f.Bytes, f.BytesAre, f.Direct, f.Indirect, f.IndirectBytes)
	} else {
		fmt.Fprintf(out, "    %d %s\n", f.Count, f.What)
	}
	if b := f.BeforeAttach; b != nil {
		fmt.Fprintf(out, "    before: %d blocks, %d bytes (%d indirect with %d bytes), %s; site %s\n", b.Count, b.Bytes, b.IndirectCount, b.IndirectBytes, b.Type, b.Site)
	}
	if f.Rate != nil {
		fmt.Fprintf(out, "    rate: %.0f bytes/h%s, %.0f/h\n", f.Rate.BytesPerHour, bounds(f.Rate.BytesPerHourLow, f.Rate.BytesPerHourHigh), f.Rate.CountPerHour)
	}
	if x := f.Exhaustion; x != nil {
		fmt.Fprintf(out, "    %s in %.0f s%s\n", x.Limit, x.InS, bounds(x.LowS, x.HighS))
	}
	if len(f.Stack) > 0 {
		fmt.Fprintf(out, "    %s: %s\n", f.SiteCertainty, stackOf(f.Stack, f.Site))
	}
	for _, r := range f.Related {
		fmt.Fprintf(out, "    %s %d blocks, %d bytes: %s\n", r.What, r.Count, r.Bytes, stackOf(r.Stack, r.Site))
	}
	for _, e := range f.Evidence {
		fmt.Fprintf(out, "    %s\n", e)
	}
	for _, a := range f.Advice {
		fmt.Fprintf(out, "    do: %s\n", a)
	}
}

// stackOf writes a stack with its line in brackets.
func stackOf(stack []leak.StackFrame, site int) string {
	var names []string
	for i := range stack {
		name := functionName(&stack[i])
		if i == site {
			name = "[" + name + "]"
		}
		names = append(names, name)
	}
	return strings.Join(names, " < ")
}

func bounds(low, high *float64) string {
	if low == nil && high == nil {
		return ""
	}
	one := func(p *float64) string {
		if p == nil {
			return "?"
		}
		return strconv.FormatFloat(*p, 'f', 0, 64)
	}
	return " (" + one(low) + " to " + one(high) + ")"
}
