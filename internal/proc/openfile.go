package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// OpenFile opens the file behind a mapping for reading; the caller closes it.
// It is looked for under /proc/PID/root (another mount namespace or a chroot),
// then under stanch's own root (/proc/PID/maps shows a chroot's files as their
// reader sees them), and taken only when device and inode are the mapping's;
// then through /proc/PID/map_files, which also has unlinked and replaced files
// but needs CAP_SYS_ADMIN or, since Linux 5.9, CAP_CHECKPOINT_RESTORE.
//
// On btrfs and overlayfs maps and stat give one file different devices. There
// a file with the right path and inode is taken when map_files is refused.
func (t *Target) OpenFile(m *leak.Mapping) (*os.File, error) {
	if !m.File() {
		return nil, fmt.Errorf("mapping at %v (%s) is not a file: %w", m.Start, m.Path, ErrUnsupported)
	}
	var alike string
	if !m.Deleted {
		for _, path := range []string{t.Path("root") + m.Path, m.Path} {
			f, same, err := openIf(path, m)
			if err == nil {
				return f, nil
			}
			if same && alike == "" {
				alike = path
			}
		}
	}
	exact := t.mapFile(m)
	f, err := os.OpenFile(exact, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		// Not mapped there any more, or the .bss behind it: another part serves.
		maps, _ := t.Maps() // an error leaves the first one
		for i := range maps {
			if maps[i].Dev == m.Dev && maps[i].Inode == m.Inode {
				exact = t.mapFile(&maps[i])
				f, err = os.OpenFile(exact, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
				break
			}
		}
	}
	if err == nil {
		return f, nil
	}
	if alike != "" {
		if f, err := os.OpenFile(alike, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err == nil {
			return f, nil
		}
	}
	switch {
	case errors.Is(err, os.ErrPermission) && m.Deleted:
		return nil, fmt.Errorf("open %s: it was deleted or replaced, reading it through %s needs CAP_CHECKPOINT_RESTORE (run stanch as root): %w", m.Path, exact, ErrDenied)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("open %s: not to be found as pid %d sees it, and %s needs CAP_CHECKPOINT_RESTORE (run stanch as root): %w", m.Path, t.ID.PID, exact, ErrDenied)
	case errors.Is(err, os.ErrNotExist):
		if gone := t.Check(); gone != nil {
			return nil, gone
		}
		return nil, fmt.Errorf("open %s: pid %d maps it no longer at %v", m.Path, t.ID.PID, m.Start)
	}
	return nil, fmt.Errorf("open %s: %w", m.Path, err)
}

func (t *Target) mapFile(m *leak.Mapping) string {
	return t.Path("map_files", fmt.Sprintf("%x-%x", uint64(m.Start), uint64(m.End)))
}

// openIf opens path when it is the file of m. alike says that it is a regular
// file of another device but with the same inode number. A file that is not
// the one is only looked up, never opened: it could be a FIFO or a device.
func openIf(path string, m *leak.Mapping) (f *os.File, alike bool, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	found := os.NewFile(uintptr(fd), path)
	defer found.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, err
	}
	if st.Dev != m.Dev || st.Ino != m.Inode {
		return nil, st.Ino == m.Inode && st.Mode&unix.S_IFMT == unix.S_IFREG, unix.ENOENT
	}
	real, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	return os.NewFile(uintptr(real), path), false, nil
}

// BuildID gives the GNU build-id of the file behind m in lower-case hex, that
// of [vdso] from memory; "" when there is none or it cannot be read.
func (t *Target) BuildID(m *leak.Mapping) string {
	if m.Path == "[vdso]" {
		mem, err := t.Mem()
		if err != nil {
			return ""
		}
		id := MemoryBuildID(mem, m)
		_ = mem.Close() // it was only read
		return id
	}
	f, err := t.OpenFile(m)
	if err != nil {
		return ""
	}
	defer f.Close()
	return fileBuildID(f)
}

func fileBuildID(r io.ReaderAt) string {
	id, err := ReadBuildID(r)
	if err != nil {
		return ""
	}
	return id
}
