package web

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"stanch/internal/leak"
	"stanch/internal/ui/example"
)

// browser starts Chromium for a test. Root may not use its sandbox, and what it
// shows here is our own page.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.ExecPath("/usr/bin/chromium"), chromedp.UserDataDir(t.TempDir()),
		// A container has little shared memory, and a graphics card that is played
		// by the CPU costs more than drawing without one.
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-software-rasterizer", true))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, _ = chromedp.NewContext(ctx)
	// Unlike the end of its context, Cancel waits until the browser is gone, and
	// with it whoever writes into its directory.
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("stop chromium: %v", err)
		}
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tab is a page that was opened from a file, and all that it did.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	requests []string
	errors   []string
}

// open writes a page to a file and opens it in a tab of so many pixels.
func open(t *testing.T, browser context.Context, html []byte, width, height int64) *tab {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, html, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &tab{t: t, url: "file://" + path}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithListener(func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch ev := ev.(type) {
		case *network.EventRequestWillBeSent:
			b.requests = append(b.requests, ev.Request.URL)
		case *runtime.EventExceptionThrown:
			b.errors = append(b.errors, ev.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			b.errors = append(b.errors, fmt.Sprintf("console.%s", ev.Type))
		case *log.EventEntryAdded:
			// Reading pixels more than once is what this test does, not the page.
			if !strings.Contains(ev.Entry.Text, "getImageData") {
				b.errors = append(b.errors, ev.Entry.Text)
			}
		}
	}))
	t.Cleanup(cancel)
	b.ctx = ctx
	b.run(command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}), chromedp.EmulateViewport(width, height), chromedp.Navigate(b.url))
	return b
}

// command is a step that sends one command of the protocol.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

func (b *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// value runs what has a result.
func value[T any](b *tab, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// eval gives the value of an expression.
func eval[T any](b *tab, js string) T {
	b.t.Helper()
	return value(b, chromedp.Evaluate[T](js))
}

// wait waits until an expression holds.
func (b *tab) wait(js string) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !eval[bool](b, js); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("never true: %s", js)
		}
	}
}

// quiet fails when the page asked for anything but itself, or complained.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) != 1 || b.requests[0] != b.url {
		b.t.Errorf("requests: %q, want the file alone", b.requests)
	}
	if len(b.errors) > 0 {
		b.t.Errorf("the page complains: %q", b.errors)
	}
}

