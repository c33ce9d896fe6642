package series

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// written is when the files of the tests were last written.
var written = time.Date(2026, 11, 21, 22, 30, 0, 0, time.UTC)

// sketch writes what was read, one series a line; times are of that day in
// UTC, or with their date where it is another.
func sketch(p *Plain) string {
	var b strings.Builder
	for _, s := range p.Series {
		if s.Key.Metric == PID {
			continue
		}
		info, _ := Describe(s.Key.Metric)
		fmt.Fprintf(&b, "%s/%s %s:", s.Key.Service, s.Key.Worker, info.Title)
		for _, pt := range s.Points {
			at, v := time.UnixMilli(pt.At).UTC(), pt.Value
			form := "15:04:05"
			if at.Format(time.DateOnly) != "2026-11-21" {
				form = "06-01-02T15:04:05"
			}
			if at.Nanosecond() != 0 {
				form += ".000"
			}
			unit := ""
			if info.Bytes && !info.Total {
				v, unit = v/1024, "K"
			}
			fmt.Fprintf(&b, " %s=%g%s", at.Format(form), v, unit)
		}
		b.WriteByte('\n')
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	return b.String()
}

func TestReadPlain(t *testing.T) {
	const (
		counted = "- the file has no times: its rows are taken to be 10s apart; the last row is taken to be of when the file was written\n"
		pair    = "m/0 resident memory: 22:29:50=100K 22:30:00=120K\nm/0 address space: 22:29:50=900K 22:30:00=904K\n"
		timed   = "m/0 resident memory: 22:13:50=100K 22:14:00=120K\nm/0 address space: 22:13:50=900K 22:14:00=904K\n"
	)
	tests := []struct{ name, text, want string }{
		{"a loop around ps", "  RSS    VSZ\n 100 900\n  RSS    VSZ\n 120 904\n", pair + counted},
		{"a header at the top", "RSS VSZ\n100 900\n120 904\n", pair + counted},
		{"no header", "100 900\n120 904\n", pair + counted},
		{"no header, vsz first", "900 100\n904 120\n", pair + "- the larger of two numbers was taken as vsz in 2 rows, where it comes first\n" + counted},
		{"a header with vsz first", "VSZ RSS\n900 100\n904 120\n", pair + counted},
		{"Windows", "\ufeffRSS VSZ\r\n100 900\r\n\r\n120 904\r\n", pair + counted},
		{"tabs", "100\t900\n120\t904\n", pair + counted},
		{"CSV without a header", "100,900\n120, 904\n", pair + counted},
		{"one number", "100\n120\n", "m/0 resident memory: 22:29:50=100K 22:30:00=120K\n" + counted},
		{"noise", "watching 4711\n100 900\nerror: no process\n120 904\n4711\n", pair + "- 3 lines that are no rows were skipped, the first is line 1: \"watching 4711\"\n" + counted},
		{"a sentence that names rss", "the rss of nginx\n100 900\n120 904\n", pair + "- 1 line that is no row was skipped, the first is line 1: \"the rss of nginx\"\n" + counted},
		{"suffixes", "0.5m 1g\n1,5m 1g\n", "m/0 resident memory: 22:29:50=512K 22:30:00=1536K\nm/0 address space: 22:29:50=1.048576e+06K 22:30:00=1.048576e+06K\n" + counted},
		{"bytes", "rss,vms\n4096000,8192000\n4100096,8192000\n4104192,8192000\n",
			"m/0 resident memory: 22:29:40=4000K 22:29:50=4004K 22:30:00=4008K\nm/0 address space: 22:29:40=8000K 22:29:50=8000K 22:30:00=8000K\n" +
				"- all sizes are multiples of 4096, so they were taken as bytes\n" + counted},
		{"bytes of psutil", "rss,vms,pss\n4096000,8192000,123\n4100096,8192000,2048\n4104192,8192000,2049\n",
			"m/0 resident memory: 22:29:40=4000K 22:29:50=4004K 22:30:00=4008K\nm/0 address space: 22:29:40=8000K 22:29:50=8000K 22:30:00=8000K\n" +
				"m/0 proportional memory: 22:29:40=0.1201171875K 22:29:50=2K 22:30:00=2.0009765625K\n" +
				"- all sizes are multiples of 4096, so they were taken as bytes\n" + counted},
		{"units in names", "rss_mb;vsz (kB);open_fds\n0.5;900;7\n", "m/0 resident memory: 22:30:00=512K\nm/0 address space: 22:30:00=900K\nm/0 descriptors: 22:30:00=7\n" + counted},

		{"statm", "2316 514 410 8 0 290 0\n2320 540 410 8 0 294 0\n", "m/0 resident memory: 22:29:50=2056K 22:30:00=2160K\nm/0 address space: 22:29:50=9264K 22:30:00=9280K\n" + counted},
		{"date and statm", "22:13:50\n225 25 4 1 0 9 0\n22:14:00 226 30 4 1 0 9 0\n", "m/0 resident memory: 22:13:50=100K 22:14:00=120K\nm/0 address space: 22:13:50=900K 22:14:00=904K\n"},
		{"smaps_rollup", "5575bfcdb000-7ffe56eaa000 ---p 00000000 00:00 0    [rollup]\nRss: 100 kB\nPss: 90 kB\n5575bfcdb000-7ffe56eaa000 ---p 00000000 00:00 0    [rollup]\nRss: 120 kB\nPss: 91 kB\n",
			"m/0 resident memory: 22:29:50=100K 22:30:00=120K\nm/0 proportional memory: 22:29:50=90K 22:30:00=91K\n" +
				"- 2 lines that are no rows were skipped, the first is line 1: \"5575bfcdb000-7ffe56eaa000 ---p 00000000 00:00 0    [rollup]\"\n" + counted},
		{"cut in the last line", "22:13:50 100 900\n22:14:00 120 904\n22:14:10 124 9", timed + "- line 3 was left out: the file ends within it\n"},
		{"cut, and noise", "x\n22:13:50 100 900\n22:14:00 120 904\n22:1", timed + "- 1 line that is no row was skipped, the first is line 1: \"x\"; line 4 was left out: the file ends within it\n"},
		{"one row that does not end", "22:13:50 100", "m/0 resident memory: 22:13:50=100K\n"},
		{"units behind names", "[2026-11-21T22:13:50+0000] RSS=100 kB VSZ=900 kB\n[2026-11-21T22:14:00+0000] RSS=120 kB VSZ=904 kB\n", timed},
		{"decimal commas", "time;rss_mb\n22:13:50;0,5\n22:14:00;1,5\n", "m/0 resident memory: 22:13:50=512K 22:14:00=1536K\n"},
		{"quoted commas", "time,rss_mb,command\n22:13:50,\"0,5\",\"a b\"\n22:14:00,\"1,5\",\"a b\"\n", "m/0 resident memory: 22:13:50=512K 22:14:00=1536K\n"},
		{"sizes that are hardly those of ps, but few", "22:13:50 1 2\n22:14:00 3 5\n", "m/0 resident memory: 22:13:50=1K 22:14:00=3K\nm/0 address space: 22:13:50=2K 22:14:00=5K\n"},
		{"a count with a name", "count rss vsz\n1 100 900\n2 120 904\n", pair + counted},
		{"uptime with a name", "uptime rss vsz\n9057.12 100 900\n9067.12 120 904\n", pair + "- the last row is taken to be of when the file was written\n"},
		{"names of psutil", "timestamp,pid,rss_bytes,num_fds\n2026-11-21T22:13:50Z,4711,102400,12\n", "m/0 resident memory: 22:13:50=100K\nm/0 descriptors: 22:13:50=12\n"},

		{"epoch in front", "1795299230 100 900\n1795299240 120 904\n", timed},
		{"epoch with a fraction", "time,rss\n1795299230.5,100\n", "m/0 resident memory: 22:13:50.500=100K\n"},
		{"milliseconds", "1795299230000 100 900\n1795299240000 120 904\n", timed},
		{"microseconds", "1795299230000000 100 900\n1795299240000000 120 904\n", timed},
		{"nanoseconds", "1795299230000000000 100 900\n1795299240000000000 120 904\n", timed},
		{"date +%F_%T", "2026-11-21_22:13:50 100 900\n2026-11-21_22:14:00 120 904\n", timed},
		{"names of files", "2026-11-21-22-13-50 100 900\n2026-11-21_22-14-00 120 904\n", timed},
		{"date +%Y%m%d-%H%M%S", "20261121-221350 100 900\n20261121T221400Z 120 904\n", timed},
		{"date +%Y%m%d%H%M%S", "20261121221350,100,900\n20261121221400,120,904\n", timed},
		{"a size that could be a date", "20261120 20261124\n", "m/0 resident memory: 22:30:00=2.026112e+07K\nm/0 address space: 22:30:00=2.0261124e+07K\n" + counted},
		{"RFC 3339", "2026-11-21T23:13:50+01:00 100 900\n2026-11-21T22:14:00Z 120 904\n", timed},
		{"date and time", "2026-11-21 22:13:50 100 900\n[2026-11-21 22:14:00] 120 904\n", timed},
		{"milliseconds behind a comma", "2026-11-21 22:13:50,123 100 900\n", "m/0 resident memory: 22:13:50.123=100K\nm/0 address space: 22:13:50.123=900K\n"},
		{"CSV", "Timestamp,RSS,VSZ\n2026-11-21 22:13:50,100,900\n2026-11-21 22:14:00,120,904\n", timed},
		{"CSV of two time columns", "date;time;rss;vsz\n21.11.2026;22:13:50;100;900\n21.11.2026;22:14:00;120;904\n", timed},
		{"quoted CSV, time last", "\"rss\",\"vsz\",\"timestamp\"\n\"100\",\"900\",\"2026-11-21 22:13:50\"\n\"120\",\"904\",\"2026-11-21 22:14:00\"\n", timed},
		{"CSV of time, no header", "22:13:50,100,900\n22:14:00,120,904\n", timed},
		{"time of day", "22:13:50 100 900\n22:14:00 120 904\n", timed},
		{"time of day with a header", "TIME RSS VSZ\n22:13:50 100 900\n22:14:00 120 904\n", timed},
		{"CSV with TIME at the end", "RSS,VSZ,TIME\n100,900,22:13:50\n120,904,22:14:00\n", timed},
		{"time of the CPU", "    TIME   RSS    VSZ\n00:00:02   100  900\n00:00:02 120 904\n", pair + counted},
		{"American and other dates", "11/21/26 10:13:50 PM 100 900\n2026/11/21 22:14:00 - 120 904\n", timed},
		{"12 o'clock", "12:00:10 AM 100\n12:00:10 PM 120\n", "m/0 resident memory: 00:00:10=100K 12:00:10=120K\n"},
		{"a row without its time", "time,rss\n22:13:50,100\n,120\n", "m/0 resident memory: 22:13:50=100K\n- 1 line that is no row was skipped, the first is line 3: \",120\"\n"},
		{"over midnight", "23:59:55 100\n00:00:05 120\n", "m/0 resident memory: 26-11-20T23:59:55=100K 00:00:05=120K\n"},
		{"written before that time of day", "23:13:50 100\n23:14:00 120\n", "m/0 resident memory: 26-11-20T23:13:50=100K 26-11-20T23:14:00=120K\n"},
		{"syslog", "Nov 21 22:13:50 100 900\nNov 21 22:14:00 120 904\n", timed},
		{"logger", "Nov 21 22:13:50 web1 mem[812]: 100 900\nNov 21 22:14:00 web1 mem[812]: 120 904\n", timed},
		{"logger over New Year", "Dec 31 23:59:55 web1 mem: 100\nJan  1 00:00:05 web1 mem: 120\n", "m/0 resident memory: 25-12-31T23:59:55=100K 26-01-01T00:00:05=120K\n"},
		{"elapsed", "ELAPSED RSS VSZ\n1-02:03:04 100 900\n1-02:03:14 120 904\n", pair + "- the last row is taken to be of when the file was written\n"},
		{"seconds", "time rss vsz\n0 100 900\n10 120 904\n", pair + "- the last row is taken to be of when the file was written\n"},

		{"seconds in CSV", "time,rss,vsz\n0,100,900\n10,120,904\n", pair + "- the last row is taken to be of when the file was written\n"},

		{"date and ps", "Sat Nov 21 22:13:50 UTC 2026\n  RSS    VSZ\n100 900\nSat Nov 21 22:14:00 UTC 2026\n  RSS    VSZ\n120 904\n", timed},
		{"date of en_US", "Sat Nov 21 10:13:50 PM UTC 2026\n100 900\nSat Nov 21 10:14:00 PM UTC 2026\n120 904\n", timed},
		{"date of en_GB", "Sat 21 Nov 22:13:50 GMT 2026\n100 900\nSat 21 Nov 22:14:00 GMT 2026\n120 904\n", timed},
		{"date of de_DE", "Sa 21. Nov 23:13:50 CET 2026\n100 900\nSa 21. Nov 23:14:00 CET 2026\n120 904\n", timed},
		{"German summer", "Mi 4. Mär 23:13:50 CET 2026\n100\n", "m/0 resident memory: 26-03-04T22:13:50=100K\n"},
		{"an unknown zone", "Sat Nov 21 22:13:50 ACWST 2026\n100 900\nSat Nov 21 22:14:00 ACWST 2026\n120 904\n", timed},
		{"epoch on a line", "1795299230\n100 900\n1795299240\n120 904\n", timed},
		{"one date, then a loop", "Sat Nov 21 22:13:50 UTC 2026\n100 900\n120 904\n", timed + "- 1 row has no time: taken to be 10s after the row before\n"},
		{"a gap", "22:13:50\n100\n22:14:00\n22:14:10\n120\n", "m/0 resident memory: 22:13:50=100K 22:14:10=120K\n"},
		{"time goes back", "2026-11-21 22:14:00 120 904\n2026-11-21 22:13:50 100 900\n", timed + "- time goes back 1 time; rows were put in its order\n"},

		{"lines of status", "VmSize:\t  900 kB\nVmRSS:\t  100 kB\nVmSize:\t  904 kB\nVmRSS:\t  120 kB\n", pair + counted},
		{"date and lines of status", "22:13:50\nVmRSS:\t100 kB\nThreads:\t3\n22:14:00\nVmRSS:\t120 kB\nThreads:\t4\n", "m/0 resident memory: 22:13:50=100K 22:14:00=120K\nm/0 threads: 22:13:50=3 22:14:00=4\n"},
		{"names and values", "22:13:50 rss=100 vsz=900\n22:14:00 rss: 120 kB, vsz: 904 kB\n", timed},
		{"workers", "22:13:50\n 100 900\n 50 800\n22:14:00\n 120 904\n 52 800\n",
			"m/0 resident memory: 22:13:50=100K 22:14:00=120K\nm/0 address space: 22:13:50=900K 22:14:00=904K\n" +
				"m/1 resident memory: 22:13:50=50K 22:14:00=52K\nm/1 address space: 22:13:50=800K 22:14:00=800K\n"},
		{"workers by PID, one of them restarts", "PID RSS\n7 100\n8 50\nPID RSS\n8 51\n9 10\nPID RSS\n9 11\n8 52\n",
			"m/0 resident memory: 22:29:40=100K 22:29:50=10K 22:30:00=11K\nm/1 resident memory: 22:29:40=50K 22:29:50=51K 22:30:00=52K\n" + counted},
		{"ps aux and grep", "root  4711  0.0  0.1  900  100 ?  Ss  12:11  0:03 /bin/daemon -f x\nroot  4711  0.0  0.1  904  120 ?  Ss  12:11  0:03 /bin/daemon -f x\n", pair + counted},
		{"time, ps aux and grep", "22:13:50 root  4711  0.0  0.1  900  100 ?  Ss  12:11  0:03 /bin/daemon\n22:14:00 root  4711  0.0  0.1  904  120 ?  Ss  12:11  0:03 /bin/daemon\n", timed},
		{"ps aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND\nroot 4711 0.0 0.1 900 100 ? Ss 12:11 0:03 a b\nroot 4712 0.0 0.1 904 120 ? Ss 12:11 0:03 c\n",
			"m: a b/0 resident memory: 22:30:00=100K\nm: a b/0 address space: 22:30:00=900K\nm: c/0 resident memory: 22:30:00=120K\nm: c/0 address space: 22:30:00=904K\n" +
				"- rows are of 2 commands, each is a service of its own\n" + counted},
		{"top -b", `top - 22:13:50 up  9:57,  0 user,  load average: 0.93, 0.94, 1.37
Tasks:   1 total,   0 running,   1 sleeping,   0 stopped,   0 zombie
%Cpu(s):  0.0 us, 50.0 sy,  0.0 ni, 50.0 id,  0.0 wa,  0.0 hi,  0.0 si,  0.0 st
MiB Mem :  24105.6 total,  20696.7 free,    957.9 used,   2862.4 buff/cache

    PID USER      PR  NI    VIRT    RES    SHR S  %CPU  %MEM     TIME+ COMMAND
   4711 root      20   0     900    100   7712 S  20.0   0.1   0:03.26 demo x
top - 22:14:00 up  9:57,  0 user,  load average: 0.93, 0.94, 1.37
Tasks:   1 total,   0 running,   1 sleeping,   0 stopped,   0 zombie
    PID USER      PR  NI    VIRT    RES    SHR S  %CPU  %MEM     TIME+ COMMAND
   4711 root      20   0     904    120   7712 S  20.0   0.1   0:03.26 demo x
`, timed + "- 4 lines that are no rows were skipped, the first is line 2: \"Tasks:   1 total,   0 running,   1 sleeping,   0 stopped,   ...\"\n"},
		{"top of one process, filtered", "   4711 root      20   0  900  100   7712 S  20,0   0,1   0:03.26 demo\n   4711 root      20   0   0,9m  120   7712 S   0,0   0,1   0:03.26 demo\n",
			"m/0 resident memory: 22:29:50=100K 22:30:00=120K\nm/0 address space: 22:29:50=900K 22:30:00=921.6K\n" + counted},
		{"pidstat", `Linux 6.1.0 (web1) 	11/20/26 	_x86_64_	(2 CPU)

22:13:50      UID       PID  minflt/s  majflt/s     VSZ     RSS   %MEM  Command
22:14:00        0      4711      0.00      0.00     900     100   0.08  demo
22:14:10        0      4711      2.00      0.00     904     120   0.08  demo
Average:        0      4711      1.00      0.00     902     110   0.08  demo
`, "m/0 resident memory: 26-11-20T22:14:00=100K 26-11-20T22:14:10=120K\nm/0 address space: 26-11-20T22:14:00=900K 26-11-20T22:14:10=904K\n" +
			"- 1 line that is no row was skipped, the first is line 6: \"Average:        0      4711      1.00      0.00     902     ...\"\n"},
		{"pidstat -h", "# Time        UID       PID  minflt/s  majflt/s     VSZ     RSS   %MEM  Command\n10:13:50 PM     0   4711      0.00      0.00     900     100   0.08  demo\n10:14:00 PM     0   4711      0.00      0.00     904     120   0.08  demo\n", timed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadPlain(strings.NewReader(tt.text), PlainOptions{Name: "/var/log/m.txt", Written: written})
			if err != nil {
				t.Fatal(err)
			}
			if s := sketch(got); s != tt.want {
				t.Errorf("got\n%swant\n%s", s, tt.want)
			}
		})
	}
}

