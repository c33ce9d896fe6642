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

// listenUnix makes a socket that only its owner can use. One that a dead watch
// left behind is replaced; one that somebody answers is left alone.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > longestPath {
		return nil, fmt.Errorf("the path of the socket %s is longer than %d bytes", path, longestPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && !answers(path) {
		if err := os.Remove(path); err != nil {
			syscall.Umask(old)
			return nil, err
		}
		l, err = net.Listen("unix", path)
	}
	syscall.Umask(old)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another stanch watch listens on %s: %w", path, err)
	}
	return l, err
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
		DisableKeepAlives: true,
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
		// A reader that went away is no concern of ours.
		_ = json.NewEncoder(w).Encode(out)
	})
	return mux
}
