// Command gosrc is a program to be named with and without its symbols.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

type conn struct{ name string }

//go:noinline
func (c *conn) read(n int) string { return strings.Repeat(c.name, n) }

func fresh(n int) *conn { return &conn{fmt.Sprint("c", n)} }

//go:noinline
func openAll[T any](n int, f func(int) T) []T {
	var all []T
	for i := range n {
		all = append(all, f(i))
	}
	return all
}

func main() {
	conns := openAll(len(os.Args)+3, fresh)
	sort.Slice(conns, func(i, j int) bool { return conns[i].read(1) > conns[j].read(1) })
	for _, c := range conns {
		fmt.Println(c.read(2))
	}
}
