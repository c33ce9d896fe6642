package detect

import (
	"strings"

	"stanch/internal/leak"
)

// goPackages are packages of the Go library by which a program opens files,
// sockets and processes. What is below them, as net/http and os/exec, belongs
// to them.
var goPackages = words("runtime syscall os net io internal crypto bufio context database sync time vendor/golang.org golang.org/x/sys golang.org/x/net")

// goLibrary reports whether a function, by its plain name, is of the Go library:
// its callers are the place to look at.
func goLibrary(function string) bool {
	dot := strings.LastIndexByte(function, '/')
	next := strings.IndexByte(function[dot+1:], '.')
	if next < 0 {
		return false
	}
	pkg := function[:dot+1+next]
	for {
		if goPackages[pkg] {
			return true
		}
		slash := strings.LastIndexByte(pkg, '/')
		if slash < 0 {
			return false
		}
		pkg = pkg[:slash]
	}
}

// outermost gives the line of a stack that never leaves the libraries. One
// that begins in the Go library, as a goroutine of net/http does, is best known
// by the function that it began with.
func outermost(stack []leak.StackFrame) int {
	if !goLibrary(plain(stack[0].Function)) {
		return 0
	}
	line := 0
	for i := range stack {
		if goLibrary(plain(stack[i].Function)) && !strings.HasPrefix(stack[i].Function, "runtime.") {
			line = i
		}
	}
	return line
}
