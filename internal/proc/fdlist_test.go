package proc

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseFlags(t *testing.T) {
	for _, c := range []struct {
		text         string
		flags, inode uint64
	}{
		{"pos:\t0\nflags:\t02000002\nmnt_id:\t9\nino:\t4711\nscm_fds: 0\n", unix.O_CLOEXEC | unix.O_RDWR, 4711},
		{"pos:\t12\nflags:\t0100001\nmnt_id:\t27\n", 0o100001, 0}, // before Linux 5.14
		{"flags: 9\nino: x", 0, 0},
		{"", 0, 0},
	} {
		if flags, inode := parseFlags([]byte(c.text)); flags != c.flags || inode != c.inode {
			t.Errorf("%q: flags %#o, inode %d", c.text, flags, inode)
		}
	}
	for flags, want := range map[uint64]string{unix.O_RDONLY: "r", unix.O_WRONLY: "w", unix.O_RDWR | unix.O_CLOEXEC: "rw", unix.O_PATH: "", 3: ""} {
		if got := access(flags); got != want {
			t.Errorf("flags %#o are %q, want %q", flags, got, want)
		}
	}
}

func FuzzParseFlags(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t02000002\nmnt_id:\t9\nino:\t4711\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		flags, _ := parseFlags(text)
		_ = access(flags)
	})
}
