// Command series writes the generated corpus of histories, or measures how
// often package trend is right on it.
//
//	go run ./testdata/series write DIR [SEED]
//	go run ./testdata/series accuracy [SEEDS [FIRST]]
package main

import (
	"errors"
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
	switch {
	case (len(args) == 2 || len(args) == 3) && args[0] == "write":
		seeds, err := numbers(args[2:], 1)
		if err != nil {
			return err
		}
		return write(args[1], seeds[0])
	case len(args) > 0 && len(args) < 4 && args[0] == "accuracy":
		n, err := numbers(args[1:], 9, 1)
		if err != nil {
			return err
		}
		return measure(n[0], n[1])
	}
	return errors.New("usage: series write DIR [SEED] | series accuracy [SEEDS [FIRST]]")
}

// numbers reads the arguments; those that are missing are as given.
func numbers(args []string, otherwise ...uint64) ([]uint64, error) {
	for i, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			return nil, err
		}
		otherwise[i] = n
	}
	return otherwise, nil
}

// measure prints the tables, of so many seeds for each family and shape.
func measure(seeds, first uint64) error {
	var all []uint64
	for i := range seeds {
		all = append(all, first+i)
	}
	recorded, err := accuracy.Recorded(filepath.Join("testdata", "series", "real"))
	if err != nil {
		return err
	}
	if len(recorded) == 0 {
		return errors.New("no recordings in testdata/series/real: run this in the root of the repository")
	}
	hours, err := accuracy.Recorded(filepath.Join("testdata", "series", "real", "hours"))
	if err != nil {
		return err
	}
	outs := append(accuracy.Run(accuracy.Jobs(corpus.Shapes, all)), recorded...)
	accuracy.Print(os.Stdout, outs)
	s := accuracy.Count(hours, accuracy.Stanch)
	fmt.Printf("\nrecordings of two hours, made when the detectors were done: %d traces, %d leaks: precision %.4f, recall %.3f\n", s.Traces, s.Leaks, s.Precision(), s.Recall())
	for i := range hours {
		if o := &hours[i]; o.Positive != o.Trace.Leak {
			fmt.Printf("  %s: leak %v, said %s %q\n", o.Trace.Name, o.Trace.Leak, o.Trend.Verdict, o.Trend.Evidence)
		}
	}
	return nil
}

// write makes a file of each trace, in the form of the recordings.
func write(dir string, seed uint64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range corpus.Families() {
		for _, s := range corpus.Shapes {
			t := corpus.Make(f, s, 6, seed)
			if t == nil {
				continue
			}
			name := filepath.Join(dir, strings.ReplaceAll(t.Name, "/", "-")+".txt")
			if err := os.WriteFile(name, corpus.Text(t), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
