package render

import (
	"fmt"
	"path"
	"strings"

	"stanch/internal/leak"
)

// The most frames that the text shows, and the most of those that are skipped.
const (
	maxFrames  = 8
	maxSkipped = 3
)

// library reports whether a function is a template of the C++ library, which
// says nothing about the program. A result type may stand before its name.
func library(function string) bool {
	head, _, _ := strings.Cut(function, "<")
	name := head[strings.LastIndexByte(head, ' ')+1:]
	return strings.HasPrefix(name, "std::") || strings.HasPrefix(name, "__gnu_cxx::")
}

// starts are the functions of libc that call main and the functions of
// threads; they say nothing.
var starts = map[string]bool{
	"_start": true, "__libc_start_main": true, "__libc_start_main_impl": true, "__libc_start_call_main": true,
	"start_thread": true, "clone": true, "clone3": true, "__clone": true, "__clone3": true,
}

// stack writes the stack of a finding.
func stack(f *leak.Finding) string { return stackOf(f.Stack, f.Site, maxFrames) }

// stackOf writes the line and its callers: "f net.c:88 < g poll.c:60", then the
// wrappers that stand between it and the allocator.
func stackOf(frames []leak.StackFrame, line, most int) string {
	site := min(max(line, 0), len(frames)-1)
	callers := frames[site:]
	for len(callers) > 1 && starts[callers[len(callers)-1].Function] {
		callers = callers[:len(callers)-1]
	}
	cut := len(callers) > most
	var parts []string
	for i := range callers[:min(len(callers), most)] {
		parts = append(parts, frame(&callers[i], i == 0))
	}
	s := strings.Join(parts, " < ")
	if cut {
		s += " < ..."
	}
	var skipped []string
	for i := site - 1; i >= 0 && len(skipped) < maxSkipped; i-- {
		if !library(frames[i].Function) {
			skipped = append(skipped, frame(&frames[i], false))
		}
	}
	if len(skipped) > 0 {
		s += " (" + strings.Join(skipped, ", ") + nbsp + "skipped)"
	}
	return s
}

// frame writes one frame, the file of the first with its directory.
func frame(f *leak.StackFrame, full bool) string {
	name := functionName(f)
	if name == "" {
		return together(fmt.Sprintf("%s+%#x", Clean(f.Module), f.Offset))
	}
	switch {
	case f.File == "" || f.Line == 0:
		return together(name + " " + Clean(f.Module))
	case full:
		return together(fmt.Sprintf("%s %s:%d", name, Clean(shorten(f.File)), f.Line))
	}
	return together(fmt.Sprintf("%s %s:%d", name, Clean(path.Base(f.File)), f.Line))
}

// functionName is a function's name without anonymous namespaces, which say
// nothing.
func functionName(f *leak.StackFrame) string {
	return strings.ReplaceAll(Clean(f.Function), "(anonymous namespace)::", "")
}

// shorten keeps the last directory of an absolute path.
func shorten(file string) string {
	if !path.IsAbs(file) {
		return file
	}
	dir, base := path.Split(file)
	return path.Join(path.Base(dir), base)
}
