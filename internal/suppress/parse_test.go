package suppress

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

// parse reads one file with the names that a linker would give.
func parse(t *testing.T, text string) *Rules {
	t.Helper()
	var r Rules
	if err := testParser.Parse(&r, "x.supp", []byte(text)); err != nil {
		t.Fatal(err)
	}
	return &r
}

// testParser knows a few mangled names.
var testParser = Parser{Readable: func(s string) string {
	for symbol, name := range map[string]string{
		"_ZN5Cache3putEi": "Cache::put", "_ZN5Cache3putEv": "Cache::put", "_Z4growi": "grow",
		"call_init.part.0": "call_init", "dlopen@@GLIBC_2.2.5": "dlopen",
	} {
		if s == symbol {
			return name
		}
	}
	return s
}}

func TestMalformed(t *testing.T) {
	for text, want := range map[string]string{
		"funktion:foo":                         `x.supp:1: "funktion:foo" is no suppression; write function:GLOB, file:GLOB, module:GLOB or key:KEY, LeakSanitizer's leak:PATTERN, or Valgrind's { ... }`,
		"# one\n\n  parse_reply\n":             `x.supp:3: "parse_reply" is no suppression`,
		"race:foo":                             "is no suppression",
		"function:":                            "x.supp:1: function: needs something to match behind it, as in function:parse_*",
		"key: # all":                           "key: needs something",
		"leak:":                                "leak: needs a pattern",
		"leak:^$":                              "leak: needs a pattern",
		"rule=heap.unreachable":                "rule= takes the name of a rule and then function:GLOB",
		"rule= function:foo":                   "rule= takes the name",
		"module:/usr/lib/libfoo.so":            "write module:libfoo.so",
		"fun:malloc":                           "fun: belongs between the { and } of a Valgrind suppression",
		"}":                                    `"}" is no suppression`,
		"{\n  name\n  Memcheck:Leak\n  fun:f":  "x.supp:4: the file ends inside the suppression that begins at x.supp:1; close it with a line }",
		"{":                                    "the file ends inside",
		"{\nname\n":                            "the file ends inside",
		"{\nname\nMemcheck:Cond\nfun:f\n":      "the file ends inside",
		"{\n}":                                 "x.supp:2: a suppression needs a name",
		"{\nname\nLeak\nfun:f\n}":              `x.supp:3: "Leak" stands where the kind of error belongs; write Memcheck:Leak below the name`,
		"{\nname\nMemcheck:Leak\n}":            `x.supp:4: the suppression "name" names no frame`,
		"{\nname\nMemcheck:Leak\n...\n}":       "names no frame",
		"{\nname\nMemcheck:Leak\nfoo\n}":       `x.supp:4: "foo" is no frame; write fun:GLOB, obj:GLOB, src:FILE:LINE or ...`,
		"{\nname\nMemcheck:Leak\nfun:\n}":      "is no frame",
		"{\nname\nMemcheck:Leak\nsrc:a.c:x\n}": `"x" is no line number`,
		"{\nname\nMemcheck:Leak\nmatch-leak-kinds: sure\nfun:f\n}": `"sure" is no kind of leak; match-leak-kinds: takes definite`,
		strings.Repeat("x", 500):                                   `"` + strings.Repeat("x", 57) + `..." is no suppression`,
		"\x00\x01\x7fELF":                                          `"\x00\x01\x7fELF" is no suppression`,
	} {
		err := testParser.Parse(&Rules{}, "x.supp", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q\n got %v\nwant %s", text, err, want)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q: more than a line: %q", text, err)
		}
	}
}

// finding is one with these functions on its stack, innermost first, in the
// module prog and the file /build/src/FUNCTION.c at line 10.
func finding(functions ...string) leak.Finding {
	f := leak.Finding{
		Rule: "heap.unreachable", Severity: leak.SeverityLeak, Kind: "memory", Count: 3, Direct: 3, Bytes: 192,
		Key: "heap.unreachable:4f1c99aa:1139:0f523ee9", NameKey: "heap.unreachable:prog:" + strings.Join(functions, ":"),
	}
	for _, name := range functions {
		f.Stack = append(f.Stack, leak.StackFrame{Function: name, File: "/build/src/" + name + ".c", Line: 10, Module: "prog"})
	}
	return f
}

func matches(r *Rules, f leak.Finding) bool {
	for i := range r.rules {
		if r.rules[i].match(&f) {
			return true
		}
	}
	return false
}

