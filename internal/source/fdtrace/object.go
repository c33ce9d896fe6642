package fdtrace

import _ "embed" // the programs

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -ffile-compilation-dir=. -c bpf/fdtrace.bpf.c -o fdtrace.bpf.o
//go:generate llvm-strip -g fdtrace.bpf.o

// object holds the programs, compiled from bpf/fdtrace.bpf.c.
//
//go:embed fdtrace.bpf.o
var object []byte
