package tsdb

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/series"
)

// start is an odd time, not the beginning of a block.
const start = int64(1_790_000_123_000)

const tick = int64(10_000)

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func put(t *testing.T, s *Store, samples ...series.Sample) {
	t.Helper()
	if err := s.Append(samples); err != nil {
		t.Fatal(err)
	}
}

func all(t *testing.T, s *Store, m Match) []series.Series {
	t.Helper()
	got, err := s.Select(context.Background(), m, math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func rss(service string) series.Key {
	return series.Key{Metric: series.RSS, Service: service, Worker: "0"}
}

// odd are names that programs and log lines may have.
var odd = []string{
	"nginx.service", "", "a b", `"quoted" \ back\nslash`, "new\nline", "\x00\x01", "\xff\xfe\x80", "ü€😀", "half \xe2\x82 euro",
	"\uef80", "\uefff\xff", "\uef7f\uf000", "\ufffd", "{}[]()*+?.|^$", "service=\"x\"",
}

func TestOddNamesReturn(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	var keys []series.Key
	for _, name := range odd {
		keys = append(keys,
			series.Key{Metric: series.RSS, Service: name, Worker: "0"},
			series.Key{Metric: series.Log, Service: "logs", Part: name},
			series.Key{Metric: series.FDKinds, Service: name, Worker: "1", Part: "socket"},
			series.Key{Metric: series.Metric("odd_" + name), Part: name})
	}
	keys = append(keys, series.Key{Metric: series.HostSockets, Part: "tcp"}, series.Key{Metric: series.HostFiles})
	var samples []series.Sample
	for i, k := range keys {
		samples = append(samples, series.Sample{Key: k, At: start, Value: float64(i)})
	}
	put(t, s, samples...)
	byKey := make(map[series.Key]float64)
	for _, one := range all(t, s, Match{}) {
		byKey[one.Key] = one.Points[0].Value
	}
	for i, k := range keys {
		if got, ok := byKey[k]; !ok || got != float64(i) {
			t.Errorf("%q: got %v, %v, want %d", k, got, ok, i)
		}
	}
	for _, name := range odd {
		if got := all(t, s, Match{Service: name, Metrics: []series.Metric{series.RSS, series.FDKinds}}); name != "" && len(got) != 2 {
			t.Errorf("service %q: got %d series, want 2", name, len(got))
		}
	}
	names, err := s.Services(context.Background(), start, start)
	if err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(odd), "logs")
	slices.Sort(want)
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}

func TestSelect(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for i := range int64(100) {
		at := start + i*tick
		put(t, s,
			series.Sample{Key: rss("a"), At: at, Value: float64(i)},
			series.Sample{Key: series.Key{Metric: series.RSS, Service: "a", Worker: "1"}, At: at, Value: -float64(i)},
			series.Sample{Key: series.Key{Metric: series.FDs, Service: "a", Worker: "0"}, At: at, Value: 7},
			series.Sample{Key: rss("b"), At: at, Value: 1},
			series.Sample{Key: series.Key{Metric: series.HostFiles}, At: at, Value: 5})
	}
	for _, c := range []struct {
		name  string
		match Match
		want  int
	}{
		{"all", Match{}, 5},
		{"service", Match{Service: "a"}, 3},
		{"worker", Match{Service: "a", Worker: "1"}, 1},
		{"metric", Match{Metrics: []series.Metric{series.RSS}}, 3},
		{"metrics", Match{Service: "a", Metrics: []series.Metric{series.RSS, series.FDs}}, 3},
		{"host", Match{Host: true}, 1},
		{"nobody", Match{Service: "c"}, 0},
	} {
		if got := all(t, s, c.match); len(got) != c.want {
			t.Errorf("%s: got %d series, want %d", c.name, len(got), c.want)
		}
	}
	got, err := s.Select(context.Background(), Match{Service: "b"}, start+tick, start+3*tick)
	if err != nil {
		t.Fatal(err)
	}
	want := []series.Series{{Key: rss("b"), Points: []series.Point{{At: start + tick, Value: 1}, {At: start + 2*tick, Value: 1}, {At: start + 3*tick, Value: 1}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := s.Newest(); got != start+99*tick {
		t.Errorf("newest is %d", got)
	}
	names, err := s.Services(context.Background(), start, start+tick)
	if d := cmp.Diff([]string{"", "a", "b"}, names); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestStepsKeepExtremes(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	const minute = 60_000
	from := (start/minute + 1) * minute
	for i, v := range []float64{5, 9, 1, 4, 4, 4, 2, 2, 2, 2, 2, 2, 8} {
		put(t, s, series.Sample{Key: rss("a"), At: from + int64(i)*tick, Value: v})
	}
	var values []float64
	for _, p := range all(t, s, Match{Step: minute})[0].Points {
		values = append(values, p.Value)
	}
	if d := cmp.Diff([]float64{5, 9, 1, 4, 2, 2, 8}, values); d != "" {
		t.Error(d)
	}
}

func TestWhatDoesNotFitIsDropped(t *testing.T) {
	s := open(t, t.TempDir(), Options{MaxSeries: 2})
	put(t, s, series.Sample{Key: rss("a"), At: start, Value: 1}, series.Sample{Key: rss("a"), At: start + tick, Value: 2})
	put(t, s,
		series.Sample{Key: rss("a"), At: start + tick, Value: 3},   // twice
		series.Sample{Key: rss("a"), At: start, Value: 3},          // out of order
		series.Sample{Key: rss("b"), At: start, Value: 4},          // new, and late
		series.Sample{Key: rss("c"), At: start + tick, Value: 5},   // too many
		series.Sample{Key: rss("b"), At: start + tick, Value: 6},   // fine
		series.Sample{Key: series.Key{}, At: start + tick},         // no name
		series.Sample{Key: rss("a"), At: start + 2*tick, Value: 7}) // fine
	st := s.Stats()
	if st.Appended != 5 || st.Dropped != 4 || st.Failed != 0 || st.Series != 2 || st.Err != nil {
		t.Errorf("%+v", st)
	}
	if got := all(t, s, Match{Service: "a"}); len(got[0].Points) != 3 {
		t.Errorf("%v", got)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	for i := range int64(4 * 360) { // 4 hours: the memory is emptied on the way
		samples := []series.Sample{{Key: rss("stays"), At: start + i*tick, Value: float64(i)}}
		if i < 10 {
			samples = append(samples, series.Sample{Key: rss("goes"), At: start + i*tick, Value: 1}, series.Sample{Key: rss("told"), At: start + i*tick, Value: 1})
		}
		put(t, s, samples...)
		if i == 10 {
			s.Forget([]series.Key{rss("told")})
		}
	}
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Series != 1 || len(s.refs) != 1 {
		t.Errorf("%d series, %d names are in memory", st.Series, len(s.refs))
	}
	put(t, s, series.Sample{Key: rss("goes"), At: start + 5*360*tick, Value: 2}, series.Sample{Key: rss("told"), At: start + 5*360*tick, Value: 2})
	if got := all(t, s, Match{Service: "goes"}); len(got) != 1 || len(got[0].Points) != 11 {
		t.Errorf("%v", got)
	}
}

func TestCloseAndOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := []series.Series{{Key: rss("a")}}
	at := start
	for range 3 {
		s := open(t, dir, Options{})
		for range 500 {
			at += tick
			put(t, s, series.Sample{Key: rss("a"), At: at, Value: float64(at)})
			want[0].Points = append(want[0].Points, series.Point{At: at, Value: float64(at)})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error("the second close:", err)
		}
		if err := s.Append([]series.Sample{{Key: rss("a"), At: at + 1}}); err == nil {
			t.Error("a closed store keeps samples")
		}
		if _, err := s.Select(context.Background(), Match{}, 0, at); err == nil {
			t.Error("a closed store is read")
		}
	}
	read, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	if d := cmp.Diff(want, all(t, read, Match{})); d != "" {
		t.Error(d)
	}
	if read.Newest() != at {
		t.Errorf("newest is %d, want %d", read.Newest(), at)
	}
	if err := read.Append([]series.Sample{{Key: rss("a"), At: at + 1}}); err == nil {
		t.Error("what is open for reading is written")
	}
}

func TestQuery(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for i := range int64(60) {
		put(t, s, series.Sample{Key: rss("a"), At: start + i*tick, Value: float64(i)}, series.Sample{Key: rss("b"), At: start + i*tick, Value: 1})
	}
	ctx, at := context.Background(), time.UnixMilli(start+59*tick)
	checkJSON(t, s.Query(ctx, `sum(stanch_process_resident_memory_bytes)`, at),
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1790000713,"60"]}]}}`)
	checkJSON(t, s.QueryRange(ctx, `stanch_process_resident_memory_bytes{service="a"}`, at.Add(-20*time.Second), at, 10*time.Second),
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"stanch_process_resident_memory_bytes","service":"a","worker":"0"},"values":[[1790000693,"57"],[1790000703,"58"],[1790000713,"59"]]}]}}`)
	checkJSON(t, s.Query(ctx, `1 +`, at), `{"status":"error","errorType":"bad_data","error":"1:4: parse error: unexpected end of input"}`)
	checkJSON(t, s.Query(ctx, `vector(1) == on() vector(2)`, at), `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	// What logs say is not for everybody who may ask.
	put(t, s, series.Sample{Key: series.Key{Metric: series.Log, Service: "a", Part: "no such user *"}, At: start + 59*tick, Value: 1})
	for _, query := range []string{`stanch_log_lines`, `{template!=""}`, `{__name__=~".*log.*"}`} {
		checkJSON(t, s.Query(ctx, query, at), `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if a := s.Query(over, `stanch_process_resident_memory_bytes`, at); a.ErrorType != "canceled" {
		t.Errorf("%+v", a)
	}
	if a := s.QueryRange(ctx, `vector(1)`, at.Add(-time.Hour), at, time.Millisecond); a.ErrorType != "bad_data" {
		t.Errorf("%+v", a)
	}
}

// TestTicksAreLate appends as a sampler does that wakes some milliseconds late.
func TestTicksAreLate(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	log := series.Key{Metric: series.Log, Part: "x"}
	for _, at := range []int64{7, 10_003, 20_007, 30_009, 40_007, 50_107, 60_300, 70_299, 80_299, 140_350, 200_300, 200_301} {
		put(t, s, series.Sample{Key: rss("a"), At: start + at, Value: 1}, series.Sample{Key: log, At: start + at, Value: 1})
	}
	times := func(m series.Metric) (list []int64) {
		for _, p := range all(t, s, Match{Metrics: []series.Metric{m}})[0].Points {
			list = append(list, p.At-start)
		}
		return list
	}
	if d := cmp.Diff([]int64{7, 10_003, 20_003, 30_003, 40_003, 50_107, 60_300, 70_299, 80_299, 140_350, 200_300, 200_301}, times(series.RSS)); d != "" {
		t.Error(d)
	}
	if got := times(series.Log); got[2] != 20_007 {
		t.Errorf("%v", got)
	}
}

// TestAppendWaitsForNoReader appends while somebody reads, and does not end.
func TestAppendWaitsForNoReader(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, series.Sample{Key: rss("a"), At: start, Value: 1})
	s.mu.RLock()
	done := make(chan error)
	go func() { done <- s.Append([]series.Sample{{Key: rss("a"), At: start + tick, Value: 2}}) }()
	select {
	case err := <-done:
		s.mu.RUnlock()
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		s.mu.RUnlock()
		t.Fatal("samples wait for a reader", <-done)
	}
}

