package symbol

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

const maxPackageList = 16 << 20 // of one package's list of files

// Notes says which of the modules that were asked for had no names or no
// lines, why, and what to install. Order and wording do not depend on the
// order of questions.
func (s *Symbolizer) Notes() []string {
	s.mu.RLock()
	var mods []*module
	for _, m := range s.modules {
		mods = append(mods, m)
	}
	s.mu.RUnlock()

	var notes, nameless, lineless []string
	install := map[string]bool{}
	unknown := false
	wanted := map[string]*module{}
	for _, mod := range mods {
		mod.mu.Lock()
		l := mod.lack()
		switch l {
		case lackFile:
			notes = append(notes, printable(fmt.Sprintf("no names in %s: %s", mod.name, mod.why)))
		case lackNames:
			nameless = append(nameless, mod.name)
		case lackLines:
			lineless = append(lineless, mod.name)
		}
		if l == lackNames || l == lackLines {
			wanted[mod.mapping.Path] = mod
		}
		notes = append(notes, mod.notes...)
		if mod.main != nil {
			notes = append(notes, mod.unread()...)
		}
		mod.mu.Unlock()
	}
	if len(wanted) > 0 {
		owners := s.packages(wanted)
		for p := range wanted {
			if pkg := owners[p]; pkg != "" {
				install[debugPackage(pkg)] = true
			} else {
				unknown = true
			}
		}
	}
	advice := adviceFor(install, unknown)
	slices.Sort(nameless)
	slices.Sort(lineless)
	if len(nameless) > 0 {
		notes = append(notes, fmt.Sprintf("no function names in %s: stripped%s", joined(nameless), advice))
	}
	if len(lineless) > 0 {
		notes = append(notes, fmt.Sprintf("no file and line in %s: no debug information%s", joined(lineless), advice))
	}
	slices.Sort(notes)
	return slices.Compact(notes)
}

func joined(names []string) string { return strings.Join(slices.Compact(names), ", ") }

func adviceFor(install map[string]bool, unknown bool) string {
	var names []string
	for n := range install {
		names = append(names, n)
	}
	slices.Sort(names)
	switch {
	case len(names) > 0:
		return " (install " + strings.Join(names, " ") + ")"
	case unknown:
		return " (install its debug symbols, or build with -g)"
	}
	return ""
}

// What a module lacks.
const (
	lackNothing = iota
	lackFile
	lackNames
	lackLines
)

func (mod *module) lack() int {
	switch {
	case !mod.opened || mod.closed || !mod.asked || !mod.mapping.File():
		return lackNothing
	case mod.main == nil && jitted(&mod.mapping):
		return lackNothing
	case mod.main == nil:
		return lackFile
	case mod.golang != nil || mod.dwarf != nil:
		return lackNothing
	case len(mod.syms.funcs) == 0 || !mod.full():
		return lackNames
	}
	return lackLines
}

// full reports whether a complete symbol table was read; with the dynamic
// symbols alone a function that others cannot see has no name.
func (mod *module) full() bool {
	return slices.ContainsFunc(mod.syms.tabs, func(t symTab) bool { return t.full })
}

// unread says what a module has and could not be read.
func (mod *module) unread() []string {
	var notes []string
	for _, o := range []*object{mod.main, mod.debug, mod.alt} {
		if o == nil {
			continue
		}
		for _, b := range o.broken {
			notes = append(notes, printable(fmt.Sprintf("%s: %s", mod.name, b)))
		}
	}
	if mod.dwarf != nil && mod.dwarf.odd > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d units of debug information are of an unknown version", mod.name, mod.dwarf.odd))
	}
	if n := len(mod.dwos.missing); n > 0 {
		var names []string
		for _, name := range mod.dwos.missing {
			names = append(names, name)
		}
		notes = append(notes, printable(fmt.Sprintf("%s: no inlined calls from %d of its units: %s was not found (built with -gsplit-dwarf)", mod.name, n, slices.Min(names))))
	}
	return notes
}

// debugPackage is the name that Debian and Ubuntu give the package with a
// package's debug symbols. glibc's is older than the scheme.
func debugPackage(pkg string) string {
	if pkg == "libc6" {
		return "libc6-dbg"
	}
	return pkg + "-dbgsym"
}

// packages finds out which Debian packages the files belong to: dpkg keeps a
// list of files for each. What it does not know is not in the result.
func (s *Symbolizer) packages(wanted map[string]*module) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.packs == nil {
		s.packs = map[string]string{}
	}
	missing := map[string]string{} // as it may be listed -> as it is mapped
	for p := range wanted {
		if _, ok := s.packs[p]; !ok {
			s.packs[p] = ""
			missing[p] = p
			// Packages from before /lib became a link to /usr/lib list the old path.
			if old, ok := strings.CutPrefix(p, "/usr"); ok {
				missing[old] = p
			}
		}
	}
	if len(missing) == 0 {
		return maps.Clone(s.packs)
	}
	trees := []fs.FS{os.DirFS("/")}
	if s.root != nil {
		trees = []fs.FS{s.root.FS()}
	}
	for _, t := range trees {
		const dir = "var/lib/dpkg/info"
		entries, err := fs.ReadDir(t, dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), ".list")
			if !ok || !e.Type().IsRegular() {
				continue
			}
			b, err := readSmall(t, path.Join(dir, e.Name()))
			if err != nil {
				continue
			}
			pkg, _, _ := strings.Cut(name, ":")
			for line := range strings.Lines(b) {
				if p, ok := missing[strings.TrimSuffix(line, "\n")]; ok {
					s.packs[p] = printable(pkg)
				}
			}
		}
	}
	return maps.Clone(s.packs)
}

func readSmall(t fs.FS, p string) (string, error) {
	st, err := fs.Stat(t, p)
	if err != nil || st.Size() > maxPackageList {
		return "", err
	}
	b, err := fs.ReadFile(t, p)
	return string(b), err
}