// numbered gives ten rows of a number that rises by a step, and a size.
func numbered(format string, from, step int) string {
	var b strings.Builder
	for i := range 10 {
		fmt.Fprintf(&b, format, from+i*step, 10_000+4*(i%3))
	}
	return b.String()
}

func TestReadPlainRefuses(t *testing.T) {
	const advice = `put a first line that names the columns and their units, such as "time rss_mb vsz_mb" or "count rss"`
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "m.txt: line 1: the file is empty"},
		{"prose", "\nhello\nworld\n", `m.txt: line 2: no rows of rss and vsz in this file; this is none: "hello"`},
		{"unnamed columns", "1 2 3\n", `m.txt: line 1: three numbers or more, and no line before says which is rss: put a first line like "time rss vsz" or "pid rss vsz"`},
		{"a header alone", "RSS VSZ\nRSS VSZ\n", "m.txt: line 2: the file ends, and no rows follow its header"},
		{"times alone", "22:13:50\n22:14:00\n", "m.txt: line 2: the file ends without any row of rss and vsz"},
		{"below zero", "RSS VSZ\n1 2\n-1 2\n", "m.txt: line 3: rss cannot be -1"},
		{"binary", "RSS\n1\n\x00", "m.txt: line 3: not text: it has a zero byte"},
		{"smaps", "5575bfcdb000-5575bfcdd000 r--p 00000000 fe:00 247026    /usr/bin/cat\nSize: 8 kB\nRss: 8 kB\n", "m.txt: line 3: this is /proc/PID/smaps, which has the size of each mapping and not of the process: record smaps_rollup, or VmRSS and VmSize of status"},
		{"a counter", numbered("%d %d\n", 1, 1), "m.txt: line 1: 1 is no size as ps writes it, in KiB and of whole pages: " + advice},
		{"seconds", numbered("%d %d\n", 0, 60), `m.txt: line 1: the first of two numbers begins at 0 and rises by the same in each row, so it is hardly rss: ` + advice},
		{"uptime", numbered("%d.12 %d\n", 9057, 10), "m.txt: line 1: 9057.12 is no size as ps writes it, in KiB and of whole pages: " + advice},
		{"megabytes", "time,rss\n" + numbered("%d,%d.5\n", 0, 10), "m.txt: line 2: 10000.5 is no size as ps writes it, in KiB and of whole pages: " + advice},
		{"endless", "RSS\n" + strings.Repeat("x", plainLineMax+1), "m.txt: line 2: longer than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ReadPlain(strings.NewReader(tt.text), PlainOptions{Name: "m.txt"})
			if err == nil || err.Error() != tt.want {
				t.Errorf("error is %v, want %s", err, tt.want)
			}
		})
	}
}

