package tsdb

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"stanch/internal/series"
)

const (
	hour = int64(3_600_000)
	day  = 24 * hour
)

// run appends one series each minute from one time to another.
func run(t *testing.T, s *Store, from, to int64, value float64) (n int) {
	t.Helper()
	var list []series.Sample
	for at := from; at < to; at += 60_000 {
		list = append(list, series.Sample{Key: rss("a"), At: at, Value: value})
		if n++; len(list) == 30 || at+60_000 >= to {
			put(t, s, list...)
			list = list[:0]
		}
	}
	return n
}

// points counts the points of a value.
func points(t *testing.T, s *Store, value float64) (n int) {
	t.Helper()
	for _, one := range all(t, s, Match{}) {
		last := int64(math.MinInt64)
		for _, p := range one.Points {
			if p.At <= last {
				t.Fatalf("%d comes after %d", p.At, last)
			}
			last = p.At
			if p.Value == value {
				n++
			}
		}
	}
	return n
}

// TestClockSetBack starts again 15 hours before where it was. What has been
// recorded before that time stays, what came after it is set aside, complete.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		closed bool // in good order before
	}{{"after a restart", true}, {"while it runs", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			log, said := hear()
			s := open(t, dir, Options{Log: log})
			first := run(t, s, start, start+day, 1)
			if c.closed {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, dir, Options{Log: log})
			}
			back := start + 9*hour + 30_000
			// An old line of a log is no clock that was set back.
			put(t, s, series.Sample{Key: series.Key{Metric: series.Log, Part: "x"}, At: start})
			if s.Newest() < back {
				t.Fatal("a line of a log is taken for the clock")
			}
			second := run(t, s, back, back+8*hour, 2)
			shown, hidden := points(t, s, 1), asidePoints(t, dir)
			if shown+hidden != first || hidden != 15*60-1 {
				t.Errorf("%d are shown and %d set aside, of %d", shown, hidden, first)
			}
			if got := points(t, s, 2); got != second || s.Stats().Dropped != 1 && !c.closed {
				t.Errorf("%d of %d since are there: %+v", got, second, s.Stats())
			}
			if got := s.Newest(); got != back+8*hour-60_000 {
				t.Errorf("newest is %d", got)
			}
			if text := said(); strings.Count(text, "the clock was set back") != 1 {
				t.Error(text)
			}
			s.stopForTest(t)
			s = open(t, dir, Options{Log: log})
			if got := points(t, s, 1) + points(t, s, 2); got != shown+second {
				t.Errorf("%d are there after a restart, want %d", got, shown+second)
			}
		})
	}
}

// asidePoints counts the points of what was set aside.
func asidePoints(t *testing.T, dir string) (n int) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, asideName, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range blocks {
		b, err := tsdb.OpenBlock(nil, path, nil, tsdb.DefaultPostingsDecoderFactory)
		if err != nil {
			t.Fatal(err)
		}
		q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchNotEqual, nameLabel, ""))
		for set.Next() {
			n += len(collect(set.At().Iterator(nil), 0, 0))
		}
		if err := set.Err(); err != nil {
			t.Fatal(err)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestSmallStepBack drops what came twice, and goes on.
func TestSmallStepBack(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for _, at := range []int64{0, 10, 20, 30, 5, 15, 25, 35, 45} {
		put(t, s, series.Sample{Key: rss("a"), At: start + at*1000, Value: 1})
	}
	if st := s.Stats(); st.Dropped != 3 || points(t, s, 1) != 6 {
		t.Errorf("%+v", st)
	}
}

// TestClockJumpsAhead goes to 2036 and back. Nothing that was recorded before goes.
func TestClockJumpsAhead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{Retention: 2 * 24 * time.Hour})
	before := run(t, s, start, start+day, 1)
	future := start + 3650*day
	run(t, s, future, future+6*hour, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{Retention: 2 * 24 * time.Hour})
	if got := points(t, s, 1); got != before {
		t.Errorf("%d of %d are left after a jump ahead", got, before)
	}
	since := run(t, s, start+day+hour, start+day+4*hour, 3)
	if got := points(t, s, 1); got != before {
		t.Errorf("%d of %d are left after the way back", got, before)
	}
	if got := points(t, s, 3); got != since {
		t.Errorf("%d of %d since", got, since)
	}
	if got := asidePoints(t, dir); got != 6*60 {
		t.Errorf("%d are set aside, want %d", got, 6*60)
	}
}

