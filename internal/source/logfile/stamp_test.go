package logfile

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// readAt is when the lines of these tests are read.
var readAt = time.Date(2026, 11, 21, 12, 0, 0, 0, time.FixedZone("CET", 3600))

func testReader() *reader { return &reader{zone: readAt.Location()} }

func TestTimesInLines(t *testing.T) {
	const plus1 = "2026-11-21T10:00:00+01:00"
	for _, c := range []struct{ line, at, text string }{
		// ISO 8601 and RFC 3339.
		{"2026-11-21T10:00:00Z started", "2026-11-21T10:00:00Z", "started"},
		{"2026-11-21T10:00:00.123456789+05:30 started", "2026-11-21T10:00:00.123456789+05:30", "started"},
		{"2026-11-21 10:00:00 started", plus1, "started"},
		{"2026-11-21 10:00:00,123 started", "2026-11-21T10:00:00.123+01:00", "started"},
		{"2026-11-21 10:00:00.123 -0330 started", "2026-11-21T10:00:00.123-03:30", "started"},
		{"2026-11-21 10:00:00 - started", plus1, "- started"},
		{"[2026-11-21 10:00:00] started", plus1, "started"},
		{"[2026-11-21 10:00:00] [info] plugin loaded", plus1, "[info] plugin loaded"},
		{"2026-11-21T10:00:00.5Z stdout F collecting", "2026-11-21T10:00:00.5Z", "stdout F collecting"},
		{"2026-11-21T10:00:00.123456Z 0 [Note] InnoDB: started", "2026-11-21T10:00:00.123456Z", "0 [Note] InnoDB: started"},
		// Java log4j and logback, Python logging.
		{"2026-11-21 10:00:00,123 INFO [main] Server - started", "2026-11-21T10:00:00.123+01:00", "INFO [main] Server - started"},
		{"10 at 2026-11-21 10:00:00 sharp", "", "10 at sharp"}, // within a line, and seen once
		// syslog.
		{"Nov 21 10:00:00 host collectd[4711]: started", plus1, "host collectd[4711]: started"},
		{"Nov  1 10:00:00 host collectd[4711]: started", "2026-11-01T10:00:00+01:00", "host collectd[4711]: started"},
		{"<34>Nov 21 10:00:00 host su: failed", plus1, "<34>host su: failed"},
		{"Dec 31 23:59:59 host su: failed", "2025-12-31T23:59:59+01:00", "host su: failed"},
		{"Nov 22 11:00:00 host clock: ahead", "2026-11-22T11:00:00+01:00", "host clock: ahead"},
		{"Feb 29 10:00:00 host leap: year", "2024-02-29T10:00:00+01:00", "host leap: year"},
		{"<34>1 2026-11-21T10:00:00.003Z host su - ID47 - failed", "2026-11-21T10:00:00.003Z", "<34>1 host su - ID47 - failed"},
		// Web servers.
		{`2026/11/21 10:00:00 [error] 4711#0: *1 open() failed`, plus1, `[error] 4711#0: *1 open() failed`},
		{"[Sat Nov 21 10:00:00.902022 2026] [core:error] [pid 4711] no", "2026-11-21T10:00:00.902022+01:00", "[core:error] [pid 4711] no"},
		{"[21-Nov-2026 10:00:00] NOTICE: ready", plus1, "NOTICE: ready"},
		{"[21-Nov-2026 10:00:00 UTC] PHP Warning", "2026-11-21T10:00:00Z", "PHP Warning"},
		{"Sat, 21 Nov 2026 10:00:00 GMT ready", "2026-11-21T10:00:00Z", "ready"},
		// Go.
		{"2026/11/21 10:00:00.123456 main.go:12: started", "2026-11-21T10:00:00.123456+01:00", "main.go:12: started"},
		{"I1121 10:00:00.000000    4711 main.go:12] started", plus1, "I4711 main.go:12] started"},
		// PostgreSQL.
		{"2026-11-21 10:00:00.123 UTC [4711] LOG:  ready", "2026-11-21T10:00:00.123Z", "[4711] LOG:  ready"},
		{"2026-11-21 10:00:00.123 CET [4711] LOG:  ready", "2026-11-21T10:00:00.123+01:00", "[4711] LOG:  ready"},
		{"2026-11-21 10:00:00 INFO ready", plus1, "INFO ready"},
		// Unix times, and the time since the boot is tested apart.
		{"1795255200 started", "2026-11-21T10:00:00Z", "started"},
		{"1795255200.25 started", "2026-11-21T10:00:00.25Z", "started"},
		{"1795255200123 started", "2026-11-21T10:00:00.123Z", "started"},
		{"9999999999 bottles", "", "9999999999 bottles"},
		{"1795255200x7 is an identifier", "", "1795255200x7 is an identifier"},
		// JSON and logfmt.
		{`{"level":"error","ts":1795255200.25,"msg":"collecting failed","n":3}`, "2026-11-21T10:00:00.25Z", "error collecting failed"},
		{`{"time":"2026-11-21T10:00:00.1Z","level":"INFO","msg":"x","error":"EOF"}`, "2026-11-21T10:00:00.1Z", "INFO x error=EOF"},
		{`{"@timestamp":"2026-11-21T10:00:00Z","message":"started"}`, "2026-11-21T10:00:00Z", "started"},
		{`{"level":30,"time":1795255200123,"pid":1,"msg":"ready"}`, "2026-11-21T10:00:00.123Z", "30 ready"},
		{`{"log":"ready\n","stream":"stdout","time":"2026-11-21T10:00:00Z"}`, "2026-11-21T10:00:00Z", "ready"},
		{`{"t":{"$date":"2026-11-21T10:00:00.123+00:00"},"s":"I","msg":"Waiting"}`, "2026-11-21T10:00:00.123Z", "I Waiting"},
		{`{"msg":"no time"}`, "", "no time"},
		{`{"unfinished": `, "", `{"unfinished":`},
		{`time=2026-11-21T10:00:00Z level=info msg="a b" err="c d" n=5`, "2026-11-21T10:00:00Z", "info a b err=c d"},
		{`ts=2026-11-21T10:00:00Z caller=main.go:3 n=5`, "2026-11-21T10:00:00Z", `ts=2026-11-21T10:00:00Z caller=main.go:3 n=5`},
		// None.
		{"Traceback (most recent call last):", "", "Traceback (most recent call last):"},
		{"2026-13-21 10:00:00 no month", "", "2026-13-21 10:00:00 no month"},
		{"Nov 21 10:00:00 1999 starting", plus1, "1999 starting"}, // a PID
		{"2026-06-31 10:00:00 no day", "", "2026-06-31 10:00:00 no day"},
		{"2026-11-21 10:00:001 no time", "", "2026-11-21 10:00:001 no time"},
	} {
		st, text, ok := testReader().stamp(c.line, readAt.UnixMilli())
		if at := show(st, ok); !sameTime(at, c.at) || text != c.text {
			t.Errorf("%s\n got %q %q\nwant %q %q", c.line, at, text, c.at, c.text)
		}
	}
}