// TestAppendBesideOthers appends a day, faster than any clock, while the keeper compacts and
// others read. Nothing is lost or comes twice.
func TestAppendBesideOthers(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	turns := make(chan struct{}, 8)
	var others sync.WaitGroup
	for _, do := range []func(){
		func() { s.callKeeper() },
		func() { _, _ = s.Select(context.Background(), Match{Service: "1"}, start, start+day) },
		func() {
			_ = s.QueryRange(context.Background(), `sum(stanch_process_resident_memory_bytes)`, time.UnixMilli(start), time.UnixMilli(start+day), time.Hour)
		},
		func() { s.Forget([]series.Key{rss("3")}); _ = s.Stats() },
	} {
		others.Go(func() {
			for range turns {
				do()
			}
		})
	}
	const ticks = 1440
	for i := range int64(ticks) {
		var list []series.Sample
		for n := range int64(10) {
			list = append(list, series.Sample{Key: rss(strconv.FormatInt(n, 10)), At: start + i*60_000, Value: float64(i + n)})
		}
		put(t, s, list...)
		select {
		case turns <- struct{}{}:
		default:
		}
	}
	close(turns)
	others.Wait()
	got := all(t, s, Match{})
	if len(got) != 10 {
		t.Fatalf("%d series", len(got))
	}
	for n, one := range got {
		if len(one.Points) != ticks {
			t.Fatalf("%d points of series %d, want %d", len(one.Points), n, ticks)
		}
		for i, p := range one.Points {
			if p != (series.Point{At: start + int64(i)*60_000, Value: float64(i + n)}) {
				t.Fatalf("point %d of series %d is %+v", i, n, p)
			}
		}
	}
}

