package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"stanch/internal/leak"
	"stanch/internal/render"
	"stanch/internal/ui/web"
)

// formats are all formats of a report, the default first.
var formats = append(slices.Clone(render.Formats), web.Format)

// output is where a report goes and what makes the exit code.
type output struct {
	format string
	file   string
	force  bool
	failOn string

	expected expected
	after    func(io.Writer) error // what a command adds behind the report; may be nil
}

func (o *output) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "text, json or html; without it, what the extension of -o says, else text")
	f.StringVarP(&o.file, "output", "o", "", "write the report to this file (mode 0600) instead of standard output")
	f.BoolVar(&o.force, "force", false, "overwrite the output file")
	f.StringVar(&o.failOn, "fail-on", "leak", "exit 3 from this severity on: error, leak, growth, risk, or none")
	o.expected.flags(cmd)
}

// check finds mistakes before the target is touched.
func (o *output) check() error {
	if _, err := o.renderer(); err != nil {
		return err
	}
	switch o.failOn {
	case "error", "leak", "growth", "risk", "none":
	default:
		return usagef("--fail-on is error, leak, growth, risk or none, not %q", o.failOn)
	}
	if o.file != "" && !o.force {
		if _, err := os.Lstat(o.file); err == nil {
			return usagef("%s exists; give another name, or --force to overwrite it", o.file)
		}
	}
	return o.expected.check(o)
}

func (o *output) renderer() (render.Format, error) {
	name := o.format
	if name == "" && o.file != "" {
		ext := filepath.Ext(o.file)
		for _, f := range formats {
			if f.Ext == ext {
				return f, nil
			}
		}
	}
	if name == "" {
		name = "text"
	}
	var names []string
	for _, f := range formats {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return render.Format{}, usagef("there is no format %q; the formats are %s", name, strings.Join(names, ", "))
}

// write takes what is known out of the report and renders the rest to the file
// or to std.
func (o *output) write(std io.Writer, r *leak.Report) error {
	format, err := o.renderer()
	if err != nil {
		return err
	}
	if err := o.expected.apply(r, o.force); err != nil {
		return err
	}
	if o.file == "" {
		return o.all(std, format, r)
	}
	f, err := create(o.file, o.force)
	if err != nil {
		return err
	}
	if err := o.all(f, format, r); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", o.file, err)
	}
	return f.Close()
}

// all writes the report and what comes after it; text on a terminal as wide as
// that is.
func (o *output) all(w io.Writer, format render.Format, r *leak.Report) error {
	write := format.Write
	if format.Name == "text" && terminal(w) {
		write = func(w io.Writer, r *leak.Report) error { return render.TextIn(w, r, columns(w)) }
	}
	if err := write(w, r); err != nil || o.after == nil {
		return err
	}
	return o.after(w)
}

// code is the exit code that the report means.
func (o *output) code(r *leak.Report) int {
	if o.failOn == "none" || o.expected.keep != "" {
		return ExitOK
	}
	from := leak.Severity(o.failOn).Rank()
	for i := range r.Findings {
		if r.Findings[i].Severity.Rank() >= from {
			return ExitFound
		}
	}
	return ExitOK
}

// create makes a file that only its owner can read. It never follows a link,
// and replaces an existing file only when told to.
func create(name string, force bool) (*os.File, error) {
	flag := os.O_WRONLY | os.O_CREATE | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	if force {
		flag |= os.O_TRUNC
	} else {
		flag |= os.O_EXCL
	}
	f, err := os.OpenFile(name, flag, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil, usagef("%s exists; give another name, or --force to overwrite it", name)
	case errors.Is(err, syscall.ELOOP):
		return nil, usagef("%s is a symbolic link, and stanch does not write through links", name)
	case err != nil:
		return nil, codeError{ExitUsage, err}
	}
	// An overwritten file keeps the mode it had: what it holds now is private.
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s private: %w", name, err)
	}
	return f, nil
}
