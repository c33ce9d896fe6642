package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"stanch/internal/series"
	"stanch/internal/source/logfile"
)

// wall is the clock in Unix ms.
func wall() int64 { return time.Now().UnixMilli() }

func at(t int64, text string) logfile.Line { return logfile.Line{At: t, Text: text} }

func logKey(template string) series.Key { return series.Key{Metric: series.Log, Part: template} }

// TestLogBook counts lines in stretches, once each has ended.
func TestLogBook(t *testing.T) {
	b := newLogBook()
	now := wall()
	now -= now % logBin
	for _, ago := range []int64{3000, 2950, 2000, 500} {
		b.line("", at(now-ago, "login of 7 password=hunter was refused"))
	}
	got := fmt.Sprint(b.take(now))
	key := logKey("login of * password=* was refused")
	if want := fmt.Sprint([]series.Sample{{Key: key, At: now - 3000, Value: 2}, {Key: key, At: now - 2000, Value: 1}}); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := b.take(now + 1000); len(got) != 1 || got[0].At != now-500 {
		t.Errorf("then %v", got)
	}
	if e := b.examples()[key.Part]; strings.Contains(e, "hunter") {
		t.Errorf("example %q", e)
	}
}

// TestLogsAfterSetBack begins with a history from a clock that was ahead and
// was set back meanwhile: lines are counted all the same.
func TestLogsAfterSetBack(t *testing.T) {
	b := newLogBook()
	now := wall()
	b.seed([]series.Series{{Key: logKey("cache was trimmed"), Points: []series.Point{{At: now + 3600_000, Value: 1}}}})
	b.line("", at(now-5000, "cache was trimmed"))
	if got := b.take(now); len(got) != 1 || got[0].At/logBin != (now-5000)/logBin {
		t.Errorf("got %v", got)
	}
}

// TestLogsWhileAhead has samples whose times are ahead of the clock, since that
// was set back: lines get times of the same kind, so that what comes before a
// step stays before it.
func TestLogsWhileAhead(t *testing.T) {
	const ahead = 600_000
	b := newLogBook()
	b.line("", at(wall()-3000, "cache was trimmed"))
	if got := b.take(wall() + ahead); len(got) != 1 { // written before that was known
		t.Fatalf("got %v", got)
	}
	line := wall()
	b.line("", at(line, "cache was trimmed"))
	got := b.take(wall() + ahead + 5000)
	if len(got) != 1 || got[0].At < line+ahead-2000 || got[0].At > line+ahead+100 {
		t.Errorf("got %v, want %d ms after %d", got, ahead, line)
	}
}

// TestSeedsAreTheNewest has a history of more templates than there is room for:
// those that were seen last keep their places.
func TestSeedsAreTheNewest(t *testing.T) {
	b := newLogBook()
	now := wall()
	var known []series.Series
	for i := range 1000 {
		text := "a" + strings.Repeat(" "+string(rune('a'+i%26)), 1+i/26)
		known = append(known, series.Series{Key: logKey(text), Points: []series.Point{{At: now - 86400_000 + int64(i), Value: 1}}})
	}
	known = append(known, series.Series{Key: logKey("zebras have escaped"), Points: []series.Point{{At: now - 1000, Value: 1}}})
	b.seed(known)
	b.line("", at(now-5000, "zebras have escaped"))
	if got := b.take(now); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// TestLogBookForgets holds that what the book remembers of templates is
// bounded, though new ones come for ever, and lines of any time.
func TestLogBookForgets(t *testing.T) {
	b := newLogBook()
	now := wall()
	for i := range int64(5000) {
		b.line("", at(now-7200_000-i*logBin, "cache was trimmed")) // replayed from hours ago
	}
	if n := len(b.open[logKey("cache was trimmed")]); n > 0 {
		t.Errorf("%d stretches are open that no store takes", n)
	}
	for i := range 1000 {
		b.taken[logKey(fmt.Sprint("an old one ", i))] = now - 7200_000
	}
	b.take(now)
	if n := len(b.taken); n > 0 {
		t.Errorf("%d templates are remembered that nobody writes", n)
	}
}

// TestLogNotes holds what an operator is told of logs.
func TestLogNotes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "demo.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := newLogBook()
	b.follow(ctx, &watchFlags{logs: []string{dir, filepath.Join(dir, "later.log"), path}}, func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, fmt.Sprintf(format, args...))
	})
	for range 2 {
		for i := range 300 {
			b.line("", at(wall(), "a"+strings.Repeat(" "+string(rune('a'+i%26)), 1+i/26)))
		}
		b.take(wall() + 5000)
		b.line("", at(wall()-60_000, "a a"))
	}
	b.line("", at(wall(), "1 2 3"))
	want := []string{
		"follow the log " + dir + ": it is neither a file nor a FIFO; it is not followed any more",
		"log " + filepath.Join(dir, "later.log") + ": it is not there yet; it is followed once it is",
		"there are more than 200 kinds of lines in the log files: lines of more kinds are not counted",
		"some lines of the log files came too late to be counted: others of their kind, of their time or a later one, had been counted already",
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		mu.Lock()
		n := len(said)
		mu.Unlock()
		if n >= len(want) || time.Now().After(deadline) {
			break
		}
	}
	b.end()
	for _, w := range want {
		found := 0
		for _, s := range said {
			if s == w {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%q was said %d times in %q", w, found, said)
		}
	}
	if len(said) != len(want) {
		t.Errorf("said: %q", said)
	}
}
