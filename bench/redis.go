package main

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"stanch/internal/fixture"
)

// redis measures the CPU time that redis-server takes for a SET while stanch
// records it, over what it takes alone; beside it the same below heaptrack and
// memcheck.
func redis(b *bench) []figure {
	// A value of 100 bytes is a block of 104 in redis.
	ways := []way{sampling, aimed("104"), exactly}
	var quotients [][]quotient
	var native []float64
	b.step(func(b *bench) {
		s := startRedis(b, nil)
		s.cpu(500_000, 16) // the keys exist now
		quotients, native = paired(b, s.pid, ways, func() []float64 { return []float64{s.cpu(40_000, 1), s.cpu(200_000, 16)} })
	})
	others := make([][]string, len(native))
	for _, tool := range []struct {
		name    string
		command []string
	}{
		{"heaptrack", b.heaptrack()},
		{"memcheck", append(b.memcheck(), "--soname-synonyms=somalloc=*jemalloc*")},
	} {
		b.step(func(b *bench) {
			s := startRedis(b, tool.command)
			s.cpu(20_000, 16)
			others[0] = append(others[0], fmt.Sprintf("%s %.2f", tool.name, s.cpu(20_000, 1)/native[0]))
			others[1] = append(others[1], fmt.Sprintf("%s %.2f", tool.name, s.cpu(50_000, 16)/native[1]))
		})
	}
	var figures []figure
	for i, asked := range []string{"one at a time", "16 at a time"} {
		for w, bound := range []float64{1.06, 1.06, 1.5} {
			q := quotients[w][i]
			b.Logf("redis, %s, %s: %v of native's %.2f us; %s", asked, ways[w].name, q, native[i], others[i])
			if i > 0 {
				bound = 0 // the hardest case, for information
			}
			figures = append(figures, figure{
				name: fmt.Sprintf("CPU time of a redis SET, of native, sent %s: %s", asked, ways[w].name), value: median(q), bound: bound,
				beside: fmt.Sprintf("%v; native %.2f us", q, native[i]),
			})
		}
		figures[len(figures)-1].beside += "; " + strings.Join(others[i], "; ")
	}
	return figures
}

// redisServer is one that runs, on a port of its own.
type redisServer struct {
	b    *bench
	pid  int
	port string
}

// startRedis starts redis-server, below a tool if there is one, and pins it.
func startRedis(b *bench, tool []string) *redisServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	args := append(append([]string(nil), tool...), fixture.Package(b, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", b.TempDir())
	name, args := before(args[0], args[1:]...)
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second
	if err := b.launch(cmd); err != nil {
		b.Fatal(err)
	}
	s := &redisServer{b: b, port: port}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		info, err := exec.Command("redis-cli", "-p", port, "info", "server").Output()
		if _, after, ok := strings.Cut(string(info), "process_id:"); ok && err == nil {
			word, _, _ := strings.Cut(after, "\r")
			s.pid, _ = strconv.Atoi(word)
			b.pin(s.pid)
			return s
		}
		if time.Since(began) > fixture.Patience {
			b.Fatalf("redis-server does not answer: %v\n%s", err, said.String())
		}
	}
}

// cpu sends n requests over 16 connections, so many at a time over each, and
// returns the server's CPU time for one, in microseconds.
func (s *redisServer) cpu(n, pipeline int) float64 {
	used := s.b.cpuSeconds(s.pid)
	name, args := before("taskset", "-c", loadCPU(), "redis-benchmark", "-p", s.port, "-t", "set", "-c", "16", "-d", "100",
		"-r", "100000", "-n", strconv.Itoa(n), "-P", strconv.Itoa(pipeline), "-q")
	s.b.run(name, args...)
	return (s.b.cpuSeconds(s.pid) - used) / float64(n) * 1e6
}