// TestNoNumbers drops what no chart and no JSON could show.
func TestNoNumbers(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	stale := math.Float64frombits(0x7ff0000000000002) // Prometheus' sign that a series ended
	for i, v := range []float64{math.NaN(), 3, math.Inf(1), stale, 1, math.Inf(-1), 9, 2} {
		put(t, s, series.Sample{Key: rss("a"), At: start + int64(i)*1000, Value: v})
	}
	var values []float64
	for _, p := range all(t, s, Match{Step: 60_000})[0].Points {
		values = append(values, p.Value)
	}
	if d := cmp.Diff([]float64{3, 1, 9, 2}, values); d != "" || s.Stats().Dropped != 4 {
		t.Error(d, s.Stats())
	}
}

// TestTooManySeriesAreSaid says once that there are too many, with the first that was dropped.
func TestTooManySeriesAreSaid(t *testing.T) {
	log, said := hear()
	s := open(t, t.TempDir(), Options{MaxSeries: 2, Log: log})
	for i := range int64(3) {
		for n := range 5 {
			put(t, s, series.Sample{Key: rss(strconv.Itoa(n)), At: start + i*tick, Value: 1})
		}
	}
	if text := said(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "too many series") || !strings.Contains(text, "service=2") {
		t.Error(text)
	}
}

// TestFullOfSeriesGoesOn starts again, or forgets, where there are as many series as may be: those that are
// there already go on.
func TestFullOfSeriesGoesOn(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{MaxSeries: 2})
	put(t, s, series.Sample{Key: rss("a"), At: start, Value: 1}, series.Sample{Key: rss("b"), At: start, Value: 1})
	s.Forget([]series.Key{rss("b")})
	put(t, s, series.Sample{Key: rss("b"), At: start + tick, Value: 1})
	s.stopForTest(t)
	s = open(t, dir, Options{MaxSeries: 2})
	put(t, s,
		series.Sample{Key: rss("a"), At: start + 2*tick, Value: 1}, series.Sample{Key: rss("b"), At: start + 2*tick, Value: 1},
		series.Sample{Key: rss("c"), At: start + 2*tick, Value: 1})
	if got := points(t, s, 1); got != 5 || s.Stats().Dropped != 1 {
		t.Errorf("%d points: %+v", got, s.Stats())
	}
}
