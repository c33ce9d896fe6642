package sampler

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzNames holds what becomes a label: text of bounded length.
func FuzzNames(f *testing.F) {
	f.Add("/system.slice/docker-"+id+".scope", "nginx: master process /usr/sbin/nginx -c x", "nginx", "/usr/sbin/nginx")
	f.Add("/user.slice/user@1000.service/app.slice/x.service", "-bash", "bash", "")
	f.Add("/kubepods/pod/"+id, " ", "", "/memfd:x (deleted)")
	f.Add("//.service/.scope", "\xff\xfe"+strings.Repeat("ä", 100), "\x00", "/")
	f.Fuzz(func(t *testing.T, cgroup, line, comm, exe string) {
		at := placeOf(cgroup)
		if (at.service == "") != (at.kind == "") || at.service != "" && !strings.Contains(cgroup, at.group) {
			t.Errorf("%q: %+v", cgroup, at)
		}
		args := strings.Split(line, "\x00")
		what, rest := program(exe, comm, args)
		if title(args) {
			_ = titled(what, args)
		}
		for _, name := range []string{command(what, rest), bounded(at.service)} {
			if !utf8.ValidString(name) || len(name) > maxName+10 || strings.ContainsAny(name, "\n\x00\x1b") {
				t.Errorf("%q is no name", name)
			}
		}
	})
}

// FuzzTables reads what the kernel might print.
func FuzzTables(f *testing.F) {
	f.Add([]byte("   1: 0100007F:1F90 0100007F:CAFE 08 00000000:00000000 00:00000000 00000000     0        0 501 1 0000000000000000 100 0 0 10 0"))
	f.Add([]byte("anon_inode:[eventpoll]"))
	f.Add([]byte("socket:[123]"))
	f.Add([]byte("Tcp: A B\nTcp: 1 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		table := socketTable{states: map[uint64]uint8{}}
		table.take(b)
		for _, state := range table.states {
			if tcpStates[state] == "" {
				t.Errorf("state %d of %q", state, b)
			}
		}
		var kinds parts
		kind, _ := kindOf(b)
		for range 2 {
			kinds.add(kind)
		}
		if len(kinds) != 1 || kinds[0].count != 2 || !utf8.ValidString(kinds[0].name) {
			t.Errorf("%q: %+v", b, kinds)
		}
		_, _ = snmp(b, "Tcp:", "B")
		keys(b, func(_, value []byte) { _ = kilobytes(value) })
	})
}
