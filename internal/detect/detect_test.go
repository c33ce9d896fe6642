package detect

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
	"stanch/internal/ledger"
	"stanch/internal/record"
)

func TestDetectorsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range All {
		if d.Name == "" || d.Doc == "" || d.Run == nil || seen[d.Name] || strings.ContainsAny(d.Name, ": ") {
			t.Errorf("%q is not a whole detector", d.Name)
		}
		seen[d.Name] = true
	}
}

func TestUrgency(t *testing.T) {
	soon := leak.Finding{Key: "soon", Exhaustion: &leak.Exhaustion{InS: 10}}
	late := leak.Finding{Key: "late", Exhaustion: &leak.Exhaustion{InS: 100}}
	fast := leak.Finding{Key: "fast", Rate: &leak.Rate{BytesPerHour: 10}}
	big := leak.Finding{Key: "big", Bytes: 100}
	old := leak.Finding{Key: "old", BeforeAttach: &leak.BeforeAttach{Bytes: 50}}
	order := []leak.Finding{soon, late, fast, big, old}
	for i := range order {
		for j := range order {
			if got := urgency(order[i], order[j]); (got < 0) != (i < j) {
				t.Errorf("%s before %s: %d", order[i].Key, order[j].Key, got)
			}
		}
	}
}

func TestPlain(t *testing.T) {
	for function, want := range map[string]string{
		"main":                        "main",
		"":                            "",
		"parse_reply":                 "parse_reply",
		"f.part.0":                    "f",
		"f.isra.3.cold":               "f",
		"malloc@plt":                  "malloc",
		"operator new(unsigned long)": "operator new",
		"operator new[](unsigned long, std::nothrow_t const&)":                                   "operator new[]",
		"Conn::operator()(int) const":                                                            "Conn::operator()",
		"Conn::operator<<(int)":                                                                  "Conn::operator<<",
		"void std::vector<int, std::allocator<int> >::push_back(int&&)":                          "std::vector::push_back",
		"void* std::__new_allocator<char>::allocate(unsigned long, void const*) [clone .isra.0]": "std::__new_allocator::allocate",
		"(anonymous namespace)::Pool::get()":                                                     "Pool::get",
		"std::map<int, Conn*>::operator[](int const&)":                                           "std::map::operator[]",
		"Cache::put(std::string const&)":                                                         "Cache::put",
		"<unbalanced":                                                                            "",
		"my_operator":                                                                            "my_operator",
		"operators::run(int)":                                                                    "operators::run",
	} {
		if got := plain(function); got != want {
			t.Errorf("plain(%q) = %q, want %q", function, got, want)
		}
	}
}

func TestClassName(t *testing.T) {
	for class, want := range map[string]string{
		"Conn":                        "Conn",
		"(anonymous namespace)::Conn": "Conn",
		"std::_Sp_counted_ptr_inplace<(anonymous namespace)::Peer, std::allocator<void>, (__gnu_cxx::_Lock_policy)2>": "shared Peer",
		"std::_Sp_counted_ptr<net::Conn<int, long>*, (__gnu_cxx::_Lock_policy)2>":                                     "shared net::Conn<int, long>",
		"std::_Sp_counted_ptr_inplace<": "std::_Sp_counted_ptr_inplace<",
	} {
		if got := className(class); got != want {
			t.Errorf("className(%q) = %q, want %q", class, got, want)
		}
	}
}

