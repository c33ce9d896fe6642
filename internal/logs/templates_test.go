package logs

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"collecting from 10.0.0.1:161 failed: data truncated", "collecting from * failed: data truncated"},
		{"collecting from node17.example.com:161 failed", "collecting from node*.example.com:* failed"},
		{"took 3.5ms, 12MB of 1.2e3", "took *, * of *"},
		{"fd -1 (errno 2)", "fd * (errno *)"},
		{"request 550e8400-e29b-41d4-a716-446655440000 done", "request * done"},
		{"commit deadbeef12 from fe80::1 by 00:1a:2b:3c:4d:5e", "commit * from * by *"},
		{"at 0x7ffd1234: <0xdeadbeef>", "at *: <*>"},
		{"mail from <anna.b@example.com>, GET http://api:80/x?y=1", "mail from <*>, GET http://*"},
		{"opening /var/lib/node17/data.3 failed", "opening /var/lib/node*/data.* failed"},
		{`user "John Smith" said 'no way 7'`, `user "John Smith" said 'no way *'`},
		{"can't open it, won't", "can't open it, won't"},
		{"load 1 2 3 4", "load *"},
		{"n=5 time=2ms name=anna", "n=* time=* name=anna"},
		{"pod my-app-7f9c6d5b8-x2k4j is ready", "pod my-app-* is ready"},
		{"token XyZ123abc and Qw9", "token * and Qw*"},
		{"[4711] LOG:  checkpoint complete: wrote 12 buffers (0.1%)", "[*] LOG: checkpoint complete: wrote * buffers (*%)"},
		{"4711:M * Ready", "*:M * Ready"},
		{"Gerät 5 wurde getrennt", "Gerät * wurde getrennt"},
		{"  \t ", ""},
		{strings.Repeat("word ", 40), strings.Repeat("word ", 24) + "*"},
		{"x " + strings.Repeat("y", 60), "x *"},
	} {
		if got := strings.Join(tokens(c.line), " "); got != c.want {
			t.Errorf("%q\n got %q\nwant %q", c.line, got, c.want)
		}
	}
}

// TestMerge holds when a word becomes variable.
func TestMerge(t *testing.T) {
	for _, c := range []struct {
		about string
		lines []string
		want  []string
	}{
		{"names with punctuation, at once", []string{"login of anna_b ok", "login of john.c ok"}, []string{"login of * ok"}},
		{"a pair of words stays", []string{"the door was opened", "the door was closed", "the door was opened"}, []string{"the door was closed", "the door was opened"}},
		{"three words vary", []string{"login of anna ok", "login of bert ok", "login of carl ok"}, []string{"login of * ok"}},
		{"levels never do", []string{"x info of it", "x warn of it", "x error of it", "x debug of it"}, []string{"x debug of it", "x error of it", "x info of it", "x warn of it"}},
		{"two places", []string{"user anna of host alpha left", "user bert of host beta left", "user carl of host gamma left"}, []string{"user * of host * left"}},
		{"quoted strings", []string{`cannot find "John Smith" here`, `cannot find "Jim" here`}, []string{"cannot find * here"}},
		{"a key keeps its name", []string{"sent to=web-one now", "sent to=web-two now"}, []string{"sent to=* now"}},
		{"other lengths are other kinds", []string{"a b-c d", "a b-c d e"}, []string{"a b-c d", "a b-c d e"}},
		{"a few paths are kinds", []string{"GET /login *", "GET /leak *", "GET /about *"}, []string{"GET /about *", "GET /leak *", "GET /login *"}},
		{"a few requests are", []string{`* - "GET /login HTTP/1.1" 200`, `* - "GET /leak HTTP/1.1" 500`}, []string{`* - "GET /leak HTTP/*" *`, `* - "GET /login HTTP/*" *`}},
		{"one word alone is a kind", []string{"a-b", "a-c", "a-d"}, []string{"a-b", "a-c", "a-d"}},
	} {
		templates := NewTemplates(Options{})
		for _, line := range c.lines {
			templates.Add(line)
		}
		if got := templates.List(); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.about, got, c.want)
		}
	}
}

