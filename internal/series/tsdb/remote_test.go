package tsdb

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"stanch/internal/series"
)

// receiver takes remote writes as a server does, and answers as it is told.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	got     map[string][]prompb.Sample
	headers http.Header
	answers []int         // codes of the first requests
	after   string        // Retry-After beside them
	counts  bool          // each of them has other words
	poison  string        // whoever sends this is answered 500
	held    chan struct{} // when not nil, no answer before it is closed
	asked   chan struct{} // one for each request
}

func receive(t *testing.T, r *receiver) *receiver {
	r.got, r.asked = make(map[string][]prompb.Sample), make(chan struct{}, 1000)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.asked <- struct{}{}
	body, err := io.ReadAll(req.Body)
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-req.Context().Done():
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.answers) > 0 {
		code := r.answers[0]
		r.answers = r.answers[1:]
		if r.after != "" {
			w.Header().Set("Retry-After", r.after)
		}
		text := "no,\n not now"
		if r.counts {
			text = fmt.Sprintf("%d answers are left", len(r.answers))
		}
		http.Error(w, text, code)
		return
	}
	raw, err2 := snappy.Decode(nil, body)
	var write prompb.WriteRequest
	if err3 := write.Unmarshal(raw); err != nil || err2 != nil || err3 != nil {
		http.Error(w, fmt.Sprint(err, err2, err3), http.StatusBadRequest)
		return
	}
	if r.poison != "" && bytes.Contains(raw, []byte(r.poison)) {
		http.Error(w, "poison", http.StatusInternalServerError)
		return
	}
	r.headers = req.Header
	for _, ts := range write.Timeseries {
		if !slices.IsSortedFunc(ts.Labels, func(a, b prompb.Label) int { return strings.Compare(a.Name, b.Name) }) {
			http.Error(w, "labels out of order", http.StatusBadRequest)
			return
		}
		var name []string
		for _, l := range ts.Labels {
			name = append(name, l.Name+"="+l.Value)
		}
		key := strings.Join(name, " ")
		r.got[key] = append(r.got[key], ts.Samples...)
	}
}