// TestSite shows which line of a stack is the one to look at.
func TestSite(t *testing.T) {
	for _, c := range []struct{ frames, want string }{
		{"malloc@libc.so.6 parse@app main@app", "[parse] main"},
		{"xmalloc@app parse@app main@app", "xmalloc [parse] main"},
		{"mywrap@app xmalloc@app parse@app", "mywrap xmalloc [parse]"},
		{"strdup@libc.so.6 parse@app", "[parse]"},
		{"_IO_file_doallocate@libc.so.6 fopen@libc.so.6 parse@app", "_IO_file_doallocate fopen [parse]"},
		{"operator_new(unsigned_long)@libstdc++.so.6 std::__new_allocator<int>::allocate(unsigned_long)@app std::vector<int>::push_back(int)@app Conn::read()@app", "std::vector::push_back [Conn::read]"},
		{"PyMem_RawMalloc@python3.11 PyList_New@python3.11", "PyMem_RawMalloc [PyList_New]"},
		{"malloc@libc.so.6", "[malloc]"},
		{"fopen@libc.so.6 start@libc.so.6", "[fopen] start"},
		{"je_malloc@libjemalloc.so.2 createObject@redis-server", "[createObject]"},
	} {
		v := &ledger.View{Maps: map[leak.MapID]leak.Mapping{}, Stacks: map[leak.StackID][]leak.Frame{}}
		names := map[uint64]string{}
		for i, f := range strings.Fields(c.frames) {
			fn, module, _ := strings.Cut(f, "@")
			id := leak.MapID(i + 1)
			v.Maps[id] = leak.Mapping{ID: id, Path: "/x/" + module}
			v.Stacks[1] = append(v.Stacks[1], leak.Frame{Map: id, Off: uint64(i + 1)})
			names[uint64(i+1)] = strings.ReplaceAll(strings.Replace(fn, "operator_new", "operator new", 1), "unsigned_long", "unsigned long")
		}
		n := newNames(v, &Config{Wrappers: []string{"mywrap"}, Name: func(f leak.Frame) []leak.StackFrame {
			return []leak.StackFrame{{Function: names[f.Off]}}
		}})
		s := n.stack(1)
		var got []string
		for i := range s.stack {
			name := plain(s.stack[i].Function)
			if i == s.line {
				name = "[" + name + "]"
			}
			got = append(got, name)
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s", c.frames, diff)
		}
	}
}

func TestKeysAreStable(t *testing.T) {
	v := &ledger.View{
		Maps:   map[leak.MapID]leak.Mapping{1: {ID: 1, Path: "/usr/sbin/app", BuildID: "4f1c99aabb"}, 2: {ID: 2, Path: "/usr/sbin/app", BuildID: "4f1c99aabb", Start: 0x1000}},
		Stacks: map[leak.StackID][]leak.Frame{1: {{Map: 1, Off: 0x10}, {Map: 1, Off: 0x20}}, 2: {{Map: 2, Off: 0x10}, {Map: 2, Off: 0x20}}, 3: {{Map: 1, Off: 0x10}, {Map: 1, Off: 0x30}}},
	}
	n := newNames(v, &Config{})
	if a, b, c := n.stack(1).key, n.stack(2).key, n.stack(3).key; a != b || a == c || !strings.HasPrefix(a, "4f1c99aa:10:") {
		t.Errorf("keys %s, %s, %s", a, b, c)
	}
	if got := n.stack(1).nameKey; got != "app:app+0x10:app+0x20" {
		t.Errorf("name key %s", got)
	}
}

func TestCountInterval(t *testing.T) {
	// Exact Poisson limits, from tables.
	for _, c := range []struct{ n, low, high float64 }{{0, 0, 3.689}, {1, 0.0253, 5.572}, {5, 1.623, 11.668}, {10, 4.795, 18.390}, {100, 81.36, 121.63}} {
		low, high := countInterval(c.n)
		if math.Abs(low-c.low) > 0.03 || math.Abs(high-c.high) > 0.13 {
			t.Errorf("%v: %.3f to %.3f, want %.3f to %.3f", c.n, low, high, c.low, c.high)
		}
	}
}

func TestRising(t *testing.T) {
	series := func(f func(i int) float64) []ledger.Point {
		var ps []ledger.Point
		for i := range 31 {
			ps = append(ps, ledger.Point{At: time.Duration(i) * time.Second, Value: f(i)})
		}
		return ps
	}
	for name, c := range map[string]struct {
		f    func(i int) float64
		want bool
	}{
		"steady":  {func(i int) float64 { return float64(i * 10) }, true},
		"noisy":   {func(i int) float64 { return float64(i*10 + i*7919%13) }, true},
		"flat":    {func(int) float64 { return 5 }, false},
		"falling": {func(i int) float64 { return float64(-i) }, false},
		"a step":  {func(i int) float64 { return float64(i / 12 * 100) }, false},
		"a wave":  {func(i int) float64 { return math.Sin(float64(i)) * 100 }, false},
		"fills":   {func(i int) float64 { return 100 - 100*math.Exp(-float64(i)/3) }, false},
	} {
		got, ok := rising(series(c.f))
		if ok != c.want {
			t.Errorf("%s: %v, %+v", name, ok, got)
		}
		if ok && math.Abs(got.perHour-36000) > 1800 {
			t.Errorf("%s: %v an hour", name, got.perHour)
		}
	}
}

