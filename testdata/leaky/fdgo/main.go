// Fdgo is a web server and its own client, which on one path forgets to close
// the body of an answer: the connection is never used again and never closed.
//
//	leak N   N requests whose bodies are forgotten: two sockets each, as the
//	         server waits for the next request
//	keep N   N requests whose connections go back to the pool
//	files N  N files opened on a path that forgets them
//	count    "count FORGOTTEN"
//	quit
//
// Started with the argument "clean" it does the same and forgets nothing.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
)

type program struct {
	client *http.Client
	url    string
	clean  bool
	bodies []io.Closer // what was forgotten: else the garbage collector might close files
}

func main() {
	if err := run(len(os.Args) > 1 && os.Args[1] == "clean"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(70)
	}
}

func run(clean bool) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, http.HandlerFunc(answer)) }()
	p := &program{client: &http.Client{Transport: &http.Transport{}}, url: "http://" + l.Addr().String(), clean: clean}
	if err := p.ask(); err != nil { // the runtime's own descriptors are open now
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan() && in.Text() != "quit"; {
		if err := p.obey(in.Text()); err != nil {
			return err
		}
	}
	return nil
}

// answer says more than a client reads at once, so that a body that is not read
// to its end keeps its connection.
func answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/missing" {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = io.WriteString(w, strings.Repeat("an answer of several lines\n", 1000))
}

func (p *program) obey(line string) error {
	var n int
	switch {
	case line == "count":
		fmt.Println("count", len(p.bodies))
		return nil
	case scan(line, "leak %d", &n):
		for range n {
			if err := p.fetchMissing(); err == nil {
				return errors.New("a missing page was found")
			}
		}
	case scan(line, "keep %d", &n):
		for range n {
			if err := p.ask(); err != nil {
				return err
			}
		}
	case scan(line, "files %d", &n):
		for range n {
			if err := p.readConfig("/etc/hostname"); err != nil {
				return err
			}
		}
	default:
		fmt.Println("violation: unknown command")
		return nil
	}
	runtime.GC()
	fmt.Println("ok")
	return nil
}

func scan(line, format string, n *int) bool {
	got, _ := fmt.Sscanf(line, format, n)
	return got == 1
}

// ask reads an answer to its end, and gives the connection back.
//
//go:noinline
func (p *program) ask() error {
	resp, err := p.client.Get(p.url)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// fetchMissing returns early when the answer is not the right one, without a
// word to its body. The stacks of the sockets do not show it: net/http dials in
// goroutines of its own, and the server accepts in another.
//
//go:noinline
func (p *program) fetchMissing() error {
	resp, err := p.client.Get(p.url + "/missing")
	if err != nil {
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		p.forget(resp.Body)
		return errors.New(resp.Status)
	}
	defer func() { _ = resp.Body.Close() }()
	return nil
}

// readConfig forgets a file whose first line it does not like.
//
//go:noinline
func (p *program) readConfig(path string) error {
	f, err := os.Open(path) /* want fd openat */
	if err != nil {
		return err
	}
	p.forget(f)
	return nil
}

// forget keeps what a clean program closes.
func (p *program) forget(c io.Closer) {
	if p.clean {
		_ = c.Close()
		return
	}
	p.bodies = append(p.bodies, c)
}
