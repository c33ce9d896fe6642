// Shop is a small HTTP server, healthy or with one of the leaks of its kind.
//
//	shop MODE HOST:PORT ORIGIN
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"sync"
)

// order is what a page is made of; most of it is garbage after the request.
type order struct {
	Path  string
	Items []string
}

var (
	mu     sync.Mutex
	recent [512][]byte // healthy: a cache with a bound
	next   int
	kept   = map[string][]byte{}
)

// render makes a page and about 200 KiB of garbage beside it.
func render(path string) []byte {
	o := order{Path: path}
	for i := range 1000 {
		o.Items = append(o.Items, fmt.Sprintf("%s, item %d at %d", path, i, rand.IntN(1000)))
	}
	text, err := json.Marshal(o)
	if err != nil {
		log.Fatal(err)
	}
	return text
}

// healthy keeps the last pages, a fixed number of them.
func healthy(path, _ string) []byte {
	page := render(path)
	mu.Lock()
	defer mu.Unlock()
	recent[next%len(recent)] = bytes.Clone(page[:4096])
	next++
	return page
}

// visits keeps 1 KiB of one request in five, under a path that never comes back.
func visits(path, _ string) []byte {
	page := render(path)
	if rand.IntN(5) == 0 {
		mu.Lock()
		defer mu.Unlock()
		kept[path] = bytes.Clone(page[:1024])
	}
	return page
}

// bodies asks another server and, in one request of forty, goes without
// closing the answer: a connection and two goroutines are kept.
func bodies(path, origin string) []byte {
	resp, err := http.Get(origin + path)
	if err != nil {
		return []byte(err.Error())
	}
	if rand.IntN(40) == 0 {
		return []byte(resp.Status)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return []byte(err.Error())
	}
	return append(text, render(path)...)
}

// threads locks a goroutine to its thread in one request of a hundred, and it
// waits for what never comes.
func threads(path, _ string) []byte {
	if rand.IntN(100) == 0 {
		go func() {
			runtime.LockOSThread()
			select {}
		}()
	}
	return render(path)
}

var modes = map[string]func(path, origin string) []byte{"healthy": healthy, "visits": visits, "bodies": bodies, "threads": threads}

func main() {
	page, origin := modes[os.Args[1]], os.Args[3]
	log.Fatal(http.ListenAndServe(os.Args[2], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(page(r.URL.Path, origin)) // a client that has gone is the client's affair
	})))
}