// samples says how many were received of all series.
func (r *receiver) samples() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, list := range r.got {
		n += len(list)
	}
	return n
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// hear gives a log and what was said in it.
func hear() (*slog.Logger, func() string) {
	var mu sync.Mutex
	var b bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return b.Write(p)
	})
	return slog.New(slog.NewTextHandler(w, nil)), func() string {
		mu.Lock()
		defer mu.Unlock()
		return b.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func remote(t *testing.T, address string, o RemoteOptions) *Remote {
	t.Helper()
	r, err := NewRemote(address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// ticks gives samples of so many series at so many times.
func ticks(of, times int, from int64) (list []series.Sample) {
	for i := range times {
		for n := range of {
			list = append(list, series.Sample{Key: rss(fmt.Sprintf("service%d", n)), At: from + int64(i)*tick, Value: float64(i)})
		}
	}
	return list
}

func TestRemoteWrites(t *testing.T) {
	srv := receive(t, &receiver{})
	address := strings.Replace(srv.URL, "http://", "http://me:secret@", 1)
	r := remote(t, address+"/api/v1/write?x=hidden", RemoteOptions{Version: "1.2", Labels: map[string]string{"instance": "web1", "service": "not this"}, MaxBatch: 11})
	r.Send(ticks(2, 10, start))
	r.Send([]series.Sample{{Key: series.Key{Metric: series.Log, Service: "a", Part: "bad \xff line"}, At: start + 5, Value: 2}, {Key: series.Key{Metric: series.Log, Service: "a", Part: "bad \xff line"}, At: start, Value: 1}})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if st := r.Stats(); st.Sent != 22 || st.Dropped != 0 || st.Pending != 0 || st.Err != nil {
		t.Errorf("%+v", st)
	}
	if got := srv.got["__name__=stanch_log_lines instance=web1 service=a template=bad \uefff line"]; len(got) != 2 || got[0].Timestamp != start || got[0].Value != 1 || got[1].Value != 2 {
		t.Errorf("%v in %v", got, srv.got)
	}
	if got := srv.got["__name__=stanch_process_resident_memory_bytes instance=web1 service=service1 worker=0"]; len(got) != 10 || got[9].Timestamp != start+9*tick {
		t.Errorf("%v", got)
	}
	for name, want := range map[string]string{
		"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", "User-Agent": "stanch/1.2",
		"X-Prometheus-Remote-Write-Version": "0.1.0", "Authorization": "Basic bWU6c2VjcmV0",
	} {
		if got := srv.headers.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestRemoteTriesAgain(t *testing.T) {
	t.Parallel()
	srv := receive(t, &receiver{answers: []int{500, 503, 429}, after: "0"})
	log, said := hear()
	r := remote(t, srv.URL, RemoteOptions{Log: log})
	r.Send(ticks(3, 1, start))
	eventually(t, "sent", func() bool { return r.Stats().Sent == 3 })
	if st := r.Stats(); st.Dropped != 0 || st.Err != nil || srv.samples() != 3 {
		t.Errorf("%+v", st)
	}
	if text := said(); !strings.Contains(text, "no, not now") || !strings.Contains(text, "works again") || strings.Count(text, "\n") != 2 {
		t.Error(text)
	}
}

func TestRemoteWaitsAsLongAsAsked(t *testing.T) {
	t.Parallel()
	srv := receive(t, &receiver{answers: []int{429}, after: "2"})
	r := remote(t, srv.URL, RemoteOptions{})
	began := time.Now()
	r.Send(ticks(1, 1, start))
	eventually(t, "sent", func() bool { return r.Stats().Sent == 1 })
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("sent again after %v", took)
	}
}

func TestRemoteDropsWhatIsRefused(t *testing.T) {
	srv := receive(t, &receiver{answers: []int{400, 400, 302}})
	log, said := hear()
	r := remote(t, srv.URL, RemoteOptions{Log: log, MaxBatch: 1})
	r.Send(ticks(4, 1, start))
	eventually(t, "sent", func() bool { return r.Stats().Sent == 1 })
	if st := r.Stats(); st.Dropped != 3 || st.Pending != 0 {
		t.Errorf("%+v", st)
	}
	if text := said(); strings.Count(text, "400 Bad Request: no, not now") != 1 || strings.Count(text, "302") != 1 {
		t.Error(text)
	}
}

func TestRemoteIsBounded(t *testing.T) {
	srv := receive(t, &receiver{held: make(chan struct{})})
	log, said := hear()
	r := remote(t, srv.URL, RemoteOptions{MaxPending: 100, MaxBatch: 10, Log: log})
	r.Send(ticks(1, 10, start))
	<-srv.asked // ten are on their way, and do not arrive
	for i := range 50 {
		began := time.Now()
		r.Send(ticks(1, 10, start+int64(1+i)*10*tick))
		if took := time.Since(began); took > time.Second {
			t.Errorf("Send took %v", took)
		}
		if st := r.Stats(); st.Pending > 100 {
			t.Fatalf("%+v", st)
		}
	}
	if st := r.Stats(); st.Dropped != 410 || st.Pending != 100 {
		t.Errorf("%+v", st)
	}
	if text := said(); strings.Count(text, "\n") != 1 {
		t.Error(text)
	}
	close(srv.held)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	// The oldest that waited have gone, not the newest.
	list := srv.got["__name__=stanch_process_resident_memory_bytes service=service0 worker=0"]
	if len(list) != 100 || list[99].Timestamp != start+509*tick || list[10].Timestamp != start+420*tick {
		t.Errorf("%d samples arrived: %v", len(list), list)
	}
}

func TestRemoteCloseHasAnEnd(t *testing.T) {
	srv := receive(t, &receiver{held: make(chan struct{})})
	r := remote(t, srv.URL, RemoteOptions{Flush: 50 * time.Millisecond})
	r.Send(ticks(5, 1, start))
	<-srv.asked
	began := time.Now()
	err := r.Close()
	if err == nil || !strings.Contains(err.Error(), "5 samples were not sent") {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	r.Send(ticks(1, 1, start))
	if err := r.Close(); err != nil || r.Stats().Dropped != 1 {
		t.Error(err, r.Stats())
	}
}

func TestRemoteToken(t *testing.T) {
	srv := receive(t, &receiver{})
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := remote(t, srv.URL, RemoteOptions{TokenFile: path})
	for i, text := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.Send(ticks(1, 1, start+int64(i)))
		eventually(t, "sent", func() bool { return r.Stats().Sent == uint64(i+1) })
		srv.mu.Lock()
		if got := srv.headers.Get("Authorization"); got != "Bearer "+text {
			t.Error(got)
		}
		srv.mu.Unlock()
	}
}

func TestRemoteTellsNoSecrets(t *testing.T) {
	for _, address := range []string{
		"http://me:secret@127.0.0.1:1/?token=secret", "ftp://me:secret@host/", "http://me:secret@ho st/", "me:secret@host/write", "http://me:secret@/",
	} {
		log, said := hear()
		r, err := NewRemote(address, RemoteOptions{Log: log, Flush: time.Millisecond})
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			r.Send(ticks(1, 1, start))
			eventually(t, "refused", func() bool { return r.Stats().Err != nil })
			text = fmt.Sprint(r.Stats().Err, r.Close(), said())
		}
		if strings.Contains(text, "secret") || text == "" {
			t.Errorf("%s: %s", address, text)
		}
	}
	if _, err := NewRemote("http://host/", RemoteOptions{TokenFile: "/does/not/exist"}); err == nil {
		t.Error("a token file that is not there is taken")
	}
}

func TestRemoteTLS(t *testing.T) {
	srv := &receiver{got: make(map[string][]prompb.Sample), asked: make(chan struct{}, 10)}
	srv.Server = httptest.NewTLSServer(srv)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(srv.Close)
	r := remote(t, srv.URL, RemoteOptions{Flush: time.Millisecond})
	r.Send(ticks(1, 1, start))
	eventually(t, "refused", func() bool { return r.Stats().Err != nil })
	if err := r.Stats().Err; !strings.Contains(err.Error(), "certificate") {
		t.Error("an unknown certificate is believed:", err)
	}
	trusting := remote(t, srv.URL, RemoteOptions{})
	trusting.client.Transport = srv.Client().Transport
	trusting.Send(ticks(1, 1, start))
	eventually(t, "sent", func() bool { return trusting.Stats().Sent == 1 })
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "99999": maxAsked, "9223372036854775807": maxAsked, "soon": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := asked(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// TestRemoteSaysEachOutage says that samples are dropped when it begins, also when others were
// refused before, and each time anew.
func TestRemoteSaysEachOutage(t *testing.T) {
	srv := receive(t, &receiver{answers: []int{400}})
	log, said := hear()
	r := remote(t, srv.URL, RemoteOptions{MaxPending: 5, Log: log})
	r.Send(ticks(1, 1, start))
	eventually(t, "refused", func() bool { return r.Stats().Dropped == 1 })
	for round := range 3 {
		held := make(chan struct{})
		srv.mu.Lock()
		srv.held = held
		srv.mu.Unlock()
		for i := range int64(4) {
			r.Send(ticks(1, 5, start+(int64(round)*100+i*5+1)*tick))
		}
		close(held)
		eventually(t, "sent", func() bool { return r.Stats().Pending == 0 })
		if text := said(); strings.Count(text, "too slow") != round+1 {
			t.Fatalf("round %d: %s", round, text)
		}
	}
}

// TestRemoteSaysLittle is turned away once, and refused many times with other words; a log of
// days must not be full of that.
func TestRemoteSaysLittle(t *testing.T) {
	srv := receive(t, &receiver{answers: []int{503, 400, 400, 400, 403}, after: "0", counts: true})
	log, said := hear()
	r := remote(t, srv.URL, RemoteOptions{MaxBatch: 1, Log: log})
	r.Send(ticks(1, 5, start))
	eventually(t, "sent", func() bool { return r.Stats().Sent == 1 })
	if text := said(); strings.Count(text, "\n") != 2 || strings.Count(text, "400") != 1 || strings.Count(text, "403") != 1 || strings.Contains(text, "tried again") {
		t.Error(text)
	}
}

// TestRemoteIsNotHeldUp sends what makes the server fail each time. It is given up when newer samples need
// its place, and not before.
func TestRemoteIsNotHeldUp(t *testing.T) {
	t.Parallel()
	srv := receive(t, &receiver{poison: "service0"})
	r := remote(t, srv.URL, RemoteOptions{MaxPending: 20, MaxBatch: 5})
	r.Send(ticks(1, 5, start))
	eventually(t, "tried twice", func() bool { return len(srv.asked) > 1 })
	if st := r.Stats(); st.Dropped != 0 || st.Pending != 5 {
		t.Errorf("%+v", st)
	}
	var good []series.Sample
	for i := range int64(20) {
		good = append(good, series.Sample{Key: rss("good"), At: start + i*tick, Value: 1})
	}
	r.Send(good)
	eventually(t, "sent", func() bool { return r.Stats().Pending == 0 })
	if st := r.Stats(); st.Sent != 15 || st.Dropped != 10 || srv.samples() != 15 {
		t.Errorf("%+v, %d have arrived", st, srv.samples())
	}
}
