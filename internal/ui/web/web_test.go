package web

import (
	"bytes"
	"encoding/json"
	"html/template"
	"regexp"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/render"
	"stanch/internal/ui/example"
)

var escape = template.Must(template.New("").Parse("{{.}}"))

var data = regexp.MustCompile(`(?s)<script type="application/json" id="report">(.*?)</script>`)

// TestData finds the whole report in each page, whatever its texts are.
func TestData(t *testing.T) {
	for name, r := range example.Reports() {
		for _, script := range []string{"", "draw()"} {
			var page, want bytes.Buffer
			if err := write(&page, r, script, ""); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := render.JSON(&want, r); err != nil {
				t.Fatal(err)
			}
			found := data.FindAllSubmatch(page.Bytes(), -1)
			if len(found) != 1 {
				t.Fatalf("%s: the report is there %d times", name, len(found))
			}
			var compact bytes.Buffer
			got, err := render.ReadJSON(bytes.NewReader(found[0][1]))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := render.JSON(&compact, got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(compact.Bytes(), want.Bytes()) {
				t.Errorf("%s: the report in the page is another one", name)
			}
			if n := strings.Count(page.String(), "<script"); script == "" && n != 1 || script != "" && n != 2 {
				t.Errorf("%s: %d scripts", name, n)
			}
		}
	}
}

// TestSame says in a page what the text says.
func TestSame(t *testing.T) {
	for name, r := range example.Reports() {
		var page bytes.Buffer
		if err := HTML(&page, r); err != nil {
			t.Fatal(err)
		}
		for i := range r.Services {
			for _, p := range render.ParagraphsOf(&r.Services[i]) {
				var escaped bytes.Buffer
				if err := escape.Execute(&escaped, p.Head); err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(page.Bytes(), escaped.Bytes()) {
					t.Errorf("%s does not say: %s", name, p.Head)
				}
			}
		}
	}
}

// TestNoHistory shows what has no history as text.
func TestNoHistory(t *testing.T) {
	var page bytes.Buffer
	r := &leak.Report{Targets: []leak.ReportTarget{{ID: 1, PID: 7, Comm: "<b>cat"}}, Notes: []string{"a note"}}
	if err := HTML(&page, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<pre>&lt;b&gt;cat[7]", "Note: a note"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if n := strings.Count(page.String(), "a note"); n != 2 {
		t.Errorf("the note is there %d times, want once in the page and once in its data", n)
	}
}

// TestJSONIsSafe holds encoding/json to what the page relies on.
func TestJSONIsSafe(t *testing.T) {
	b, err := json.Marshal("</script><!--&\u2028\u2029")
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(b), "<>&\u2028\u2029") {
		t.Errorf("%s", b)
	}
}

// TestTurns tells the script where the clock on the wall was turned.
func TestTurns(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	kolkata := time.FixedZone("IST", 5*3600+1800)
	day := func(month time.Month, day int, zone *time.Location) time.Time {
		return time.Date(2026, month, day, 12, 0, 0, 0, zone)
	}
	for _, c := range []struct {
		from, to time.Time
		want     string
	}{
		{day(11, 20, time.UTC), day(11, 21, time.UTC), "[[0,0]]"},
		{day(11, 20, kolkata), day(11, 21, kolkata), "[[0,19800]]"},
		{day(11, 20, berlin), day(11, 21, berlin), "[[0,3600]]"},
		{day(10, 24, berlin), day(10, 26, berlin), "[[0,7200],[1792890000,3600]]"},
		{day(3, 1, berlin), day(11, 1, berlin), "[[0,3600],[1774746000,7200],[1792890000,3600]]"},
		{time.Time{}, time.Time{}, "[[0,0]]"},
	} {
		if got := turns(&leak.ReportService{From: c.from, To: c.to}); got != c.want {
			t.Errorf("%v to %v: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

// TestCrowded draws many restarts as strokes at the top: their lines would hide
// the chart.
func TestCrowded(t *testing.T) {
	for name, want := range map[string]bool{"steps": false, "restarts": true} {
		s := &example.Reports()[name].Services[0]
		drawn, _, _ := picture(s, &s.Charts[0])
		lines := regexp.MustCompile(`<path class="restart" d="M\d+ 0V200"`).FindAllString(string(drawn), -1)
		strokes := regexp.MustCompile(`<path class="restart" d="M\d+ 0V10"`).FindAllString(string(drawn), -1)
		if (len(strokes) > 0) != want || (len(lines) > 0) == want {
			t.Errorf("%s: %d lines and %d strokes", name, len(lines), len(strokes))
		}
	}
}