// TestTimesWithinLines reads logs whose lines do not begin with the time: it
// is believed when several lines in a row have it.
func TestTimesWithinLines(t *testing.T) {
	for _, c := range []struct{ line, at, text string }{
		{`127.0.0.1 - - [21/Nov/2026:10:00:%02d -0700] "GET / HTTP/1.1" 200 12`, "2026-11-21T10:00:05-07:00", `127.0.0.1 - - "GET / HTTP/1.1" 200 12`},
		{`4711:M 21 Nov 2026 10:00:%02d.123 * Ready to accept connections`, "2026-11-21T10:00:05.123+01:00", `4711:M * Ready to accept connections`},
		{`INFO 2026-11-21 10:00:%02d,250 server: started`, "2026-11-21T10:00:05.25+01:00", `INFO server: started`},
		{`WARNING:root:x (2026-11-21 10:00:%02d) late`, "2026-11-21T10:00:05+01:00", `WARNING:root:x late`},
	} {
		r := testReader()
		for i := range 6 {
			st, text, ok := r.stamp(fmt.Sprintf(c.line, i), readAt.UnixMilli())
			switch {
			case i < agree-1:
				if ok || text != c.text {
					t.Errorf("%s: line %d: time found: %v, text %q", c.line, i, ok, text)
				}
			case i == 5:
				if at := show(st, ok); !sameTime(at, c.at) || text != c.text {
					t.Errorf("%s\n got %q %q\nwant %q %q", c.line, at, text, c.at, c.text)
				}
			}
		}
	}
}

// TestFormChanges reads a log that a program of another version goes on with.
func TestFormChanges(t *testing.T) {
	r := testReader()
	for _, c := range []struct {
		line string
		ok   bool
	}{
		{"2026-11-21 10:00:00 one", true},
		{"  at Foo.bar(Foo.java:12)", false},
		{"Nov 21 10:00:01 host two", true},
		{"2026-11-21 10:00:02 three", true},
		{"backup of 2025-01-01 00:00:00 done", false},
		{"I1121 10:00:03.000000 1 a.go:1] four", true},
	} {
		if _, _, ok := r.stamp(c.line, readAt.UnixMilli()); ok != c.ok {
			t.Errorf("%q: time found: %v, want %v", c.line, ok, c.ok)
		}
	}
}

func TestYearEnd(t *testing.T) {
	justAfter := time.Date(2027, 1, 1, 0, 0, 3, 0, time.UTC)
	r := &reader{zone: time.UTC}
	st, _, _ := r.stamp("Dec 31 23:59:59 host late", justAfter.UnixMilli())
	if want := time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC); !st.at.Equal(want) {
		t.Errorf("got %s, want %s", st.at, want)
	}
	// A clock that is a little ahead says it first.
	before := time.Date(2026, 12, 31, 23, 59, 58, 0, time.UTC)
	st, _, _ = r.stamp("Jan  1 00:00:01 host early", before.UnixMilli())
	if want := time.Date(2027, 1, 1, 0, 0, 1, 0, time.UTC); !st.at.Equal(want) {
		t.Errorf("got %s, want %s", st.at, want)
	}
}

