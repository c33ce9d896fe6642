// Waits for ever in C, deep in a Go program.
package main

// #include <stdio.h>
// #include <unistd.h>
//
// static void park(void) {
//   puts("ready");
//   fflush(stdout);
//   for (;;)
//     pause();
// }
import "C"

import "runtime"

func init() { runtime.LockOSThread() }

//go:noinline
func deeper(n int) int {
	if n == 0 {
		C.park()
	}
	return deeper(n-1) + n
}

func main() { println(deeper(6)) }
