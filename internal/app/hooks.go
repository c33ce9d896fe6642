package app

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"stanch/internal/source/probe"
)

// hookFlags are the functions of a program's own allocators.
type hookFlags struct {
	alloc, free []string
}

func (f *hookFlags) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.alloc, "alloc", nil, "a function of the program's own allocator that returns blocks, with the argument that is the size: pool_get:size=1 (repeatable)")
	fl.StringArrayVar(&f.free, "free", nil, "one that takes them back, with the argument that is the block: pool_put:ptr=1 (repeatable)")
}

// hooks reads them.
func (f *hookFlags) hooks() ([]probe.Hook, error) {
	var out []probe.Hook
	for _, word := range f.alloc {
		h, err := parseHook("--alloc", word, true)
		if err != nil {
			return nil, err
		}
		h.Alloc, h.Free = true, h.Ptr != 0 // one that resizes does both
		out = append(out, h)
	}
	for _, word := range f.free {
		h, err := parseHook("--free", word, false)
		if err != nil {
			return nil, err
		}
		if h.Ptr == 0 {
			return nil, usagef("--free %s does not say which argument is the block: %s:ptr=1", word, h.Name)
		}
		h.Free = true
		out = append(out, h)
	}
	if len(f.free) > 0 && len(f.alloc) == 0 {
		return nil, usagef("--free names who takes blocks back; --alloc must name who returns them")
	}
	return out, nil
}

// parseHook reads "pool_get:size=1,count=2".
func parseHook(flag, word string, alloc bool) (probe.Hook, error) {
	name, args, _ := strings.Cut(word, ":")
	h := probe.Hook{Name: name}
	if name == "" {
		return h, usagef("%s takes a function, such as pool_get:size=1, not %q", flag, word)
	}
	for _, arg := range strings.Split(args, ",") {
		if arg == "" {
			continue
		}
		key, value, _ := strings.Cut(arg, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 6 {
			return h, usagef("%s %s: %q must give the number of an argument, 1 to 6", flag, word, arg)
		}
		switch {
		case key == "size" && alloc:
			h.Size = n
		case key == "count" && alloc:
			h.Count = n
		case key == "ptr":
			h.Ptr = n
		default:
			return h, usagef("%s %s: there is no %q; %s", flag, word, key, hookKeys(alloc))
		}
	}
	return h, nil
}

func hookKeys(alloc bool) string {
	if alloc {
		return "size, count and ptr can be given"
	}
	return "ptr can be given"
}