// manyKinds are lines as a collector writes them.
func manyKinds(r *rand.Rand, n int) []string {
	hosts := []string{"alpha", "beta", "gamma", "delta", "db-primary", "node17", "10.1.2.3"}
	users := []string{"anna", "bert", "carl", "dora", "emil", "fritz", "root"}
	kinds := []func() string{
		func() string {
			return fmt.Sprintf("collecting from %s failed: data truncated", hosts[r.IntN(len(hosts))])
		},
		func() string {
			return fmt.Sprintf("collected %d values from %s in %dms", r.IntN(1000), hosts[r.IntN(len(hosts))], r.IntN(99))
		},
		func() string {
			return fmt.Sprintf("user %s logged in from 10.0.0.%d", users[r.IntN(len(users))], r.IntN(255))
		},
		func() string { return "cache was enlarged" },
		func() string { return "cache was trimmed" },
		func() string { return fmt.Sprintf("error: cannot open /var/lib/x/%d.rrd: No such file", r.IntN(1e6)) },
		func() string { return fmt.Sprintf("GC %d @%d.3s: %d%% cpu", r.IntN(9), r.IntN(99), r.IntN(9)) },
		func() string {
			return fmt.Sprintf(`query "select %s from t" took %dms`, users[r.IntN(len(users))], r.IntN(99))
		},
	}
	lines := make([]string, n)
	for i := range lines {
		lines[i] = kinds[r.IntN(len(kinds))]()
	}
	return lines
}

// TestTemplatesAreStable holds that after the first few lines of each kind a
// template keeps its text; that a restart with the templates of before changes
// nothing, whatever the order they are given in; and that each kind is one.
func TestTemplatesAreStable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	lines := manyKinds(r, 20_000)
	first := NewTemplates(Options{})
	for _, line := range lines[:500] {
		first.Add(line)
	}
	settled := first.List()
	if len(settled) != 8 {
		t.Errorf("%d templates of 8 kinds: %q", len(settled), settled)
	}
	of := map[string]string{}
	for _, line := range lines[500:] {
		of[line] = first.Add(line)
	}
	if now := first.List(); !slices.Equal(now, settled) {
		t.Errorf("templates changed from %q to %q", settled, now)
	}

	seeds := append(slices.Clone(settled), "collecting from alpha failed: data truncated", "user anna logged in from *")
	for range 5 {
		r.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
		again := NewTemplates(Options{})
		again.Seed(seeds)
		for line, want := range of {
			if got := again.Add(line); got != want {
				t.Fatalf("%q is %q after a restart, was %q", line, got, want)
			}
		}
		if now := again.List(); !slices.Equal(now, settled) {
			t.Errorf("after a restart: %q, want %q", now, settled)
		}
	}
	if e := first.Examples()["cache was trimmed"]; e != "cache was trimmed" {
		t.Errorf("example %q", e)
	}
}

// TestRoom holds the bound on templates: what comes when there is no room is
// of none, and what was there stays. A log that goes on gets room slowly.
func TestRoom(t *testing.T) {
	templates := NewTemplates(Options{Max: 10})
	templates.Add("the first kind of all")
	templates.Add("the first kind of all")
	templates.Add("the first kind of all")
	for i := range 50 {
		templates.Add(strings.Repeat("q ", 2+i%20) + word(uint64(i)))
	}
	if n := len(templates.List()); n != 10 {
		t.Errorf("%d templates, want 10", n)
	}
	if got := templates.Add("quite another thing here"); got != "" {
		t.Errorf("there was room for %q", got)
	}
	for range 2 * turnover {
		templates.Add("the first kind of all")
	}
	if got := templates.Add("quite another thing here"); got != "quite another thing here" {
		t.Errorf("there was no room again: %q", got)
	}
	if got := templates.Add("and one more thing here"); got != "" {
		t.Errorf("there was room for two: %q", got)
	}
}