// keep writes what is on the screen into the directory that STANCH_SCREENSHOTS
// names, for people.
func (b *tab) keep(name string) {
	dir := os.Getenv("STANCH_SCREENSHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), value(b, chromedp.FullScreenshot(100)), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// media shows the page on a "screen" or in "print", "light" or "dark".
func media(kind, scheme string) chromedp.Action[chromedp.Void] {
	return command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Media: kind, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// rendered is a page whose charts zoom.
func rendered(t *testing.T, r *leak.Report) []byte {
	t.Helper()
	if !Zooms() {
		t.Fatal("the bundle is missing: make bundle")
	}
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// painted counts the pixels of a chart that have the colour of its line.
const painted = `(() => {
	const c = document.querySelector("figure.chart canvas");
	const hex = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
	const want = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
	const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
	let n = 0;
	for (let i = 0; i < d.length; i += 4) if (want.every((v, k) => Math.abs(d[i + k] - v) < 24) && d[i + 3] > 200) n++;
	return n;
})()`

// rangeOf is what a chart of a service shows, in seconds.
func (b *tab) rangeOf(figure int) (from, to float64) {
	v := eval[[]float64](b, fmt.Sprintf(`(f => [Number(f.dataset.from), Number(f.dataset.to)])(document.querySelectorAll("#s0 figure.chart")[%d])`, figure))
	return v[0], v[1]
}

// TestBrowser opens pages in Chromium from files.
func TestBrowser(t *testing.T) {
	chromium := browser(t)
	reports := example.Reports()

	t.Run("charts", func(t *testing.T) {
		b := open(t, chromium, rendered(t, reports["steps"]), 1200, 900)
		b.wait(`document.querySelectorAll("#s0 figure.chart canvas").length === 2`)
		b.wait(painted + " > 300")
		b.keep("steps")
		tips(t, b, &reports["steps"].Services[0])
		zoom(t, b)
		keys(t, b)
		b.quiet()
	})
	t.Run("host", func(t *testing.T) {
		b := open(t, chromium, rendered(t, reports["host"]), 1200, 900)
		b.wait(`document.querySelectorAll("canvas").length === 7`)
		b.keep("host")
		// A service that does not grow is folded; a link unfolds it.
		eval[string](b, `location.hash = "#s5"`)
		b.wait(`document.querySelectorAll("#s5 canvas").length === 1`)
		b.run(media("screen", "dark"))
		b.wait(painted + " > 300")
		b.keep("host_dark")
		b.quiet()
	})
	t.Run("narrow", func(t *testing.T) {
		for _, name := range []string{"host", "steps", "odd"} {
			b := open(t, chromium, rendered(t, reports[name]), 400, 800)
			b.wait(`document.querySelectorAll("canvas").length > 0`)
			narrow(t, b)
			b.keep("narrow_" + name)
			if name == "steps" {
				fingers(t, b)
			}
			b.quiet()
		}
	})
	t.Run("hostile", func(t *testing.T) {
		b := open(t, chromium, rendered(t, reports["hostile"]), 1200, 900)
		b.wait(`document.querySelectorAll("canvas").length === 2`)
		for _, js := range []string{`document.title.includes("taken") && !document.title.includes("script")`, `document.images.length > 0`, `document.scripts.length !== 2`} {
			if eval[bool](b, js) {
				t.Errorf("a hostile name did something: %s", js)
			}
		}
		// What it is called is there to be read, letter by letter.
		if got := eval[string](b, `document.querySelector("h2").textContent`); !strings.Contains(got, "</script><script>") {
			t.Errorf("the name of the service is %q", got)
		}
		if got := eval[string](b, `getComputedStyle(document.querySelector("h2")).unicodeBidi`); got != "isolate" {
			t.Errorf("a name that is written from right to left turns what is around it: unicode-bidi is %s", got)
		}
		b.run(chromedp.MouseEvent(chromedp.MouseMoved, 300, 600))
		b.keep("hostile")
		b.run(chromedp.EmulateViewport(400, 800))
		b.wait(`document.querySelector("canvas").clientWidth < 400`)
		narrow(t, b)
		b.keep("hostile_narrow")
		b.quiet()
	})
	t.Run("turned clock", func(t *testing.T) {
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		r := turned(berlin)
		b := open(t, chromium, rendered(t, r), 1200, 900)
		b.wait(`document.querySelectorAll("#s0 canvas").length === 1`)
		mark := r.Services[0].Marks[0].At
		b.point(mark, r)
		b.wait(fmt.Sprintf(`document.querySelector("#s0 .tip:not([hidden])")?.textContent.includes(%q)`, mark.Format("2 Jan 15:04:05")))
		b.wait(fmt.Sprintf(`document.querySelector("#s0 .tip:not([hidden])")?.textContent.includes(%q)`, mark.Format("15:04:05 restarted")))
		b.keep("turned")
		late := r.Services[0].To.Add(-time.Hour)
		b.point(late, r)
		b.wait(fmt.Sprintf(`document.querySelector("#s0 .tip:not([hidden])")?.textContent.includes(%q)`, late.Format("2 Jan 15:04:05")))
		b.quiet()
	})
	t.Run("still", func(t *testing.T) {
		var out bytes.Buffer
		if err := write(&out, reports["host"], "", ""); err != nil {
			t.Fatal(err)
		}
		b := open(t, chromium, out.Bytes(), 400, 800)
		b.wait(`document.querySelectorAll("svg .line").length > 5`)
		narrow(t, b)
		if eval[bool](b, `document.querySelectorAll("canvas, button:not([hidden]), .hint:not([hidden])").length > 0`) {
			t.Error("what needs the script is shown without it")
		}
		b.keep("still_narrow")
		b.run(chromedp.EmulateViewport(1200, 900))
		b.keep("still")
		b.quiet()
	})
	t.Run("paper", func(t *testing.T) {
		b := open(t, chromium, rendered(t, reports["steps"]), 1200, 900)
		b.run(media("screen", "dark"))
		b.wait(painted + " > 300")
		b.run(media("print", "dark"))
		b.wait(`getComputedStyle(document.body).backgroundColor === "rgb(255, 255, 255)"`)
		b.wait(painted + " > 300")
		if pdf := value(b, chromedp.PrintToPDF()); len(pdf) < 10_000 {
			t.Errorf("a PDF of %d bytes", len(pdf))
		}
		b.quiet()
	})
}

// turned is a history over the night in which summer time ends, a point each ten
// minutes, with a restart before that.
func turned(zone *time.Location) *leak.Report {
	from, to := time.Date(2026, 10, 24, 20, 0, 0, 0, zone), time.Date(2026, 10, 25, 13, 0, 0, 0, zone)
	s := leak.ReportService{Name: "night.service", Kind: "unit", From: from, To: to}
	c := leak.ReportChart{Metric: "m", Title: "things"}
	for at := from; !at.After(to); at = at.Add(10 * time.Minute) {
		c.Points = append(c.Points, [2]float64{float64(at.Unix()), float64(at.Minute())})
	}
	s.Charts = append(s.Charts, c)
	s.Marks = append(s.Marks, leak.ReportMark{At: from.Add(2 * time.Hour), Kind: leak.MarkRestart, Text: "restarted, pid 1 -> 2"})
	return &leak.Report{Services: []leak.ReportService{s}}
}

// point moves the mouse to a time on the first chart of a report's only service.
func (b *tab) point(at time.Time, r *leak.Report) {
	b.t.Helper()
	s := &r.Services[0]
	part := float64(at.Sub(s.From)) / float64(s.To.Sub(s.From))
	box := eval[[]float64](b, `(r => [r.left, r.top, r.width, r.height])(document.querySelector("#s0 .u-over").getBoundingClientRect())`)
	b.run(chromedp.MouseEvent(chromedp.MouseMoved, box[0]+box[2]*part, box[1]+box[3]/2))
}

// zoom drags over the first chart; a double click and a button undo it.
func zoom(t *testing.T, b *tab) {
	t.Helper()
	from, to := b.rangeOf(0)
	box := eval[[]float64](b, `(r => [r.left, r.top, r.width, r.height])(document.querySelector("#s0 .u-over").getBoundingClientRect())`)
	y := box[1] + box[3]/2
	drag := func() {
		b.run(
			chromedp.MouseEvent(chromedp.MouseMoved, box[0]+box[2]*0.25, y),
			chromedp.MouseEvent(chromedp.MousePressed, box[0]+box[2]*0.25, y, chromedp.ButtonLeft, chromedp.ClickCount(1)),
			chromedp.MouseEvent(chromedp.MouseMoved, box[0]+box[2]*0.4, y, chromedp.ButtonLeft),
			chromedp.MouseEvent(chromedp.MouseMoved, box[0]+box[2]*0.5, y, chromedp.ButtonLeft),
			chromedp.MouseEvent(chromedp.MouseReleased, box[0]+box[2]*0.5, y, chromedp.ButtonLeft, chromedp.ClickCount(1)),
		)
		b.wait(fmt.Sprintf(`Number(document.querySelector("#s0 figure.chart").dataset.from) > %f`, from))
	}
	drag()
	for figure := range 2 {
		f, u := b.rangeOf(figure)
		if got, want := (f-from)/(to-from), 0.25; got < want-0.02 || got > want+0.02 {
			t.Errorf("chart %d begins at %.2f of its time, want %.2f", figure, got, want)
		}
		if got, want := (u-from)/(to-from), 0.5; got < want-0.02 || got > want+0.02 {
			t.Errorf("chart %d ends at %.2f of its time, want %.2f", figure, got, want)
		}
	}
	b.wait(`!document.querySelector("#s0 .tip").hidden`)
	b.keep("steps_zoomed")
	whole := fmt.Sprintf(`[...document.querySelectorAll("#s0 figure.chart")].every(f => Number(f.dataset.from) === %f && Number(f.dataset.to) === %f)`, from, to)
	b.run(chromedp.MouseClickXY(box[0]+box[2]/2, y, chromedp.ClickCount(2)))
	b.wait(whole)
	drag()
	b.run(chromedp.Click("#s0 button.reset"))
	b.wait(whole)
}

// tips points at a step: what it is and the log line before it are said.
func tips(t *testing.T, b *tab, s *leak.ReportService) {
	t.Helper()
	from, to := b.rangeOf(0)
	for _, m := range s.Marks {
		if m.Kind != leak.MarkStep {
			continue
		}
		box := eval[[]float64](b, `(r => [r.left, r.top, r.width, r.height])(document.querySelector("#s0 .u-over").getBoundingClientRect())`)
		b.run(chromedp.MouseEvent(chromedp.MouseMoved, box[0]+box[2]*(float64(m.At.UnixMilli())/1000-from)/(to-from), box[1]+box[3]/2))
		break
	}
	b.wait(`(t => t.includes("resident memory +31.5 MB") && t.includes("data truncated"))(document.querySelector("#s0 .tip:not([hidden])")?.textContent ?? "")`)
	b.keep("steps_tip")
}

// keys zooms and moves without a mouse.
func keys(t *testing.T, b *tab) {
	t.Helper()
	from, to := b.rangeOf(0)
	b.run(chromedp.Focus("#s0 .u-over"), chromedp.KeyEvent("+"))
	b.wait(fmt.Sprintf(`Number(document.querySelector("#s0 figure.chart").dataset.to) < %f`, to))
	f, u := b.rangeOf(1)
	if f <= from || u >= to {
		t.Errorf("the second chart shows %v to %v of %v to %v", f, u, from, to)
	}
	b.run(chromedp.KeyEvent(kb.ArrowRight))
	b.wait(`/\d\d:\d\d:\d\d/.test(document.querySelector("#s0 .tip:not([hidden])")?.textContent ?? "")`)
	b.run(chromedp.KeyEvent(kb.Escape))
	b.wait(fmt.Sprintf(`Number(document.querySelector("#s0 figure.chart").dataset.to) === %f`, to))
	if n := eval[int](b, `document.querySelectorAll('[aria-label^="chart: resident memory"]').length`); n != 1 {
		t.Errorf("%d charts have a name for those who do not see them, want 1", n)
	}
}

// fingers pinches the first chart of a telephone, and moves it.
func fingers(t *testing.T, b *tab) {
	t.Helper()
	b.run(chromedp.ScrollIntoView("#s0 .u-over"))
	from, to := b.rangeOf(0)
	box := eval[[]float64](b, `(r => [r.left, r.top, r.width, r.height])(document.querySelector("#s0 .u-over").getBoundingClientRect())`)
	touch := func(kind input.DispatchTouchEventType, at ...float64) chromedp.Action[chromedp.Void] {
		p := input.DispatchTouchEventParams{Type: kind, TouchPoints: []*input.TouchPoint{}}
		for i, x := range at {
			id := float64(i)
			p.TouchPoints = append(p.TouchPoints, &input.TouchPoint{X: box[0] + box[2]*x, Y: box[1] + box[3]/2, ID: &id})
		}
		return command(input.DispatchTouchEvent, p)
	}
	b.run(touch("touchStart", 0.4, 0.6), touch("touchMove", 0.3, 0.7), touch("touchMove", 0.2, 0.8), touch("touchEnd"))
	b.wait(fmt.Sprintf(`Number(document.querySelector("#s0 figure.chart").dataset.from) > %f`, from+(to-from)/4))
	f, u := b.rangeOf(0)
	if part := (u - f) / (to - from); part < 0.28 || part > 0.38 {
		t.Errorf("after fingers went three times as far apart, %.2f of the time is shown", part)
	}
	b.run(touch("touchStart", 0.2), touch("touchMove", 0.5), touch("touchMove", 0.9), touch("touchEnd"))
	b.wait(fmt.Sprintf(`Number(document.querySelector("#s0 figure.chart").dataset.from) < %f`, f))
	if f2, u2 := b.rangeOf(0); math.Abs(u2-f2-(u-f)) > 2 || f2 < from {
		t.Errorf("one finger moved %v to %v to %v to %v", f, u, f2, u2)
	}
}

// narrow fails when the page scrolls sideways, or has text that is too small.
func narrow(t *testing.T, b *tab) {
	t.Helper()
	if w := eval[float64](b, "document.scrollingElement.scrollWidth"); w > 400 {
		t.Errorf("the page is %v pixels wide", w)
	}
	small := eval[[]string](b, `[...document.querySelectorAll("main *")]
		.filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 12 && e.tagName !== "TITLE")
		.map(e => e.tagName + " " + e.className + ": " + e.textContent.slice(0, 40))`)
	if len(small) > 0 {
		t.Errorf("text below 12 pixels: %q", small)
	}
	// Nothing is cut off at the right either.
	wide := eval[[]string](b, `[...document.querySelectorAll("main *")].filter(e => e.checkVisibility() && !e.closest("svg, pre") && e.getBoundingClientRect().right > 401).map(e => e.tagName + " " + e.className)`)
	if len(wide) > 0 {
		t.Errorf("beyond the page: %q", wide)
	}
}