// TestMatch: what each rule takes of the stack parse_reply < poll_host < main,
// or of another that is given.
func TestMatch(t *testing.T) {
	growth := finding("parse_reply", "poll_host", "main")
	growth.Rule = "heap.growth"
	indirect := finding("parse_reply", "poll_host", "main")
	indirect.Direct, indirect.Indirect = 0, 3
	blind := finding()
	invalid := finding("parse_reply", "main")
	invalid.Rule = "heap.invalid-free"
	old := finding("parse_reply", "main")
	old.Count, old.Direct, old.BeforeAttach = 0, 0, &leak.BeforeAttach{Count: 7, IndirectCount: 7}

	valgrind := func(lines ...string) string {
		return "{\n  name\n  Memcheck:Leak\n  " + strings.Join(lines, "\n  ") + "\n}\n"
	}
	stack := finding("parse_reply", "poll_host", "main")
	class := finding("Cache::put", "std::vector<int>::push_back", "main")
	inline := finding("std::make_shared<Peer>", "grow", "main")
	inline.Stack[0].Inlined = true
	unnamed := leak.Finding{Rule: "heap.unreachable", Kind: "memory", Direct: 1, Count: 1, Stack: []leak.StackFrame{{Module: "libfoo.so.1"}, {Function: "main", Module: "prog"}}}
	for _, c := range []struct {
		rule string
		f    leak.Finding
		want bool
	}{
		{"function:parse_reply", stack, true},
		{"function:main", stack, true},
		{"function:parse_*", stack, true},
		{"function:*_h*t", stack, true},
		{"function:parse", stack, false},
		{"function:parse_repl?", stack, false},
		{"function:parse_reply   # known since spring", stack, true},
		{"\ufefffunction:parse_reply\r\n", stack, true},
		{"function:parse_reply", blind, false},
		{"function:Cache::put", class, true},
		{"function:Cache::*", class, true},
		{"function:std::vector::push_back", class, true},
		{"function:std::vector<int>::push_back", class, true},
		{"function:std::vector<long>::push_back", class, false},
		{"function:main::{lambda()#1}::operator()", finding("main::{lambda()#1}::operator()"), true},
		{"function:Cache::put", finding("Cache::put(std::string const&)"), true},
		{"function:(anonymous namespace)::f", finding("(anonymous namespace)::f(int)"), true},
		{"function:operator<", finding("operator<(int, int)"), true},
		{"file:parse_reply.c", stack, true},
		{"file:src/*.c", stack, true},
		{"file:/build/*", stack, true},
		{"file:rc/main.c", stack, false},
		{"file:*", blind, false},
		{"module:prog", stack, true},
		{"module:libfoo.so*", unnamed, true},
		{"module:libfoo.so", unnamed, false},
		{"key:heap.unreachable:4f1c99aa:1139:0f523ee9", stack, true},
		{"key:heap.unreachable:prog:parse_reply:poll_host:main", stack, true},
		{"key:heap.unreachable:*", stack, false},
		{"rule=heap.unreachable function:main", stack, true},
		{"rule=heap.*\tfunction:main", stack, true},
		{"rule=heap.growth function:main", stack, false},
		{"rule=heap.growth function:main", growth, true},
		{"rule=fd.growth key:heap.unreachable:4f1c99aa:1139:0f523ee9", stack, false},

		{"leak:poll", stack, true},
		{"leak:src/main.c", stack, true},
		{"leak:prog", stack, true},
		{"leak:p*_reply", stack, true},
		{"leak:^poll", stack, true},
		{"leak:^host", stack, false},
		{"leak:host$", stack, true},
		{"leak:poll$", stack, false},
		{"leak:^poll_host$", stack, true},
		{"leak:^*host", stack, true},
		{"leak:po$st", stack, false},
		{"leak:main # not a comment here", stack, false},
		{"leak:main", growth, true},
		{"leak:main", invalid, false},
		{"leak:main", blind, false},
		{"leak:*", unnamed, true},

		{valgrind("fun:malloc", "fun:parse_reply"), stack, true},
		{valgrind("fun:calloc", "fun:parse_reply", "fun:poll_host", "fun:main"), stack, true},
		{valgrind("fun:parse_reply"), stack, true},
		{valgrind("fun:malloc", "fun:poll_host"), stack, false},
		{valgrind("fun:poll_host"), stack, false},
		{valgrind("fun:malloc", "fun:strdup", "fun:parse_reply"), stack, true},
		{valgrind("fun:malloc", "fun:parse_reply", "fun:poll_host", "fun:main", "fun:_start"), stack, false},
		{valgrind("fun:malloc", "...", "fun:main"), stack, true},
		{valgrind("...", "fun:main"), stack, true},
		{valgrind("...", "fun:poll_host", "...", "...", "fun:main", "..."), stack, true},
		{valgrind("...", "fun:main", "...", "fun:poll_host"), stack, false},
		{valgrind("...", "fun:poll_host", "fun:poll_host"), finding("a", "poll_host", "b", "poll_host", "poll_host"), true},
		{valgrind("fun:*alloc", "fun:parse_*"), stack, true},
		{valgrind("fun:mallo?", "fun:parse_repl?"), stack, true},
		{valgrind("fun:*", "fun:parse_reply"), stack, true},
		{valgrind("fun:*", "fun:poll_host"), stack, false},
		{valgrind("obj:*", "obj:*", "fun:poll_host"), stack, true},
		{valgrind("obj:*", "obj:*", "fun:main"), stack, false},
		{valgrind("fun:*"), stack, true},
		{valgrind("fun:malloc"), stack, true},
		{valgrind("obj:*vgpreload_memcheck*", "fun:parse_reply"), stack, true},
		{valgrind("fun:malloc", "obj:/usr/bin/prog"), stack, true},
		{valgrind("fun:malloc", "obj:*/libfoo.so.*", "fun:main"), unnamed, true},
		{valgrind("fun:malloc", "fun:*", "fun:main"), unnamed, true},
		{valgrind("fun:malloc", "obj:*libbar*", "fun:main"), unnamed, false},
		{valgrind("fun:malloc", "obj:/usr/lib/*", "fun:main"), unnamed, false},
		{valgrind("fun:malloc", "src:parse_reply.c"), stack, true},
		{valgrind("fun:malloc", "src:parse_reply.c:10", "src:poll_*.c"), stack, true},
		{valgrind("fun:malloc", "src:parse_reply.c:11"), stack, false},
		{valgrind("fun:_Znwm", "fun:_ZN5Cache3putEi"), class, true},
		{valgrind("fun:_Znw*", "fun:_ZN5Cache3put*"), class, true},
		{valgrind("fun:_Z*", "fun:_ZN5Cache3putEi"), class, true},
		{valgrind("fun:_Znwm", "fun:_ZN*"), class, false},
		{valgrind("fun:_Znwm", "fun:allocate", "fun:allocate", "fun:__allocate_guarded<std::allocator<(anonymous namespace)::Peer> >",
			"fun:make_shared<(anonymous namespace)::Peer, int>", "fun:_Z4growi"), inline, true},
		{valgrind("fun:_Znwm", "fun:make_shared<Peer>"), inline, true},
		{valgrind("fun:_Znwm", "fun:allocate", "fun:grow"), inline, false},
		{valgrind("fun:_Znwm", "fun:shared<Peer>"), inline, false},
		{valgrind("fun:_Znwm", "fun:put", "fun:push_back"), class, false},
		{valgrind("fun:malloc", "fun:call_init.part.0"), finding("call_init", "main"), true},
		{valgrind("fun:calloc", "fun:dlopen@@GLIBC_2.2.5"), finding("dlopen", "main"), true},
		{valgrind("fun:calloc", "fun:dlopen@*"), finding("dlopen", "main"), true},
		{valgrind("match-leak-kinds: definite", "fun:parse_reply"), stack, true},
		{valgrind("match-leak-kinds: possible,reachable", "fun:parse_reply"), stack, false},
		{valgrind("match-leak-kinds: reachable", "fun:parse_reply"), growth, true},
		{valgrind("match-leak-kinds:indirect", "fun:parse_reply"), indirect, true},
		{valgrind("match-leak-kinds:indirect", "fun:parse_reply"), old, true},
		{valgrind("match-leak-kinds: definite", "fun:parse_reply"), indirect, false},
		{valgrind("match-leak-kinds: all", "fun:parse_reply"), indirect, true},
		{valgrind("match-leak-kinds: none", "fun:parse_reply"), stack, false},
		{valgrind("fun:parse_reply"), invalid, false},
		{valgrind("fun:*"), blind, false},
		{"{\n n\n Memcheck:Free\n fun:free\n fun:parse_reply\n}", invalid, true},
		{"{\n n\n Memcheck:Free\n fun:free\n fun:parse_reply\n}", stack, false},
		{"{\n n\n Memcheck:Free\n fun:free\n fun:main\n}", invalid, false},
		{"{\n n\n Addrcheck, Memcheck:Leak\n fun:main\n}", finding("main"), true},
		{"{\n n\n Helgrind:Leak\n fun:main\n}", finding("main"), false},
		{"{\n n\n Memcheck:Param\n write(buf)\n fun:main\n}", finding("main"), false},
	} {
		if got := matches(parse(t, c.rule), c.f); got != c.want {
			t.Errorf("%s\nmatches %v: %v, want %v", c.rule, c.f.NameKey, got, c.want)
		}
	}
}

