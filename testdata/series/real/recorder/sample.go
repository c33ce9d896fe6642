package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const columns = "time rss_kb anon_kb vsz_kb swap_kb fds threads cpu_s rchar wchar"

// record samples s at a steady pace until ctx ends. A row's time is in seconds
// since the first, to a tenth.
func record(ctx context.Context, dir string, every time.Duration, s *subject) (err error) {
	file, err := os.Create(filepath.Join(dir, s.name+".txt"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	defer func() { err = errors.Join(err, w.Flush(), file.Close()) }()

	fmt.Fprintf(w, "# program: %s\n# what: %s\n# load: %s\n# start: %s\n# interval_s: %g\n",
		s.version, s.what, s.shape.doc, time.Now().UTC().Format(time.RFC3339), every.Seconds())
	for _, t := range s.truth {
		fmt.Fprintf(w, "# truth.%s: %s\n", t.column, t.truth)
	}
	fmt.Fprintln(w, columns)

	start := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		at := math.Round(time.Since(start).Seconds()*10) / 10
		row, err := sample(s.pid)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, strconv.FormatFloat(at, 'f', -1, 64), row)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sample reads one row, without its time.
func sample(pid int) (string, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	status, err := fields(dir + "status")
	if err != nil {
		return "", err
	}
	io, err := fields(dir + "io")
	if err != nil {
		return "", err
	}
	cpu, err := cpuSeconds(dir + "stat")
	if err != nil {
		return "", err
	}
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		return "", err
	}
	return fmt.Sprint(status["VmRSS"], " ", status["RssAnon"], " ", status["VmSize"], " ", status["VmSwap"], " ",
		len(fds), " ", status["Threads"], " ", cpu, " ", io["rchar"], " ", io["wchar"]), nil
}

// fields reads the lines "name: number" of a file of /proc.
func fields(name string) (map[string]string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, rest, _ := strings.Cut(line, ":")
		if words := strings.Fields(rest); len(words) > 0 {
			values[key] = words[0]
		}
	}
	return values, nil
}

// cpuSeconds is user and system time: the 14th and 15th field of
// /proc/PID/stat, in hundredths of a second on Linux of any architecture that
// Go knows.
func cpuSeconds(name string) (float64, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	words := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	user, err := strconv.ParseInt(string(words[11]), 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(string(words[12]), 10, 64)
	return float64(user+system) / 100, err
}