// TestCost holds that a line costs little, whatever there is already: the worst
// are templates that are nearly alike and can not be merged. What is allocated
// tells how much is done, and is the same on any machine.
func TestCost(t *testing.T) {
	levels := []string{"info", "warn", "error", "debug", "fatal", "panic", "trace", "notice"}
	for about, line := range map[string]func(i int) string{
		"levels": func(i int) string {
			var b strings.Builder
			for j := range 8 {
				fmt.Fprintf(&b, "k%c %s c ", 'a'+j, levels[(i>>j)%8])
			}
			return b.String()
		},
		"paths": func(i int) string {
			return fmt.Sprintf("GET /p%c from /q%c by /r%c of x y z", 'a'+i%7, 'a'+i/7%7, 'a'+i/49%7)
		},
	} {
		templates := NewTemplates(Options{})
		for i := range 1000 {
			templates.Add(line(i))
		}
		i := 0
		each := testing.AllocsPerRun(1000, func() {
			templates.Add(line(i))
			i++
		})
		if t.Logf("%s: %.0f allocations a line, %d templates", about, each, len(templates.List())); each > 150 {
			t.Errorf("%s: %.0f allocations a line", about, each)
		}
	}
}

// TestMasks holds that what Mask hides is in no template and no example, and
// that a line of a kind that is known needs no masking.
func TestMasks(t *testing.T) {
	masked := 0
	templates := NewTemplates(Options{Mask: func(text string) string {
		masked++
		return strings.ReplaceAll(text, "hunter", "***")
	}})
	for range 5 {
		for _, line := range []string{"login of anna by hunter ok", "password=hunter was wrong", "cache was trimmed"} {
			if got := templates.Add(line); got == "" || strings.Contains(got, "hunter") {
				t.Errorf("%q is %q", line, got)
			}
		}
	}
	for template, line := range templates.Examples() {
		if strings.Contains(template+line, "hunter") {
			t.Errorf("%q: example %q", template, line)
		}
	}
	if want := []string{"cache was trimmed", "login of anna by * ok", "password=* was wrong"}; !slices.Equal(templates.List(), want) {
		t.Errorf("got %q, want %q", templates.List(), want)
	}
	if masked > 3 {
		t.Errorf("%d lines were masked, want 3", masked)
	}
}

// TestMemory adds a million lines drawn by lot, of any words, bytes and
// lengths: memory and labels stay bounded.
func TestMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	templates := NewTemplates(Options{})
	labels := map[string]bool{}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	line := make([]byte, 0, 4096)
	for range 1_000_000 {
		line = line[:0]
		for range 1 + r.IntN(12) {
			line = append(append(line, word(r.Uint64())...), ' ')
		}
		if r.IntN(1000) == 0 {
			for range r.IntN(4000) {
				line = append(line, byte(r.Uint32()))
			}
		}
		labels[templates.Add(string(line))] = true
	}
	clear(line)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d templates, %d labels, %d KB", len(templates.List()), len(labels), grown>>10)
	if n := len(templates.List()); n > defaultMax {
		t.Errorf("%d templates", n)
	}
	if len(labels) > 3*defaultMax {
		t.Errorf("%d labels", len(labels))
	}
	if grown > 4<<20 {
		t.Errorf("%d bytes", grown)
	}
	for _, label := range templates.List() {
		if len(label) > (maxTokens+1)*(maxTokenLen+1) {
			t.Errorf("a template of %d bytes", len(label))
		}
	}
	runtime.KeepAlive(templates)
}

// word is a word of letters.
func word(n uint64) string {
	b := []byte{}
	for len(b) < 3+int(n%8) {
		b = append(b, 'a'+byte(n%26))
		n = n/26 + n<<59
	}
	return string(b)
}

func FuzzAdd(f *testing.F) {
	f.Add("collecting from 10.0.0.1 failed", "collecting from b-c failed")
	f.Add(`x "a b" 'c`, "k=v http://a/b {1:2} [x]")
	f.Fuzz(func(t *testing.T, a, b string) {
		templates := NewTemplates(Options{})
		templates.Add(a)
		templates.Add(b)
		one, two := templates.Add(a), templates.Add(b)
		again := NewTemplates(Options{})
		again.Seed(templates.List())
		if got := again.Add(a); got != one {
			t.Errorf("%q is %q, and %q after a restart", a, one, got)
		}
		if got := again.Add(b); got != two {
			t.Errorf("%q is %q, and %q after a restart", b, two, got)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	lines := manyKinds(rand.New(rand.NewPCG(1, 2)), 1000)
	templates := NewTemplates(Options{})
	for i := 0; b.Loop(); i++ {
		templates.Add(lines[i%len(lines)])
	}
}
