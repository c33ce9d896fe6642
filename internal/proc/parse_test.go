package proc

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

func TestParseMap(t *testing.T) {
	for _, c := range []struct {
		line string
		want leak.Mapping
	}{
		{"55d0c8f4e000-55d0c8f6f000 rw-p 00000000 00:00 0                          [heap]",
			leak.Mapping{Start: 0x55d0c8f4e000, End: 0x55d0c8f6f000, Read: true, Write: true, Path: "[heap]"}},
		{"7f1e7d5c3000-7f1e7d5c4000 rw-s 00000000 00:13 26710                      /[aio] (deleted)",
			leak.Mapping{Start: 0x7f1e7d5c3000, End: 0x7f1e7d5c4000, Read: true, Write: true, Shared: true, Dev: unix.Mkdev(0, 0x13), Inode: 26710, Path: "/[aio]", Deleted: true}},
		{"7fb9bd4b4000-7fb9bd60a000 r-xp 00026000 fe:00 326269                     /usr/lib/my lib (deleted).so",
			leak.Mapping{Start: 0x7fb9bd4b4000, End: 0x7fb9bd60a000, Read: true, Exec: true, Offset: 0x26000, Dev: unix.Mkdev(0xfe, 0), Inode: 326269, Path: "/usr/lib/my lib (deleted).so"}},
		{"7fb9bd4b4000-7fb9bd60a000 ---p 00000000 103:05 1 /a\\012b", // major numbers may have more digits
			leak.Mapping{Start: 0x7fb9bd4b4000, End: 0x7fb9bd60a000, Dev: unix.Mkdev(0x103, 5), Inode: 1, Path: "/a\nb"}},
		{"7f00-8000 rw-p 00000000 00:00 0 ", leak.Mapping{Start: 0x7f00, End: 0x8000, Read: true, Write: true}},
		{"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
			leak.Mapping{Start: vsyscall, End: vsyscall + 0x1000, Exec: true, Path: "[vsyscall]"}},
	} {
		got, err := parseMap(c.line)
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.line, d)
		}
	}
	for _, line := range []string{"", "x", "1-2", "1-2 rw-p", "1-2 rw-p 0 0:0", "1-2 rw-p 0 0:0 x", "g-2 rw-p 0 0:0 0", "1-2 rwp 0 0:0 0", "1-2 rw-p 0 00 0"} {
		if m, err := parseMap(line); err == nil {
			t.Errorf("%q is taken as %+v", line, m)
		}
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("4711 (a) (b c)) S 1 4711 4711 0 -1 1077936384 100 0 0 0 77 23 0 0 20 0 5 0 123456 8192000 500 18446744073709551615 1 1 140729720970000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 94141 94142 94148883931136 1 1 1 1 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Stat{Comm: "a) (b c)", State: 'S', PPID: 1, Flags: 1077936384, Start: 123456, UTime: 77, STime: 23, Threads: 5, Stack: 140729720970000, Brk: 94148883931136}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.CPU().Seconds() != 1 || got.Kernel() {
		t.Errorf("cpu %v, kernel %v", got.CPU(), got.Kernel())
	}
	for _, bad := range []string{"", "1 comm S 1", "1 (comm S 1", ")(", "1 (comm) S 1 2 3"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

const statusText = `Name:	my prog:x
State:	t (tracing stop)
Tgid:	42
Pid:	43
PPid:	7
TracerPid:	99
Uid:	1000	1001	1002	1003
Gid:	4	5	6	7
NSpid:	43	12	1
VmSize:	   20000 kB
VmRSS:	   10000 kB
RssAnon:	    6000 kB
RssFile:	    3000 kB
RssShmem:	    1000 kB
VmData:	    9000 kB
VmPTE:	     120 kB
VmSwap:	      16 kB
HugetlbPages:	    2048 kB
Threads:	3
SigPnd:	0000000000000001
ShdPnd:	0000000000000002
SigBlk:	fffffffe7ffbfeff
SigIgn:	0000000000001000
SigCgt:	0000000180004003
CapPrm:	000001ffffffffff
CapEff:	0000000000080000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	4
`

func TestParseStatus(t *testing.T) {
	want := &Status{
		Name: "my prog:x", State: 't', Tgid: 42, PID: 43, PPID: 7, TracerPID: 99,
		UID: [4]int{1000, 1001, 1002, 1003}, GID: [4]int{4, 5, 6, 7}, NSPid: []int{43, 12, 1},
		VMSize: 20000 << 10, VMRSS: 10000 << 10, RSSAnon: 6000 << 10, RSSFile: 3000 << 10, RSSShmem: 1000 << 10,
		VMData: 9000 << 10, VMPTE: 120 << 10, VMSwap: 16 << 10, HugetlbPages: 2048 << 10,
		Threads: 3, NoNewPrivs: true, Seccomp: 2, SeccompFilters: 4,
		SigPending: 1, ShdPending: 2, SigBlocked: 0xfffffffe7ffbfeff, SigIgnored: 0x1000, SigCaught: 0x180004003,
		CapPermitted: 0x1ffffffffff, CapEffective: 0x80000,
	}
	if d := cmp.Diff(want, parseStatus(statusText)); d != "" {
		t.Error(d)
	}
	if s := parseStatus(""); s.SeccompFilters != -1 || s.Threads != 0 {
		t.Errorf("empty: %+v", s)
	}
}

const limitsText = `Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max data size             1000000              unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    0                    bytes     
Max processes             96365                96366                processes 
Max open files            1024                 524288               files     
Max locked memory         3157762048           3157762048           bytes     
Max address space         unlimited            2000000000           bytes     
Max nice priority         0                    0                    
`

func TestParseLimits(t *testing.T) {
	want := &Limits{
		NOFILE: Limit{1024, 524288}, NPROC: Limit{96365, 96366}, AS: Limit{Unlimited, 2000000000}, DATA: Limit{1000000, Unlimited},
		STACK: Limit{8388608, Unlimited}, MEMLOCK: Limit{3157762048, 3157762048}, CORE: Limit{},
	}
	if d := cmp.Diff(want, parseLimits(limitsText)); d != "" {
		t.Error(d)
	}
}

func TestParseFD(t *testing.T) {
	for link, want := range map[string]FD{
		"/var/log/x (deleted)":        {Class: FDFile, Kind: "file"},
		"/dev/null":                   {Class: FDFile, Kind: "file"},
		"/memfd:buf (deleted)":        {Class: FDFile, Kind: "memfd"},
		"socket:[123]":                {Class: FDSocket, Kind: "socket", Inode: 123},
		"pipe:[456]":                  {Class: FDPipe, Kind: "pipe", Inode: 456},
		"anon_inode:[eventpoll]":      {Class: FDAnon, Kind: "eventpoll"},
		"anon_inode:[io_uring]":       {Class: FDAnon, Kind: "io_uring"},
		"anon_inode:inotify":          {Class: FDAnon, Kind: "inotify"},
		"anon_inode:bpf-map":          {Class: FDAnon, Kind: "bpf-map"},
		"anon_inode:[userfaultfd]":    {Class: FDAnon, Kind: "userfaultfd"},
		"anon_inode:/dev/userfaultfd": {Class: FDAnon, Kind: "dev/userfaultfd"},
		"net:[4026531833]":            {Class: FDOther, Kind: "net", Inode: 4026531833},
		"strange":                     {Class: FDOther, Kind: "other"},
		"":                            {Class: FDOther, Kind: "other"},
	} {
		want.Num, want.Link = 5, link
		if got := parseFD(5, link); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", link, got, want)
		}
	}
	for class, word := range map[FDClass]string{FDFile: "file", FDSocket: "socket", FDPipe: "pipe", FDAnon: "anon_inode", FDOther: "other"} {
		if class.String() != word {
			t.Errorf("class %d is %q", class, class)
		}
	}
}

