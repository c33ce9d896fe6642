package term

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
	"stanch/internal/ui/example"
)

var update = flag.Bool("update", false, "write the golden files anew")

func draw(t *testing.T, s *leak.ReportService, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Charts(&b, s, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGoldens(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"steps", Options{}},
		{"steps", Options{Width: 60}},
		{"steps", Options{Width: 200}},
		{"steps", Options{ASCII: true}},
		{"steps", Options{Color: true}},
		{"descriptors", Options{}},
		{"descriptors", Options{Width: 60, Height: 4}},
		{"cache", Options{}},
		{"undecided", Options{}},
		{"restarts", Options{}},
		{"restarts", Options{ASCII: true, Width: 60}},
		{"load", Options{}},
		{"hostile", Options{ASCII: true}},
		{"bare", Options{}},
		{"odd", Options{}},
	} {
		name := c.name
		if c.o.Width > 0 {
			name += fmt.Sprintf("_%d", c.o.Width)
		}
		if c.o.ASCII {
			name += "_ascii"
		}
		if c.o.Color {
			name += "_color"
		}
		t.Run(name, func(t *testing.T) {
			got := draw(t, &example.Reports()[c.name].Services[0], c.o)
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

var colours = regexp.MustCompile(`\x1b\[[0-9]+m`)

// TestWidths draws every example at every width: no line is longer, and no
// character is one that a terminal would act on.
func TestWidths(t *testing.T) {
	for name, r := range example.Reports() {
		for i := range r.Services {
			for _, width := range []int{1, 40, 60, 61, 80, 133, 200} {
				for _, o := range []Options{{Width: width}, {Width: width, ASCII: true}, {Width: width, Color: true}, {Width: width, Height: 3}} {
					got := colours.ReplaceAllString(draw(t, &r.Services[i], o), "")
					for line := range strings.Lines(got) {
						line = strings.TrimSuffix(line, "\n")
						if n := utf8.RuneCountInString(line); n > max(width, 40) {
							t.Fatalf("%s %+v: %d columns: %q", name, o, n, line)
						}
						for _, r := range line {
							if !unicode.IsPrint(r) || o.ASCII && r >= 0x80 {
								t.Fatalf("%s %+v: %q in %q", name, o, r, line)
							}
						}
					}
				}
			}
		}
	}
}

// TestFlatAndLimits draws lines where they belong: what grows to its limit
// ends at the top, below the limit.
func TestFlatAndLimits(t *testing.T) {
	limit := 100.0
	s := &leak.ReportService{From: time.Unix(0, 0).UTC(), To: time.Unix(3600, 0).UTC()}
	c := leak.ReportChart{Title: "things", Limit: &limit, LimitName: "the most"}
	for i := range 61 {
		c.Points = append(c.Points, [2]float64{float64(i * 60), float64(i) * 1.5})
	}
	s.Charts = []leak.ReportChart{c}
	lines := strings.Split(draw(t, s, Options{Width: 60, ASCII: true}), "\n")
	if !strings.Contains(lines[1], "= the most 100 =") {
		t.Errorf("no limit at the top: %q", lines[1])
	}
	if !strings.HasSuffix(lines[2], "*") || !strings.Contains(lines[8], "|**") && !strings.Contains(lines[8], "+**") {
		t.Errorf("not from the bottom left to the top right:\n%s", strings.Join(lines, "\n"))
	}
	if again := 1e6; true {
		s.Charts[0].Limit = &again
	}
	if got := draw(t, s, Options{Width: 80}); strings.Contains(got, "╌") || !strings.Contains(got, "the most 1,000,000") {
		t.Errorf("a limit out of reach is written:\n%s", got)
	}
}

func TestUTF8(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{map[string]string{"LANG": "C.UTF-8"}, true},
		{map[string]string{"LANG": "de_DE.utf8"}, true},
		{map[string]string{"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, false},
		{map[string]string{"LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, true},
		{map[string]string{}, false},
	} {
		if got := UTF8(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %v", c.env, got)
		}
	}
}

// TestGutter leaves room for the numbers of the smaller charts too: these have
// fewer of them, which may be longer.
func TestGutter(t *testing.T) {
	s := &leak.ReportService{From: time.Unix(0, 0).UTC(), To: time.Unix(60, 0).UTC()}
	for range 2 {
		s.Charts = append(s.Charts, leak.ReportChart{Title: "page faults per second", Points: [][2]float64{{0, 0}, {60, 7.8e6}}})
	}
	for line := range strings.Lines(draw(t, s, Options{Width: 60})) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 60 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}
