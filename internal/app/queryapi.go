package app

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"stanch/internal/series/tsdb"
)

// queryAPI serves the two queries of Prometheus' HTTP API over a store, so that
// its clients, Grafana among them, can draw the history
// (https://prometheus.io/docs/prometheus/latest/querying/api/). One is answered
// at a time.
func queryAPI(store *tsdb.Store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/query", func(w http.ResponseWriter, r *http.Request) {
		at, err := timeOf(r.FormValue("time"), time.Now())
		if err != nil {
			tell(w, bad("time", err))
			return
		}
		tell(w, store.Query(r.Context(), r.FormValue("query"), at))
	})
	mux.HandleFunc("/api/v1/query_range", func(w http.ResponseWriter, r *http.Request) {
		from, err := timeOf(r.FormValue("start"), time.Time{})
		if err != nil {
			tell(w, bad("start", err))
			return
		}
		to, err := timeOf(r.FormValue("end"), time.Now())
		if err != nil {
			tell(w, bad("end", err))
			return
		}
		step, err := stepOf(r.FormValue("step"))
		if err != nil {
			tell(w, bad("step", err))
			return
		}
		tell(w, store.QueryRange(r.Context(), r.FormValue("query"), from, to, step))
	})
	return inTurn(http.MaxBytesHandler(mux, longestQuery))
}

// longestQuery is how long the form of a query may be, in bytes. Without a
// limit a form with files would be kept on disk.
const longestQuery = 1 << 20

func bad(what string, err error) tsdb.Answer {
	return tsdb.Answer{Status: "error", ErrorType: "bad_data", Error: fmt.Sprintf("%s: %v", what, err)}
}

func tell(w http.ResponseWriter, a tsdb.Answer) {
	w.Header().Set("Content-Type", "application/json")
	switch a.ErrorType {
	case "":
	case "bad_data":
		w.WriteHeader(http.StatusBadRequest)
	case "timeout", "canceled":
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	_ = json.NewEncoder(w).Encode(a) // a reader that went away is no concern of ours
}

// timeOf reads Unix seconds or RFC 3339; without text it is the other.
func timeOf(text string, other time.Time) (time.Time, error) {
	if text == "" {
		if other.IsZero() {
			return other, fmt.Errorf("it is missing")
		}
		return other, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(s) < 1<<40 {
		return time.UnixMilli(int64(math.Round(s * 1000))), nil
	}
	return time.Parse(time.RFC3339Nano, text)
}

// stepOf reads seconds or a duration.
func stepOf(text string) (time.Duration, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(s) < 1<<31 {
		return time.Duration(s * float64(time.Second)), nil
	}
	return time.ParseDuration(text)
}