func TestRetention(t *testing.T) {
	id := func(n int) (u ulid.ULID) { u[0] = byte(n); return u }
	blocks := func(list ...[3]int64) (spans []span) {
		for i, b := range list {
			spans = append(spans, span{id(i), b[0] * day, b[1] * day, b[2]})
		}
		return spans
	}
	for _, c := range []struct {
		name   string
		blocks []span
		want   []int
	}{
		{"nothing", nil, nil},
		{"in time", blocks([3]int64{0, 10, 1}, [3]int64{10, 20, 1}, [3]int64{20, 39, 1}), nil},
		{"by time", blocks([3]int64{0, 10, 1}, [3]int64{10, 20, 1}, [3]int64{20, 50, 1}), []int{1, 0}},
		{"by size", blocks([3]int64{0, 1, 40}, [3]int64{1, 2, 40}, [3]int64{2, 3, 40}), []int{0}},
		{"a jump of years", blocks([3]int64{0, 10, 1}, [3]int64{10, 12, 1}, [3]int64{5000, 5001, 1}), nil},
		{"and of time", blocks([3]int64{0, 10, 1}, [3]int64{10, 12, 1}, [3]int64{5000, 5030, 1}), []int{1, 0}},
		{"overlapping", blocks([3]int64{0, 20, 1}, [3]int64{10, 20, 1}, [3]int64{5, 20, 1}, [3]int64{20, 25, 1}), nil},
	} {
		got := expired(c.blocks, 100, 30*24*time.Hour)
		if len(got) != len(c.want) {
			t.Errorf("%s: %v", c.name, got)
			continue
		}
		for i, n := range c.want {
			if got[i] != id(n) {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	}
}

// TestCap appends far more than may be kept.
func TestCap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const limit = 10 << 20
	s := open(t, dir, Options{MaxBytes: limit})
	var most int64
	noise := uint64(1)
	for i := range int64(12_000) {
		var list []series.Sample
		for n := range 200 {
			noise = noise*6364136223846793005 + 1442695040888963407
			list = append(list, series.Sample{Key: rss(strconv.Itoa(n)), At: start + i*tick, Value: float64(noise >> 12)})
		}
		put(t, s, list...)
		if i%50 == 0 {
			most = max(most, size(dir))
		}
	}
	if most > limit {
		t.Errorf("%d bytes were taken, %d allowed", most, limit)
	}
	got := all(t, s, Match{Service: "7"})
	if len(got) != 1 || len(got[0].Points) < 3000 {
		t.Errorf("hardly anything is left: %d bytes", size(dir))
	}
	t.Logf("%d bytes at most; %d of 12000 points are left", most, len(got[0].Points))
}

// TestDamagedBlock spoils blocks in several ways; each costs itself alone.
func TestDamagedBlock(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(block string) error{
		"index cut":    func(b string) error { return os.Truncate(filepath.Join(b, "index"), 100) },
		"no chunks":    func(b string) error { return os.RemoveAll(filepath.Join(b, "chunks", "000001")) },
		"meta empty":   func(b string) error { return os.Truncate(filepath.Join(b, "meta.json"), 0) },
		"chunk spoilt": func(b string) error { return overwrite(filepath.Join(b, "chunks", "000001"), 30) },
		"index spoilt": func(b string) error { return overwrite(filepath.Join(b, "index"), -30) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			log, said := hear()
			s := open(t, dir, Options{Log: log})
			whole := run(t, s, start, start+12*hour, 1)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			blocks, err := filepath.Glob(filepath.Join(dir, "0*"))
			if err != nil || len(blocks) < 3 {
				t.Fatal(blocks, err)
			}
			if err := spoil(blocks[1]); err != nil {
				t.Fatal(err)
			}
			read, err := OpenReadOnly(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := points(t, read, 1); got == 0 || got == whole {
				t.Errorf("reading only: %d of %d", got, whole)
			}
			if err := read.Close(); err != nil {
				t.Error(err)
			}
			s = open(t, dir, Options{Log: log})
			got := points(t, s, 1)
			if got == 0 || got >= whole {
				t.Errorf("%d of %d", got, whole)
			}
			if _, err := os.Stat(filepath.Join(dir, asideName, "damaged", filepath.Base(blocks[1]))); err != nil {
				t.Error(err)
			}
			if !strings.Contains(said(), "is damaged") {
				t.Error(said())
			}
			run(t, s, s.Newest()+60_000, start+18*hour, 1)
			if now := points(t, s, 1); now < got+5*60 {
				t.Errorf("it does not go on: %d", now)
			}
		})
	}
}

// overwrite spoils a file, at a distance from its end when at is below zero.
func overwrite(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if at < 0 {
		at += size(path)
	}
	_, err = f.WriteAt([]byte("spoilt by a test"), at)
	return err
}

// TestClockSetBackIntoDamage goes back into a block that cannot be read. It is set aside as it is, and
// history goes on: neither is it tried again with each sample, nor is anything written twice.
func TestClockSetBackIntoDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, said := hear()
	s := open(t, dir, Options{Log: log})
	run(t, s, start, start+20*hour, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{Log: log})
	back := start + 10*hour
	var spoilt string
	var later []string // blocks that are set aside whole: nothing is written for them
	for _, b := range s.db.Blocks() {
		switch meta := b.Meta(); {
		case meta.MinTime >= back:
			later = append(later, filepath.Base(b.Dir()))
		case meta.MaxTime > back:
			spoilt = b.Dir()
		}
	}
	if err := overwrite(filepath.Join(spoilt, "chunks", "000001"), 30); err != nil {
		t.Fatal(err)
	}
	for i := range int64(5) {
		put(t, s, series.Sample{Key: rss("a"), At: back + i*tick, Value: 2})
	}
	if got := points(t, s, 2); got != 5 {
		t.Errorf("%d of 5 are there", got)
	}
	if got := points(t, s, 1); got < 6*60 || got > 10*60 {
		t.Errorf("%d of before are there", got)
	}
	after, err := filepath.Glob(filepath.Join(dir, asideName, "after-*", "*"))
	if err != nil || len(after) != len(later) || len(later) < 3 {
		t.Errorf("%v were set aside, want %v: %v", after, later, err)
	}
	for _, name := range later {
		if !slices.ContainsFunc(after, func(dir string) bool { return filepath.Base(dir) == name }) {
			t.Errorf("%s was not set aside as it was", name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, asideName, "damaged", filepath.Base(spoilt))); err != nil {
		t.Error(err)
	}
	if text := said(); strings.Count(text, "is damaged") != 1 || strings.Count(text, "was set back") != 1 {
		t.Error(text)
	}
}

// TestAsideHasAnEnd sets more aside than may be kept, in a directory whose name is a pattern.
func TestAsideHasAnEnd(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "web[1]")
	log, said := hear()
	s := open(t, dir, Options{Log: log, MaxBytes: 10_000})
	run(t, s, start, start+20*hour, 1)
	put(t, s, series.Sample{Key: rss("a"), At: start + hour, Value: 2})
	if got := size(filepath.Join(dir, asideName)); got > 10_000/asideShare {
		t.Errorf("%d bytes are aside: %s", got, said())
	}
}
