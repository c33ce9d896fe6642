// Goleak is a static Go program that forgets files and connections.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"syscall"
)

//go:noinline
func forgets(path string) {
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	fmt.Println(fd, "main.forgets")
}

var kept []net.Conn

//go:noinline
func dials() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	done := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		done <- c
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	kept = append(kept, c, <-done)
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		panic(err)
	}
	_ = raw.Control(func(fd uintptr) { fmt.Println(fd, "main.dials") })
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	in.Scan()
	for range 3 {
		forgets("/dev/null")
	}
	dials()
	fmt.Println("done")
	in.Scan()
}