// manyAlike matches what stands for so many that they take long.
var manyAlike = regexp.MustCompile(`\*0x|\*\d{4}`)

func FuzzRun(f *testing.F) {
	f.Add([]byte("look 1 0s walked\nlost 0x10*5/16 24 zero\nlook 2 2s walked\nlost 0x10*5/16 24 zero\n"))
	f.Add([]byte("map 1 0x1-0x2 r\nstack 1 1+0x1\n+ 1s mem 0x10 size=20 stack=1\nlook 1 3s walked\nlost 0x10 24\nindirect 0x20 24 owner=0x10\nlook 2 9s\n"))
	f.Add([]byte("tally -1s mem stack=1 acquired=NaN/1 released=2/1e300\ngauge 1s rss_bytes -Inf\ngauge 9s descriptors 1e308\ngauge 9s descriptors_limit 1\n"))
	f.Add([]byte("map 1 0x1-0x2 r\nstack 1 1+0x1\n+ 1s mem 0x10 size=20 stack=1 exact\ninvalid 2s mem 0x10 double stack=1 acquired=1\nlook 1 3s walked final\nlost 0x10 24\n"))
	f.Add([]byte("stack 1 1+0x1\n+ 1s mapping 0x1000*9/4096 size=4096 stack=1\n+ 9s thread 5 stack=1\n+ 2s pool 0x10 size=7 weight=9 stack=1\nlook 1 3s final\n"))
	for _, story := range []string{"fds_accumulating", "closewait", "fds_report", "inherited", "unclosed_exit", "fdlimit"} {
		text, err := os.ReadFile("testdata/" + story + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		seen, _, _ := strings.Cut(string(text), wantMark)
		f.Add([]byte(observations(f, seen)))
	}
	f.Add([]byte("stack 1 1+0x1\nlisting -1s\n+ 1s fd 9 stack=1 call=accept\nuse 2s fd 9 read\nlisting 5s\nopen 9*12/1 socket protocol=tcp state=CLOSE_WAIT local=:1 peer=:2 received=2h sent=2h\nopen 3 file name=/1/2.\nusage 6s descriptors used=9 max=1\nfailure 1s x y n=1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 || bytes.Count(data, []byte("*")) > 8 || manyAlike.Match(data) {
			return
		}
		run := func() []leak.Finding {
			books := ledger.New()
			_, _ = record.Read(strings.NewReader("stanch recording 1\n"+string(data)+"\nend\n"), books)
			v := books.View()
			Unseen(v)
			for _, p := range v.Procs {
				Totals(p)
				d, err := json.Marshal(DescriptorsOf(v, p, Config{}, true))
				if err != nil {
					t.Fatal(err)
				}
				// cmp.Equal of so many would take seconds.
				if again, _ := json.Marshal(DescriptorsOf(v, p, Config{}, true)); !bytes.Equal(d, again) {
					t.Errorf("not the same twice: %s and %s", d, again)
				}
			}
			return Run(v, Config{Reachable: true})
		}
		a, b := run(), run()
		if _, err := json.Marshal(a); err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(a, b) {
			t.Errorf("not the same twice: %s", cmp.Diff(a, b))
		}
		for i := range a {
			if a[i].Severity == "" || a[i].Title == "" || len(a[i].Stack) > 0 && a[i].Site >= len(a[i].Stack) {
				t.Errorf("%+v", a[i])
			}
			if r := (&leak.Report{Targets: []leak.ReportTarget{{ID: a[i].Target}}, Findings: a[i : i+1]}); len(Join(r, r).Findings) != 1 {
				t.Errorf("joined with itself it is not one: %+v", a[i])
			}
			if x := a[i].Exhaustion; x != nil && x.InS < 0 {
				t.Errorf("exhaustion %+v", x)
			}
		}
	})
}
