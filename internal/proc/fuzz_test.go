package proc

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stanch/internal/leak"
)

func FuzzMaps(f *testing.F) {
	f.Add("55d0c8f4e000-55d0c8f6f000 rw-p 00000000 00:00 0                          [heap]\n")
	f.Add("7f1e7d5c3000-7f1e7d5c4000 rw-s 00000000 00:13 26710                      /[aio] (deleted)\n")
	f.Add("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n1-2\n")
	f.Fuzz(func(t *testing.T, text string) {
		maps, err := parseMaps([]byte(text))
		if err != nil {
			return
		}
		for i := range maps {
			Find(maps, maps[i].Start)
		}
	})
}

func FuzzSmaps(f *testing.F) {
	f.Add(smapsText)
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseSmaps(text) })
}

func FuzzStat(f *testing.F) {
	f.Add("4711 (a) (b c)) S 1 4711 4711 0 -1 1077936384 100 0 0 0 77 23 0 0 20 0 5 0 123456 8192000 500\n")
	f.Add("1 (x) ")
	f.Fuzz(func(t *testing.T, text string) {
		if st, err := parseStat([]byte(text)); (st == nil) == (err == nil) {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add(statusText)
	f.Add(limitsText)
	f.Add("State:\nUid:\t1 2 3 4 5 6\n")
	f.Fuzz(func(_ *testing.T, text string) {
		parseStatus(text)
		parseLimits(text)
	})
}

func FuzzFDInfo(f *testing.F) {
	f.Add(ringText)
	f.Add(timersText)
	f.Add("tfd:        6 events:       19 data: 1234567890abcdef  pos:0 ino:40e sdev:10\n")
	f.Fuzz(func(_ *testing.T, text string) {
		parseFDInfo(text)
		parseTimers(text)
		parseFD(1, text)
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add("35 31 0:32 / /sys/fs/cgroup/a\\040b\\134 rw shared:1 - cgroup cgroup rw,memory\n", "4:memory:/a/b\n0::/x\n")
	f.Add("37 31 0:33 /../.. /x\\04 rw - cgroup2 cgroup2\n", "0::/../a\n")
	f.Fuzz(func(t *testing.T, mounts, cgroups string) {
		list, paths := parseMountinfo(mounts), parseCgroup(cgroups)
		for _, m := range list {
			for _, p := range paths {
				if rel, ok := below(p.path, m.root); ok && rel == "" {
					t.Errorf("%q below %q is nothing", p.path, m.root)
				}
				inContainer(p.path, "0123456789ab")
				inUnit(p.path, "x.service")
			}
		}
	})
}

func FuzzMask(f *testing.F) {
	f.Add("--password=hunter2 https://a:b@c/?token=x")
	f.Fuzz(func(t *testing.T, text string) {
		MaskText(text)
		text = strings.ReplaceAll(text, "\x00", "") // no argument holds one
		if got := MaskArgs([]string{"curl", text, "", "-p", text}); len(got) != 5 {
			t.Errorf("of 5 arguments there are %q", got)
		}
		if got := MaskArgs([]string{"x", "--password=" + text}); text != "" && got[1] != "--password="+Mask && !bytes.Contains([]byte(text), []byte("\n")) {
			t.Errorf("%q", got)
		}
	})
}

// smallCore builds a core with one thread, one dumped page and one file.
func smallCore() []byte {
	le := binary.LittleEndian
	entry := func(kind uint32, desc []byte) []byte {
		b := le.AppendUint32(nil, 5)
		b = le.AppendUint32(b, uint32(len(desc)))
		b = le.AppendUint32(b, kind)
		b = append(b, "CORE\x00\x00\x00\x00"...)
		return append(b, append(desc, make([]byte, -len(desc)&3)...)...)
	}
	status := make([]byte, 336)
	le.PutUint32(status[32:], 77)
	info := make([]byte, 136)
	le.PutUint32(info[24:], 77)
	copy(info[40:], "prog")
	var file []byte
	for _, w := range []uint64{1, 4096, 0x400000, 0x402000, 0} {
		file = le.AppendUint64(file, w)
	}
	file = append(file, "/bin/prog\x00"...)
	var auxv []byte
	for _, w := range []uint64{AuxRandom, 0x500010, 0, 0} {
		auxv = le.AppendUint64(auxv, w)
	}
	noteBytes := entry(ntPRStatus, status)
	for _, n := range [][]byte{entry(ntPRPSInfo, info), entry(ntFile, file), entry(ntAuxv, auxv), entry(ntSigInfo, make([]byte, 128))} {
		noteBytes = append(noteBytes, n...)
	}

	head := make([]byte, elfHeaderSize)
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], etCore)
	le.PutUint16(head[18:], emX8664)
	le.PutUint64(head[32:], elfHeaderSize)
	le.PutUint16(head[54:], elfPhdrSize)
	le.PutUint16(head[56:], 3)
	data := uint64(elfHeaderSize + 3*elfPhdrSize)
	phdr := func(kind, flags uint32, off, vaddr, filesz, memsz uint64) {
		p := make([]byte, elfPhdrSize)
		le.PutUint32(p, kind)
		le.PutUint32(p[4:], flags)
		for i, w := range []uint64{off, vaddr, 0, filesz, memsz, 4096} {
			le.PutUint64(p[8+8*i:], w)
		}
		head = append(head, p...)
	}
	phdr(ptNote, 0, data, 0, uint64(len(noteBytes)), 0)
	phdr(ptLoad, 5, 0, 0x400000, 0, 0x2000)
	phdr(ptLoad, 6, data+uint64(len(noteBytes)), 0x500000, 4096, 4096)
	return append(append(head, noteBytes...), bytes.Repeat([]byte{0x77}, 4096)...)
}

func TestSmallCore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "core")
	if err := os.WriteFile(path, smallCore(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openCore(t, path)
	if c.PID != 77 || c.Comm != "prog" || len(c.Maps()) != 2 || c.Maps()[1].Path != "[stack]" || c.Maps()[0].Path != "/bin/prog" {
		t.Errorf("%+v", c)
	}
	if got := readString(c, 0x500ffe, "wwww"); got != "ww" {
		t.Errorf("%q", got)
	}
}

func FuzzCore(f *testing.F) {
	whole := smallCore()
	f.Add(whole)
	f.Add(whole[:100])
	f.Add(whole[:200])
	path := filepath.Join(f.TempDir(), "core")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := OpenCore(path)
		if err != nil {
			return
		}
		defer closing(t, c)
		buf := make([]byte, 64)
		for i := range c.Maps() {
			m := &c.Maps()[i]
			if _, err := c.ReadAt(buf, m.Start); err == nil {
				continue
			}
			_, _ = c.ReadAt(buf, m.End-8)
		}
	})
}

func FuzzNotes(f *testing.F) {
	f.Add(smallCore()[elfHeaderSize+3*elfPhdrSize:], uint64(4))
	f.Add([]byte("\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x0001234567890123456789"), uint64(8))
	f.Fuzz(func(t *testing.T, b []byte, align uint64) {
		c := &Core{auxv: map[uint64]uint64{}}
		notes(b, align, func(n note) bool {
			c.readNote(n)
			return true
		})
		parseFileNote(b)
		_, _ = ReadBuildID(bytes.NewReader(b))
		MemoryBuildID(noMemory{}, &leak.Mapping{Start: 1, End: 2})
	})
}

type noMemory struct{}

func (noMemory) ReadAt([]byte, leak.Addr) (int, error) { return 0, errNotDumped }
