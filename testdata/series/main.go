// Command series writes the generated corpus of histories, or measures how
// often package trend is right on it.
//
//	go run ./testdata/series write DIR [SEED]
//	go run ./testdata/series accuracy [SEEDS [FIRST]]
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"stanch/internal/trend/accuracy"
	"stanch/internal/trend/corpus"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "series:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	number := func(i int, otherwise uint64) uint64 {
		if i < len(args) {
			if n, err := strconv.ParseUint(args[i], 10, 32); err == nil {
				return n
			}
		}
		return otherwise
	}
	switch {
	case len(args) > 1 && args[0] == "write":
		return write(args[1], number(2, 1))
	case len(args) > 0 && args[0] == "accuracy":
		return measure(number(1, 9), number(2, 1))
	}
	return fmt.Errorf("usage: series write DIR [SEED] | series accuracy [SEEDS [FIRST]]")
}

// measure prints the tables, of so many seeds for each family and shape.
func measure(seeds, first uint64) error {
	var all []uint64
	for i := range seeds {
		all = append(all, first+i)
	}
	jobs := accuracy.Jobs(corpus.Shapes, all)
	recorded, err := accuracy.Recorded(filepath.Join("testdata", "series", "real"))
	if err != nil {
		return err
	}
	outs := append(accuracy.Run(jobs), recorded...)
	accuracy.Print(os.Stdout, outs)
	return nil
}

// write makes a file of each trace, in the form of the recordings.
func write(dir string, seed uint64) error {
	for _, f := range corpus.Families() {
		for _, s := range corpus.Shapes {
			t := corpus.Make(f, s, 6, seed)
			if t == nil {
				continue
			}
			name := filepath.Join(dir, strings.ReplaceAll(t.Name, "/", "-")+".txt")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(name, corpus.Text(t), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
