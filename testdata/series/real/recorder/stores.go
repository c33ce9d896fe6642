package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// startRedis runs redis-server with the words of the mode as its options, and
// as its work a key of the subject.
func startRedis(key func(n int) string) func(*bench, *subject) error {
	return func(b *bench, s *subject) error {
		socket := filepath.Join(b.work, s.name+".sock")
		s.version, _, _ = strings.Cut(version("redis-server", "--version"), " sha=")
		args := append([]string{"--port", "0", "--unixsocket", socket, "--save", "", "--dir", b.work}, strings.Fields(s.mode)...)
		if err := b.command(s, exec.Command("redis-server", args...)); err != nil {
			return err
		}
		if err := until("redis listens", func() bool { return answers("unix", socket) }); err != nil {
			return err
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		n, replies := 0, bufio.NewReader(conn)
		s.work = func() error {
			n++
			return ask(conn, replies, key(n))
		}
		return nil
	}
}

// startMemcached runs memcached with the words of the mode as its options.
func startMemcached(b *bench, s *subject) error {
	socket := filepath.Join(b.work, s.name+".sock")
	s.version = version("memcached", "-V")
	args := append([]string{"-u", "root", "-s", socket}, strings.Fields(s.mode)...)
	if err := b.command(s, exec.Command("memcached", args...)); err != nil {
		return err
	}
	if err := until("memcached listens", func() bool { return answers("unix", socket) }); err != nil {
		return err
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	n, replies := 0, bufio.NewReader(conn)
	s.work = func() error {
		n++
		value := filler(500 + rand.IntN(1000))
		return ask(conn, replies, fmt.Sprintf("set key:%d 0 0 %d\r\n%s", n, len(value), value))
	}
	return nil
}

// ask says one line and takes the answer, which is a line too.
func ask(conn net.Conn, replies *bufio.Reader, request string) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", request); err != nil {
		return err
	}
	reply, err := replies.ReadString('\n')
	if err == nil && !strings.HasPrefix(reply, "+OK") && !strings.HasPrefix(reply, ":") && !strings.HasPrefix(reply, "STORED") {
		err = fmt.Errorf("%s", strings.TrimSpace(reply))
	}
	return err
}

// filler is a value of so many bytes.
func filler(size int) string { return strings.Repeat("x", size) }
