package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// get is the work of web servers: one request for a page that nobody has asked
// for before, by a client that keeps its connection.
func get(address string) func() error {
	client := &http.Client{Timeout: 10 * time.Second}
	var n atomic.Int64
	return func() error {
		resp, err := client.Get(fmt.Sprintf("http://%s/item/%d", address, n.Add(1)))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s", resp.Status)
		}
		return err
	}
}

// startNginx runs nginx with one worker, which is recorded; the mode is a file
// of Lua that makes the pages.
func startNginx(b *bench, s *subject) error {
	address, err := freePort()
	if err != nil {
		return err
	}
	dir := filepath.Join(b.work, s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(b.sources, "nginx.conf"))
	if err != nil {
		return err
	}
	conf := strings.NewReplacer("@DIR@", dir, "@LISTEN@", address, "@PAGE@", filepath.Join(b.sources, s.mode)).Replace(string(text))
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	s.version = strings.TrimPrefix(version("nginx", "-v"), "nginx version: ") + " with libnginx-mod-http-lua, a worker"
	if err := b.command(s, exec.Command("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))); err != nil {
		return err
	}
	master := s.pid
	s.work = get(address)
	return until("nginx answers", func() bool {
		s.pid = firstChild(master)
		return s.pid != 0 && s.work() == nil
	})
}

// startNginxConnections is nginx whose clients stay: their number follows the
// shape of the load.
func startNginxConnections(b *bench, s *subject) error {
	if err := startNginx(b, s); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(b.work, s.name, "nginx.conf"))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "listen ")
	address, _, _ := strings.Cut(rest, ";")
	s.drive = func(ctx context.Context, length time.Duration) {
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				_ = c.Close()
			}
		}()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for start := time.Now(); ; {
			want := int(s.rate * s.shape.at(float64(time.Since(start))/float64(length)))
			switch {
			case len(conns) < want:
				if c, err := net.Dial("tcp", address); err == nil {
					conns = append(conns, c)
				}
			case len(conns) > want:
				_ = conns[0].Close()
				conns = conns[1:]
			}
			// One of them asks for something, so that none is idle for too long.
			if len(conns) > 0 {
				c := conns[0]
				conns = append(conns[1:], c)
				fmt.Fprint(c, "GET /item/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = c.Read(make([]byte, 64<<10)) // what came is of no interest
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
	return nil
}

// firstChild is the first child of a process, 0 when it has none.
func firstChild(pid int) (child int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscan(string(text), &child); err != nil {
		return 0
	}
	return child
}

// startPython runs shop.py in a mode.
func startPython(b *bench, s *subject) error {
	s.version = version("/usr/bin/python3", "--version")
	return startShop(b, s, "/usr/bin/python3", filepath.Join(b.sources, "shop.py"))
}

// startGo runs the shop of shop/main.go in a mode.
func startGo(b *bench, s *subject) error {
	s.version = strings.TrimPrefix(version("go", "version"), "go version ")
	return startShop(b, s, filepath.Join(b.work, "shop"))
}

func startShop(b *bench, s *subject, argv ...string) error {
	address, err := freePort()
	if err != nil {
		return err
	}
	argv = append(argv, s.mode, address, b.origin.URL)
	if err := b.command(s, exec.Command(argv[0], argv[1:]...)); err != nil {
		return err
	}
	s.work = get(address)
	return until("the shop answers", func() bool { return s.work() == nil })
}