// TestReadPlainOptions holds the interval, and the beginning at the epoch
// where nobody says when the file was written.
func TestReadPlainOptions(t *testing.T) {
	p, err := ReadPlain(strings.NewReader("1\n2\n3\n"), PlainOptions{Name: "memory_4711.txt", Interval: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Series[0]; s.Key.Service != "memory_4711" || s.Points[0].At != 0 || s.Points[2].At != 120_000 || s.Points[2].Value != 3072 {
		t.Errorf("read %+v", s)
	}
	berlin := time.FixedZone("", 3600)
	p, err = ReadPlain(strings.NewReader("2026-11-21 23:13:50 1\n"), PlainOptions{Name: "m", Location: berlin})
	if err != nil {
		t.Fatal(err)
	}
	if at := p.Series[0].Points[0].At; at != 1795299230000 {
		t.Errorf("the local time is %d", at)
	}
}

// TestReadPlainRecordings reads the recordings of real programs, which have a
// header of the same kind.
func TestReadPlainRecordings(t *testing.T) {
	names, err := filepath.Glob("../../testdata/series/real/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		p, err := ReadPlain(file, PlainOptions{Name: name})
		if err != nil {
			t.Error(err)
			continue
		}
		if len(p.Notes) > 0 || len(p.Series) != 9 {
			t.Errorf("%s: %d series, notes %q", name, len(p.Series), p.Notes)
		}
		for _, s := range p.Series {
			first, last := s.Points[0], s.Points[len(s.Points)-1]
			if year := time.UnixMilli(first.At).UTC().Year(); year < 2026 || last.At-first.At < 1_000_000 || len(s.Points) < 1000 {
				t.Errorf("%s: %s has %d points from %d to %d", name, s.Key.Metric, len(s.Points), first.At, last.At)
			}
		}
	}
}

func FuzzReadPlain(f *testing.F) {
	for _, seed := range []string{
		"  RSS    VSZ\n 100 900\n", "Sat Nov 21 22:13:50 UTC 2026\n100 900\n", "Timestamp,RSS,VSZ\n2026-11-21 22:13:50,100,900\n",
		"VmRSS:\t100 kB\n", "top - 22:13:50 up 9:57\n4711 root 20 0 900 100 7712 S 20.0 0.1 0:03.26 demo\n", "# start: 2026-11-21T22:13:50Z\ntime rss_kb\n0.1 3\n",
		"PID ELAPSED RSS\n7 1-02:03:04 100\n8 02:03 50\n", "22:13:50,123 rss=1 vsz=2\n", "1795299230 100 900\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ReadPlain(strings.NewReader(text), PlainOptions{Name: "m.txt", Written: written})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "m.txt: line ") {
				t.Errorf("the error names no line: %v", err)
			}
			return
		}
		if len(p.Series) == 0 {
			t.Error("neither series nor an error")
		}
		for _, s := range p.Series {
			if _, ok := Describe(s.Key.Metric); !ok || len(s.Points) == 0 {
				t.Errorf("%+v has %d points", s.Key, len(s.Points))
			}
			for i, pt := range s.Points {
				if i > 0 && pt.At <= s.Points[i-1].At || pt.Value < 0 {
					t.Errorf("%+v: point %d is %+v", s.Key, i, pt)
				}
			}
		}
	})
}