// TestFilesJoin: rules of all formats in one file, each with its place.
func TestFilesJoin(t *testing.T) {
	r := parse(t, `# ours
function:one
leak:two

{   
   three
   # theirs
   Memcheck:Leak
   match-leak-kinds: definite

   fun:malloc
   fun:three
}
{
   four
   Helgrind:Race
   fun:four
}
key:heap.growth:unexplained
`)
	var got []string
	for i := range r.rules {
		got = append(got, r.rules[i].at+" "+r.rules[i].text)
	}
	want := []string{"x.supp:2 function:one", "x.supp:3 leak:two", "x.supp:6 three", "x.supp:19 key:heap.growth:unexplained"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"x.supp: ignored 1 suppression of other kinds than Memcheck:Leak and Memcheck:Free"}, r.notes); diff != "" {
		t.Error(diff)
	}
}

// TestDebian reads the files that Debian's valgrind comes with.
func TestDebian(t *testing.T) {
	var files []string
	for _, dir := range []string{"/usr/libexec/valgrind", "/usr/lib/valgrind", "/usr/lib/*/valgrind"} {
		found, err := filepath.Glob(filepath.Join(dir, "*.supp"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	whole := false
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var r Rules
		if err := testParser.Parse(&r, name, data); err != nil {
			t.Error(err)
		}
		t.Logf("%s: %d rules for leaks; %q", name, len(r.rules), r.notes)
		if filepath.Base(name) == "default.supp" {
			whole = true
			if blocks := strings.Count(string(data), "\n}"); len(r.rules) < 3 || len(r.notes) != 1 || blocks < 100 {
				t.Errorf("%s: %d rules of %d; %q", name, len(r.rules), blocks, r.notes)
			}
			if f := finding("tls_get_addr_tail.isra", "__tls_get_addr"); matches(&r, f) {
				t.Errorf("%s: rules for possible and reachable leaks take a definite one", name)
			}
			if f := finding("_dl_resize_dtv", "_dl_update_slotinfo", "update_get_addr", "__tls_get_addr"); !matches(&r, growing(f)) {
				t.Errorf("%s: dtv-addr-resize does not match", name)
			}
		}
	}
	if !whole {
		t.Error("no default.supp: apt-get install valgrind")
	}
}

func growing(f leak.Finding) leak.Finding {
	f.Rule = "heap.growth"
	return f
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("# c\nfunction:a*\nrule=heap.unreachable file:b.c # why\nmodule:m\nkey:k\n"))
	f.Add([]byte("leak:^a*b$\nleak:*\n"))
	f.Add([]byte("{\n n\n Memcheck:Leak\n match-leak-kinds: definite\n fun:malloc\n ...\n obj:*/x.so\n src:a.c:3\n}\n"))
	f.Add([]byte("{\n n\n Memcheck:Param\n write(buf)\n}\n{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Rules
		if err := testParser.Parse(&r, "f", data); err != nil {
			if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("%q", err)
			}
			return
		}
		for _, g := range []leak.Finding{finding("parse_reply", "poll_host", "main"), finding("a<b>(c)", ""), finding()} {
			matches(&r, g)
		}
		report := &leak.Report{Findings: []leak.Finding{finding("main")}}
		r.Apply(report)
		if len(report.Findings)+suppressed(report) != 1 {
			t.Errorf("one finding became %d and %d suppressed", len(report.Findings), suppressed(report))
		}
	})
}

func suppressed(r *leak.Report) (n int) {
	for i := range r.Suppressed {
		n += r.Suppressed[i].Findings
	}
	return n
}

// FuzzGlob compares with a slow and plain way.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"a*b", "**", "?a*", "*a*b?c*"} {
		f.Add(s, "axxbaabxc")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 24 {
			return
		}
		if got, want := glob(pattern, s, true), slow(pattern, s); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, s, got, want)
		}
	})
}

func slow(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return slow(pattern[1:], s) || s != "" && slow(pattern, s[1:])
	}
	return s != "" && (pattern[0] == '?' || pattern[0] == s[0]) && slow(pattern[1:], s[1:])
}
