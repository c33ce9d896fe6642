package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"stanch/internal/leak"
	"stanch/internal/render"
)

// question is what suspects asks a running watch over its unix socket.
type question struct {
	Service string // a word of the user; "" for all
	Since   time.Duration
	Ended   bool // of all, those too that have ended
	Charts  bool // of all, the charts too of those that grow; of one they come always
}

// reportPath is where a watch answers a question with a report, over HTTP.
const reportPath = "/v1/report"

// longestPath is the longest path of a unix socket: sizeof sun_path less the
// NUL, unix(7).
const longestPath = 107

// fits reports whether a socket can have this path.
func fits(path string) error {
	if len(path) > longestPath {
		return fmt.Errorf("the path of the socket %s is longer than %d bytes", path, longestPath)
	}
	return nil
}

// listenUnix makes a socket that only its owner can use. One that a dead watch
// left behind is replaced; one that somebody answers is left alone.
func listenUnix(path string) (net.Listener, error) {
	if err := fits(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	l, err := listenPrivate(path)
	if errors.Is(err, syscall.EADDRINUSE) && !answers(path) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = listenPrivate(path)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another stanch watch listens on %s: %w", path, err)
	}
	return l, err
}

// listenPrivate makes the socket's file with the mode 0600. The mode that a
// socket has before it gets a path is that of its file; a umask would be that of
// the whole process, and of what the store writes meanwhile.
func listenPrivate(path string) (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, socket syscall.RawConn) error {
		var failed error
		err := socket.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	return c.Listen(context.Background(), "unix", path)
}

func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// ask gives the report of the watch that listens on a socket. errNoWatch says
// that there is none.
func ask(ctx context.Context, socket string, q question) (*leak.Report, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: answerWithin,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	address := "http://stanch" + reportPath + "?" + url.Values{"service": {q.Service}, "since": {q.Since.String()}, "charts": {strconv.FormatBool(q.Charts)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w on %s", errNoWatch, socket)
	case timedOut(err):
		return nil, fmt.Errorf("the watch on %s has not answered for %v; it hangs, or is stopped, or gets no CPU time", socket, answerWithin)
	case err != nil:
		return nil, fmt.Errorf("ask the watch on %s: %w", socket, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if err != nil {
			return nil, fmt.Errorf("ask the watch on %s: %w", socket, err)
		}
		err = errors.New(strings.TrimSpace(string(text)))
		if resp.StatusCode == http.StatusNotFound {
			err = unknownError{err}
		}
		return nil, err
	}
	r, err := render.ReadJSON(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("the watch on %s: %w", socket, err)
	}
	return r, nil
}

// answerWithin is how long a watch may take for an answer: longer than a host
// with hundreds of growing services takes. A variable, for tests.
var answerWithin = 2 * time.Minute

func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// unknownError is what a watch says of what it has not seen, or not yet.
type unknownError struct{ error }

var errNoWatch = errors.New("no stanch watch answers")

// answer makes the handler of a watch's socket.
func answer(report func(context.Context, question) (*leak.Report, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+reportPath, func(w http.ResponseWriter, r *http.Request) {
		since, err := time.ParseDuration(r.FormValue("since"))
		if err != nil {
			http.Error(w, "since: "+err.Error(), http.StatusBadRequest)
			return
		}
		out, err := report(r.Context(), question{Service: r.FormValue("service"), Since: since, Charts: r.FormValue("charts") == "true"})
		if err != nil {
			status := http.StatusInternalServerError
			var unknown unknownError
			if errors.As(err, &unknown) {
				status = http.StatusNotFound
			}
			http.Error(w, err.Error(), status)
			return
		}
		out.Normalize()
		w.Header().Set("Content-Type", "application/json")
		// A reader that went away is no concern of ours, and one that does not read
		// must not keep the others waiting.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(readWithin))
		_ = json.NewEncoder(w).Encode(out)
	})
	return inTurn(mux)
}

// readWithin is how long a client may take to read an answer.
const readWithin = time.Minute

// inTurn answers one request at a time: each may need as much memory as the
// watch itself, and the one that asks twice must not end it. Who goes away
// before it is its turn costs nothing.
func inTurn(h http.Handler) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}
