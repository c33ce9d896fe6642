package symbol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// A tree is where a path of the target leads: the host's files, or the files
// below the target's root directory.
type tree interface {
	// open opens a regular file for reading; path is absolute in the tree.
	open(path string) (*os.File, error)
	// real resolves symbolic links where that is possible.
	real(path string) string
}

type hostTree struct{}

func (hostTree) open(p string) (*os.File, error) {
	return regular(os.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0))
}

func (hostTree) real(p string) string {
	if r, err := filepath.EvalSymlinks(p); err == nil {
		return r
	}
	return p
}

// rootTree is the root directory of a process in another mount namespace. The
// links in it belong to whoever wrote it, so none may lead out of it.
type rootTree struct{ root *os.Root }

func (t rootTree) open(p string) (*os.File, error) {
	return regular(t.root.OpenFile(strings.TrimPrefix(path.Clean(p), "/"), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0))
}

func (rootTree) real(p string) string { return p }

// regular refuses what is not a plain file: opening it must not block or act.
func regular(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openObject opens the ELF file at p in t.
func openObject(t tree, p string, cache *blockCache) (*object, error) {
	f, err := t.open(p)
	if err != nil {
		return nil, err
	}
	o, err := newObject(p, f, f, cache)
	if err != nil {
		return nil, err
	}
	o.tree = t
	return o, nil
}

// byBuildID gives the path of a debug file below a debug directory, as GDB
// documents it ("Debugging Information in Separate Files").
func byBuildID(dir, id string) string {
	return path.Join(dir, ".build-id", id[:2], id[2:]+".debug")
}

// findDebug finds the separate debug file of the program or library at p in
// the target, in each tree: by build-id, then by .gnu_debuglink with its CRC.
// nil when there is none; notes tell about files that do not match.
func findDebug(main *object, p string, trees []tree, dirs []string, cache *blockCache) (o *object, notes []string) {
	if id := main.buildID; len(id) > 2 {
		for _, t := range trees {
			for _, dir := range dirs {
				o, err := openObject(t, byBuildID(dir, id), cache)
				if err != nil {
					continue
				}
				if o.buildID == id {
					return o, notes
				}
				notes = append(notes, fmt.Sprintf("%s has another build-id than its name says", o.path))
				o.close()
			}
		}
	}
	name, crc, ok := main.debugLink()
	if !ok {
		return nil, notes
	}
	own := path.Dir(p)
	places := []string{path.Join(own, name), path.Join(own, ".debug", name)}
	for _, dir := range dirs {
		places = append(places, path.Join(dir, own, name))
	}
	for _, t := range trees {
		for _, place := range places {
			o, err := openObject(t, place, cache)
			if err != nil {
				continue
			}
			sum, err := o.checksum()
			if err == nil && sum == crc {
				return o, notes
			}
			if path.Clean(place) != path.Clean(p) {
				notes = append(notes, fmt.Sprintf("%s is of another build than %s (CRC differs)", place, p))
			}
			o.close()
		}
	}
	return nil, notes
}

// findAlt finds the file that dwz moved shared entries of o to. missing is the
// path it should have, when there is such a file and it is not found.
func findAlt(o *object, trees []tree, dirs []string, cache *blockCache) (alt *object, missing string) {
	link, id, ok := o.altLink()
	if !ok {
		return nil, ""
	}
	var places []string
	if path.IsAbs(link) {
		places = append(places, link)
	} else if o.tree != nil {
		places = append(places, path.Join(path.Dir(o.tree.real(o.path)), link), path.Join(path.Dir(o.path), link))
	}
	for _, dir := range dirs {
		if len(id) > 2 {
			places = append(places, byBuildID(dir, id))
		}
		places = append(places, path.Join(dir, ".dwz", path.Base(link)))
	}
	if o.tree != nil {
		trees = append([]tree{o.tree}, trees...)
	}
	for _, t := range trees {
		for _, place := range places {
			alt, err := openObject(t, place, cache)
			if err != nil {
				continue
			}
			if alt.isAlt(id) {
				return alt, ""
			}
			alt.close()
		}
	}
	return nil, link
}