const ringText = `pos:	0
flags:	02000002
SqMask:	0x3
SqHead:	4294967295
SqTail:	1
CachedSqHead:	0
CqMask:	0x7
CqHead:	5
CqTail:	8
SQEs:	1
    0: opcode:READV, fd:5, flags:0, off:0, addr:0x7f0012340000, rw_flags:0x0, buf_index:0 user_data:94148883931136
CQEs:	2
    5: user_data:94148883931200, res:0, flags:0
    6: user_data:0, res:0, flags:0
SqThread:	-1
UserFiles:	1
    0: socket
UserBufs:	2
    0: 0x7f0056780000/4096
    1: 0x7f0056790000/4096
PollList:
  op=6, task_works=0
  op=6, task_works=1
CqOverflowList:
  user_data=94148883931264, res=0, flags=0
NAPI:	disabled
`

func TestParseFDInfo(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want FDInfo
	}{
		"file": {"pos:\t12\nflags:\t0100002\nmnt_id:\t27\n", FDInfo{Pos: 12, Flags: 0o100002}},
		"epoll": {"pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\n" +
			"tfd:        6 events:       19 data: 1234567890abcdef  pos:0 ino:40e sdev:10\n" +
			"tfd:       17 events: 80000001 data: ffffffffffffffff  pos:0 ino:1 sdev:10\n" +
			"tfd: broken\n",
			FDInfo{Flags: 2, Epoll: []EpollWatch{{FD: 6, Events: 0x19, Data: 0x1234567890abcdef}, {FD: 17, Events: 0x80000001, Data: 1<<64 - 1}}}},
		"userfaultfd": {"flags:\t02000000\npending:\t0\ntotal:\t0\nAPI:\taa:80000002:80000000000001ff\n", FDInfo{Flags: 0o2000000, Userfaultfd: 0x80000002}},
		"io_uring": {ringText, FDInfo{Flags: 0o2000002, IOUring: &IOUring{Queued: 2, Completed: 3, Polls: 2, InFlight: -9, Known: true,
			Words: []uint64{0x7f0056780000, 0x7f0056790000, 0x7f0012340000, 94148883931136, 94148883931200, 94148883931264}}}},
		"busy io_uring": {"SqHead:\t0\nSqTail:\t0\n", FDInfo{IOUring: &IOUring{}}},
	} {
		if d := cmp.Diff(&c.want, parseFDInfo(c.text)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

const timersText = `ID: 0
signal: 12/0000deadbeef1234
notify: signal/pid.17399
ClockID: 1
ID: 7
signal: 0/0000000000000000
notify: none/pid.17399
ClockID: -6
`

func TestParseTimers(t *testing.T) {
	want := []Timer{
		{ID: 0, Signal: 12, Value: 0xdeadbeef1234, Notify: "signal/pid.17399", Clock: 1},
		{ID: 7, Notify: "none/pid.17399", Clock: -6},
	}
	if d := cmp.Diff(want, parseTimers(timersText)); d != "" {
		t.Error(d)
	}
	if got := parseTimers("signal: 1/2\n"); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

const smapsText = `55d0c8f4e000-55d0c8f6f000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
KernelPageSize:        4 kB
Rss:                 120 kB
Pss:                 119 kB
Shared_Clean:          1 kB
Shared_Dirty:          2 kB
Private_Clean:         3 kB
Private_Dirty:       114 kB
Anonymous:           100 kB
AnonHugePages:        64 kB
Private_Hugetlb:      32 kB
Swap:                  8 kB
Locked:                4 kB
VmFlags: rd wr mr mw me dc wf ac 
7fb9bd4b4000-7fb9bd60a000 r-xp 00026000 fe:00 326269                     /usr/lib/a:b.so
Rss:                   4 kB
VmFlags: rd ex mr mw me io pf 
`

func TestParseSmaps(t *testing.T) {
	got, err := parseSmaps(smapsText)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := Usage{RSS: 120 << 10, PSS: 119 << 10, SharedClean: 1 << 10, SharedDirty: 2 << 10, PrivateClean: 3 << 10, PrivateDirty: 114 << 10,
		Anonymous: 100 << 10, AnonHugePages: 64 << 10, PrivateHugetlb: 32 << 10, Swap: 8 << 10, Locked: 4 << 10}
	if d := cmp.Diff(want, got[0].Usage); d != "" {
		t.Error(d)
	}
	if h := &got[0]; !h.DontFork() || !h.WipeOnFork() || h.Device() || h.Path != "[heap]" {
		t.Errorf("%+v", h)
	}
	if l := &got[1]; l.DontFork() || l.WipeOnFork() || !l.Device() || l.Path != "/usr/lib/a:b.so" || l.RSS != 4096 {
		t.Errorf("%+v", l)
	}
	if _, err := parseSmaps("nonsense\n"); err == nil {
		t.Error("nonsense is taken")
	}
}

func TestParseMountinfo(t *testing.T) {
	got := parseMountinfo("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
		"35 31 0:32 / /sys/fs/cgroup/a\\040b\\134 rw shared:1 master:2 - cgroup cgroup rw,memory\n" +
		"37 31 0:33 / /x rw - cgroup2 cgroup2\n" +
		"short line\n37 31 0:33 / /x rw\n")
	want := []mount{
		{"/mnt1", "/mnt2", "ext3", []string{"rw", "errors=continue"}},
		{"/", `/sys/fs/cgroup/a b\`, "cgroup", []string{"rw", "memory"}},
		{"/", "/x", "cgroup2", []string{"cgroup2"}},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); d != "" {
		t.Error(d)
	}
}

func TestParseFileNote(t *testing.T) {
	words := func(w ...uint64) []byte {
		var b []byte
		for _, x := range w {
			for s := 0; s < 64; s += 8 {
				b = append(b, byte(x>>s))
			}
		}
		return b
	}
	whole := append(words(2, 4096, 0x1000, 0x3000, 0, 0x5000, 0x6000, 7), "/bin/a\x00/lib/b\x00"...)
	got := parseFileNote(whole)
	want := []fileRange{{0x1000, 0x3000, 0, "/bin/a"}, {0x5000, 0x6000, 7 * 4096, "/lib/b"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(fileRange{})); d != "" {
		t.Error(d)
	}
	for n := range whole {
		if got := parseFileNote(whole[:n]); len(got) > 1 {
			t.Errorf("%d bytes give %+v", n, got)
		}
	}
	if got := parseFileNote(words(1<<60, 4096)); got != nil {
		t.Errorf("an absurd count gives %+v", got)
	}
}

func TestSplit(t *testing.T) {
	files := []fileRange{{0x2000, 0x3000, 0, "/a"}, {0x3000, 0x5000, 0x1000, "/a"}, {0x7000, 0x9000, 0, "/b (deleted)"}}
	got := split(leak.Mapping{Start: 0x1000, End: 0x8000, Read: true}, files, map[string]uint64{})
	want := []leak.Mapping{
		{Start: 0x1000, End: 0x2000, Read: true},
		{Start: 0x2000, End: 0x3000, Read: true, Path: "/a", Inode: 1},
		{Start: 0x3000, End: 0x5000, Read: true, Path: "/a", Inode: 1, Offset: 0x1000},
		{Start: 0x5000, End: 0x7000, Read: true},
		{Start: 0x7000, End: 0x8000, Read: true, Path: "/b", Inode: 2, Deleted: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMaskArgs(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{[]string{"mysqld", "--port=3306"}, []string{"mysqld", "--port=3306"}},
		{[]string{"x", "--password=a,b c"}, []string{"x", "--password=***"}},
		{[]string{"x", "--db-password", "hunter2", "file"}, []string{"x", "--db-password", "***", "file"}},
		{[]string{"x", "-api-key", "-dash", "--api-key", "--next"}, []string{"x", "-api-key", "***", "--api-key", "--next"}},
		{[]string{"env", "DB_PASS=x", "AWS_SECRET_ACCESS_KEY=y=z", "HOME=/root"}, []string{"env", "DB_PASS=***", "AWS_SECRET_ACCESS_KEY=***", "HOME=/root"}},
		{[]string{"curl", "https://joe:pw@host/x?a=1"}, []string{"curl", "https://joe:***@host/x?a=1"}},
		{[]string{"git", "https://ghp_abc@host/x.git"}, []string{"git", "https://***@host/x.git"}},
		{[]string{"psql", "postgres://joe:p@ss@host/db"}, []string{"psql", "postgres://joe:***@host/db"}},
		{[]string{"curl", "http://h/?user=joe&access_token=abc&x=1"}, []string{"curl", "http://h/?user=joe&access_token=***&x=1"}},
		{[]string{"curl", "-H", "Authorization: Bearer abc.def"}, []string{"curl", "-H", "Authorization: ***"}},
		{[]string{"curl", "-H", "X-Api-Key: abc"}, []string{"curl", "-H", "X-Api-Key: ***"}},
		{[]string{"x", `{"password": "a b", "n": 1}`}, []string{"x", `{"password": ***, "n": 1}`}},
		{[]string{"worker: run --token abc --fast"}, []string{"worker: run --token *** --fast"}},
		{[]string{"x", "--header=X-Token: abc def", "-HPRIVATE-TOKEN: abc"}, []string{"x", "--header=X-Token: ***", "-HPRIVATE-TOKEN: ***"}},
		{[]string{"curl", "-H", "Authorization: Negotiate abc=="}, []string{"curl", "-H", "Authorization: ***"}},
		{[]string{"curl", "-H", `Authorization: Digest username="joe", response="abc"`, "-H", "Cookie: a=b; c=d"}, []string{"curl", "-H", "Authorization: ***", "-H", "Cookie: ***"}},
		{[]string{"x", "--jwt=abc", "--bearer", "abc", "https://h/?sig=abc&x=1"}, []string{"x", "--jwt=***", "--bearer", "***", "https://h/?sig=***&x=1"}},
		{[]string{"x", "--password=", "abc"}, []string{"x", "--password=", "***"}},
		{[]string{"x", "--dsn=joe:abc@tcp(h:3306)/db"}, []string{"x", "--dsn=joe:***@tcp(h:3306)/db"}},
		{[]string{"mysql", "-ujoe", "-pabc", "-P", "3306", "db"}, []string{"mysql", "-ujoe", "-p***", "-P", "3306", "db"}},
		{[]string{"/usr/bin/mysqldump", "--port", "3306", "-pabc"}, []string{"/usr/bin/mysqldump", "--port", "3306", "-p***"}},
		{[]string{"mysqld", "--port=3306", "--pid-file=x"}, []string{"mysqld", "--port=3306", "--pid-file=x"}},
		{[]string{"sshpass", "-p", "abc", "ssh", "-p", "22", "h"}, []string{"sshpass", "-p", "***", "ssh", "-p", "22", "h"}},
		{[]string{"redis-cli", "-h", "a", "-a", "abc", "monitor"}, []string{"redis-cli", "-h", "a", "-a", "***", "monitor"}},
		{[]string{"curl", "-s", "-u", "joe:abc", "x"}, []string{"curl", "-s", "-u", "joe:***", "x"}},
		{[]string{"curl", "-ujoe:abc", "x"}, []string{"curl", "-ujoe:***", "x"}},
		{[]string{"curl", "--proxy-user=joe:abc", "x"}, []string{"curl", "--proxy-user=joe:***", "x"}},
		{[]string{"docker", "run", "-p", "80:80", "-u", "1:2"}, []string{"docker", "run", "-p", "80:80", "-u", "1:2"}},
		{[]string{"sh", "-c", "cd /x; mysql -pabc db | curl -u joe:abc h; app --password 'a b' c"}, []string{"sh", "-c", "cd /x; mysql -p*** db | curl -u joe:*** h; app --password *** c"}},
		{[]string{"mysql", ""}, []string{"mysql", ""}},
		{[]string{"nginx: master process /usr/sbin/nginx"}, []string{"nginx: master process /usr/sbin/nginx"}},
		{nil, []string{}},
	} {
		if d := cmp.Diff(c.want, MaskArgs(c.in)); d != "" {
			t.Errorf("%q: %s", c.in, d)
		}
	}
}

func TestInContainer(t *testing.T) {
	const id = "3f4e8a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7"
	for path, want := range map[string]bool{
		"/docker/" + id:                         true,
		"/system.slice/docker-" + id + ".scope": true,
		"/kubepods/burstable/pod1234/" + id:     true,
		"/kubepods.slice/kubepods-pod12.slice/cri-containerd-" + id + ".scope": true,
		"/machine.slice/libpod-" + id + ".scope/container":                     true,
		"/machine.slice/libpod-conmon-" + id + ".scope":                        false,
		"/system.slice/x.service":                                              false,
		"/docker/ff" + id:                                                      false,
	} {
		if inContainer(path, id[:12]) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}