// TestSettle holds which of a line's time and its arrival is believed.
func TestSettle(t *testing.T) {
	arrived := readAt.UnixMilli()
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	for _, c := range []struct {
		about   string
		ago     time.Duration
		unit    time.Duration
		zoned   bool
		want    time.Duration // before the arrival
		wantOwn bool
	}{
		{"milliseconds are better than the arrival", 300 * time.Millisecond, time.Millisecond, true, 300 * time.Millisecond, true},
		{"seconds are not", 900 * time.Millisecond, time.Second, true, 0, true},
		{"a line that was kept back", 30 * time.Second, time.Second, true, 30 * time.Second, true},
		{"the log of yesterday", 24 * time.Hour, time.Second, true, 24 * time.Hour, true},
		{"UTC on a host of another zone", time.Hour + 300*time.Millisecond, time.Millisecond, false, 300 * time.Millisecond, true},
		{"a zone west of the host", -9*time.Hour - 30*time.Minute + 300*time.Millisecond, time.Second, false, 0, true},
		{"an hour late, and the zone is known", time.Hour, time.Millisecond, true, time.Hour, true},
		{"a clock that is ahead", -10 * time.Second, time.Millisecond, true, 0, false},
	} {
		st := stamp{at: time.UnixMilli(arrived - ms(c.ago)), unit: c.unit, zoned: c.zoned}
		at, own := settle(st, arrived)
		if at != arrived-ms(c.want) || own != c.wantOwn {
			t.Errorf("%s: %d ms before the arrival, own %v; want %d, %v", c.about, arrived-at, own, ms(c.want), c.wantOwn)
		}
	}
}

// TestNumbersAreNoTimes has lines that arrive now, with numbers and times that
// are not theirs. Each is of its arrival.
func TestNumbersAreNoTimes(t *testing.T) {
	arrived := readAt.UnixMilli()
	for _, c := range []struct{ line, text string }{
		{"heap is 1234567890 bytes", "heap is 1234567890 bytes"},
		{"worker [1234567890] is done", "worker [1234567890] is done"},
		{"1234567890 bytes are in use", "1234567890 bytes are in use"},
		{"login of anna, the last one at 2026-10-20 10:03:20", "login of anna, the last one at"},
		{"msg=done time=1534567890", "done"}, // 1.5 s in nanoseconds
	} {
		r := testReader()
		for range agree + 1 {
			r.live([]byte(c.line), arrived, func(l Line) {
				if want := (Line{arrived, false, c.text}); l != want {
					t.Errorf("%s: %+v, want %+v", c.line, l, want)
				}
			})
		}
	}
}

func TestTimeSinceBoot(t *testing.T) {
	st, text, ok := testReader().stamp("[   12.345678] usb 1-1: reset", now())
	if !ok || st.sinceUp != 12345678*time.Microsecond || text != "usb 1-1: reset" {
		t.Fatalf("got %v %q %v", st.sinceUp, text, ok)
	}
	if at := st.unixMilli(); at >= now() || at < now()-(10*365*24*time.Hour).Milliseconds() {
		t.Errorf("12 s after the boot was at %d, which cannot be", at)
	}
}

func show(st stamp, ok bool) string {
	if !ok {
		return ""
	}
	return st.at.Format(time.RFC3339Nano)
}

func sameTime(a, b string) bool {
	if a == "" || b == "" {
		return a == b
	}
	x, err1 := time.Parse(time.RFC3339Nano, a)
	y, err2 := time.Parse(time.RFC3339Nano, b)
	return err1 == nil && err2 == nil && x.Equal(y)
}

func FuzzLine(f *testing.F) {
	for _, line := range []string{
		"2026-11-21T10:00:00.1+01:00 x", "<34>1 2026-11-21 10:00:00,5 x", "Nov 21 10:00:00 x", "[Sat Nov 21 10:00:00 2026] x",
		`{"time":1795255200,"msg":"x"}`, `ts=2026-11-21T10:00:00Z msg="x y"`, "I1121 10:00:00.1 x", "[12.5000] x", "\x1b[31mred\x1b[0m \xff\x00",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := testReader()
		for range agree + 1 {
			r.live(raw, readAt.UnixMilli(), func(l Line) { checkLine(t, l) })
			r.past(raw, func(l Line) { checkLine(t, l) })
		}
	})
}

// checkLine holds what a Line promises.
func checkLine(t *testing.T, l Line) {
	t.Helper()
	if len(l.Text) > maxLine || l.Text == "" || strings.ToValidUTF8(l.Text, "") != l.Text || strings.ContainsAny(l.Text, "\x00\n\r\x1b") {
		t.Errorf("not a line: %q", l.Text)
	}
	if l.At > readAt.AddDate(100, 0, 0).UnixMilli() {
		t.Errorf("a line of the far future: %d", l.At)
	}
}
