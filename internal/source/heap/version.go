package heap

import (
	"bytes"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"stanch/internal/leak"
)

// release is what a libc's banner says: "GNU C Library (Debian GLIBC
// 2.36-9+deb12u14) stable release version 2.36." (csu/version.c). Programs that
// are linked statically do not have it.
var release = regexp.MustCompile(`(?:stable|development) release version 2\.([0-9]{1,3})[.\n]`)

const maxBanner = 64 << 20 // no libc is larger

// minorVersion finds the version of the glibc whose data is in mapping at, 0
// when it does not say.
func (img *Image) minorVersion(at int) int {
	m := &img.Maps[at]
	if img.OpenFile != nil && m.File() {
		if f, err := img.OpenFile(m); err == nil {
			text, err := io.ReadAll(io.NewSectionReader(f, 0, maxBanner))
			_ = f.Close() // it was only read
			if v := banner(text); err == nil && v != 0 {
				return v
			}
		}
	}
	for i := range img.Maps {
		o := &img.Maps[i]
		if !o.Read || o.Write || o.Path != m.Path || o.Inode != m.Inode || o.Dev != m.Dev || o.Size() > maxBanner {
			continue
		}
		text := make([]byte, o.Size())
		n, _ := img.Mem.ReadAt(text, o.Start) // what there is
		if v := banner(text[:n]); v != 0 {
			return v
		}
	}
	return 0
}

// banner finds the minor version in the text of a libc. The expression is
// tried only around the words in its middle: a search for those is a hundred
// times faster.
func banner(text []byte) int {
	words := []byte(" release version 2.")
	for from := 0; ; {
		i := bytes.Index(text[from:], words)
		if i < 0 {
			return 0
		}
		i += from
		from = i + 1
		const before, behind = len("development"), len(" release version 2.123.")
		m := release.FindSubmatch(text[max(0, i-before):min(len(text), i+behind)])
		if m == nil {
			continue
		}
		if v, err := strconv.Atoi(string(m[1])); err == nil {
			return v
		}
	}
}

// foreign names the allocator that stands in for the libc's, "" for none that
// is known. The libc itself may be there as well, and even have a few blocks.
func (img *Image) foreign() string {
	for i := range img.Maps {
		m := &img.Maps[i]
		if !m.File() {
			continue
		}
		base := filepath.Base(m.Path)
		if base == "libc.so" && strings.Contains(m.Path, "musl") {
			return "musl"
		}
		for _, known := range []struct{ prefix, name string }{
			{"libjemalloc.so", "jemalloc"}, {"libtcmalloc.so", "tcmalloc"}, {"libtcmalloc_", "tcmalloc"},
			{"libmimalloc.so", "mimalloc"}, {"libmimalloc-", "mimalloc"},
			{"ld-musl-", "musl"}, {"libc.musl-", "musl"},
			{"libasan.so", "AddressSanitizer"}, {"libtsan.so", "ThreadSanitizer"}, {"libhwasan.so", "HWAddressSanitizer"},
			{"libscudo", "scudo"}, {"libtbbmalloc_proxy.so", "tbbmalloc"}, {"libsnmalloc", "snmalloc"},
			{"librpmalloc", "rpmalloc"}, {"libhoard.so", "Hoard"}, {"libefence.so", "Electric Fence"}, {"libduma.so", "DUMA"},
			{"vgpreload_memcheck", "Valgrind"},
		} {
			if strings.HasPrefix(base, known.prefix) {
				return known.name
			}
		}
	}
	return ""
}

// linkedIn names an allocator that is linked into the program itself, by the
// texts it contains.
func (img *Image) linkedIn() string {
	exe := img.executable()
	if exe < 0 {
		return ""
	}
	marks := []struct {
		text, name string
	}{
		{"<jemalloc>: ", "jemalloc"},
		{"TCMALLOC_", "tcmalloc"},
		{"mimalloc: ", "mimalloc"},
		{"Scudo ERROR: ", "scudo"},
		{"AddressSanitizer: ", "AddressSanitizer"},
		{"\xff Go buildinf:", "Go"},
	}
	m := &img.Maps[exe]
	for i := range img.Maps {
		o := &img.Maps[i]
		if o.Path != m.Path || o.Inode != m.Inode || o.Dev != m.Dev || !o.Read || o.Size() > maxBanner {
			continue
		}
		text := make([]byte, o.Size())
		n, _ := img.Mem.ReadAt(text, o.Start) // what there is
		for _, mark := range marks {
			if bytes.Contains(text[:n], []byte(mark.text)) {
				return mark.name
			}
		}
	}
	return ""
}

// executable is the index of the program's first mapping, -1 when unknown: the
// first file, or with a program that was placed high, the one before the heap.
func (img *Image) executable() int {
	for i := range img.Maps {
		if m := &img.Maps[i]; m.File() && !strings.HasPrefix(filepath.Base(m.Path), "ld-") {
			return i
		}
	}
	return -1
}

// sameFile reports whether two mappings are of one file.
func sameFile(a, b *leak.Mapping) bool {
	return a.File() && b.File() && a.Path == b.Path && a.Inode == b.Inode && a.Dev == b.Dev
}
