package app

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"stanch/internal/leak"
	"stanch/internal/suppress"
	"stanch/internal/symbol"
)

// expected is what is known already and shall not count: suppression files and
// a baseline.
type expected struct {
	files []string // --suppressions
	known string   // --baseline
	keep  string   // --write-baseline

	rules    suppress.Rules
	baseline *suppress.Baseline // nil without --baseline
}

const expectedHelp = `

A suppression file has one rule a line and # comments; * stands for anything, / too:
  function:GLOB  file:GLOB  module:GLOB  any frame of the stack: parse_*, src/net.c, libfoo.so*
  key:KEY                                one finding, by its key or name_key in the JSON report
  rule=heap.growth function:GLOB         findings of one rule only
LeakSanitizer's leak:PATTERN and Valgrind's { ... Memcheck:Leak ... } (or :Free) are understood too.
A baseline knows findings by their keys: only new ones count, whatever the known ones lose now.
Write it with the same command as is to read it: a scan names no lines, so its keys are others.`

func (e *expected) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&e.files, "suppressions", nil, "leave out what the rules in this file match; may be given several times")
	f.StringVar(&e.known, "baseline", "", "count what is in this file, made by --write-baseline, as known; only the rest makes exit code 3")
	f.StringVar(&e.keep, "write-baseline", "", "keep all that is found in this file (mode 0600) as known, and exit 0")
	cmd.Long += expectedHelp
}

// check reads the files, so that mistakes in them are found before the target
// is touched.
func (e *expected) check(o *output) error {
	e.rules, e.baseline = suppress.Rules{}, nil
	parser := suppress.Parser{Readable: symbol.Readable}
	for _, name := range e.files {
		data, err := os.ReadFile(name)
		if err == nil {
			err = parser.Parse(&e.rules, name, data)
		}
		if err != nil {
			return codeError{ExitUsage, err}
		}
	}
	if e.known != "" {
		data, err := os.ReadFile(e.known)
		if err != nil {
			return codeError{ExitUsage, err}
		}
		if e.baseline, err = suppress.ReadBaseline(bytes.NewReader(data)); err != nil {
			return usagef("%s: %w", e.known, err)
		}
	}
	switch {
	case e.keep == "":
	case e.keep == o.file:
		return usagef("-o and --write-baseline both name %s; give two names", e.keep)
	case !o.force:
		if _, err := os.Lstat(e.keep); err == nil {
			return usagef("%s exists; give another name, or --force to overwrite it", e.keep)
		}
	}
	return nil
}

// apply takes what is known out of the report, and keeps a new baseline of what
// was found, known or not.
func (e *expected) apply(r *leak.Report, force bool) error {
	e.rules.Apply(r)
	if e.keep != "" {
		var b bytes.Buffer
		if err := suppress.NewBaseline(r).Write(&b); err != nil {
			return err
		}
		f, err := create(e.keep, force)
		if err != nil {
			return err
		}
		if _, err := f.Write(b.Bytes()); err != nil {
			f.Close()
			return fmt.Errorf("write %s: %w", e.keep, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("write %s: %w", e.keep, err)
		}
		r.Notes = append(r.Notes, fmt.Sprintf("kept as known in %s, findings: %d", e.keep, len(r.Findings)))
	}
	if e.baseline != nil {
		e.baseline.Apply(r, e.known)
	}
	return nil
}
