package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"stanch/internal/leak"
	"stanch/internal/metrics"
	"stanch/internal/proc"
	"stanch/internal/series/tsdb"
	"stanch/internal/source/sampler"
)

// checkWatch says what a watch with these flags could see and do here: for
// packages, for a unit's ExecStartPre, and for people. It changes nothing but
// making the data directory.
func (a *app) checkWatch(word string, f *watchFlags) error {
	c := &watchCheck{app: a}
	if word != "" {
		_, err := a.resolve(word)
		c.must("target", "it is there", err)
	}
	c.store(f)
	c.listen(f)
	c.logs(f)
	c.rights()
	if c.failed {
		return codeError{ExitFault, nil}
	}
	return nil
}

// watchCheck prints one line for each thing that a watch needs or could use.
type watchCheck struct {
	*app
	failed bool
}

func (c *watchCheck) line(verdict, what, text string) {
	fmt.Fprintf(c.std.Out, "%-8s %-14s %s\n", verdict, what, text)
}

// must says whether something works without which there is no watch.
func (c *watchCheck) must(what, works string, err error) {
	if err != nil {
		c.failed = true
		c.line("FAILS", what, err.Error())
		return
	}
	c.line("ok", what, works)
}

func (c *watchCheck) store(f *watchFlags) {
	store, err := tsdb.Open(f.data, tsdb.Options{MaxBytes: int64(f.maxSize), Retention: f.retention})
	text := ""
	switch {
	case err == nil:
		text = fmt.Sprintf("%s holds %s of at most %s", f.data, leak.FormatBytes(float64(store.Stats().Bytes)), leak.FormatBytes(float64(f.maxSize)))
		if at := store.Newest(); at != 0 {
			text += ", until " + time.UnixMilli(at).Format("2006-01-02 15:04:05")
		}
		err = store.Close()
	case errors.Is(err, tsdb.ErrLocked):
		text, err = fmt.Sprintf("%s is in use: %v", f.data, err), nil
	}
	c.must("history", text, err)
	var st syscall.Statfs_t
	if syscall.Statfs(f.data, &st) == nil {
		free := st.Bavail * uint64(st.Bsize)
		if verdict := "ok"; free < uint64(f.maxSize) {
			verdict = "note"
			c.line(verdict, "disk", fmt.Sprintf("%s free, less than --max-size %s; what does not fit is not written, and said", leak.FormatBytes(float64(free)), leak.FormatBytes(float64(f.maxSize))))
		} else {
			c.line(verdict, "disk", leak.FormatBytes(float64(free))+" free")
		}
	}
}

func (c *watchCheck) listen(f *watchFlags) {
	if f.listen != "" {
		l, err := metrics.Listen(f.listen, f.webConfig)
		if err == nil {
			err = l.Close()
		}
		c.must("listen", "http://"+f.listen+"/metrics", err)
	}
	if f.remote == "" {
		return
	}
	remote, err := tsdb.NewRemote(f.remote, tsdb.RemoteOptions{TokenFile: f.remoteToken, Version: c.version})
	if err == nil {
		err = remote.Close()
	}
	c.must("remote write", "the address is well-formed; samples that it refuses are counted on /metrics", err)
}

func (c *watchCheck) logs(f *watchFlags) {
	for _, path := range f.logs {
		file, err := os.Open(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			c.line("note", "log", path+" is not there yet; it is followed from when it is")
			continue
		case err == nil:
			err = file.Close()
		}
		c.must("log", path, err)
	}
	if len(f.journals) > 0 {
		_, err := exec.LookPath("journalctl")
		c.must("journal", "journalctl is there", err)
	}
}

// rights says what may be read of other processes.
func (c *watchCheck) rights() {
	host := &sampler.Host{MinAge: -1}
	now, _ := (&sampler.Stamper{}).Now()
	sweep, err := host.Sweep(context.Background(), now)
	if err == nil {
		err = host.Close()
	}
	c.must("processes", fmt.Sprintf("%d are sampled", len(host.Processes())), err)
	for _, n := range sweep.Notes {
		c.line("note", "processes", n)
	}
	if major, minor := proc.Default.Kernel(); major < 6 || major == 6 && minor < 2 {
		c.line("note", "descriptors", fmt.Sprintf("Linux %d.%d does not tell how many a process has without listing them (6.2 does): they are counted at the slower pace", major, minor))
	}
	if socket := runDir(); c.reachable(socket) {
		c.line("ok", "suspects", "'stanch suspects' finds the watch by "+socket)
	} else {
		c.line("note", "suspects", fmt.Sprintf("%s can not be written: 'stanch suspects' needs --data", socket))
	}
}

// reachable reports whether a socket can be made in a directory.
func (c *watchCheck) reachable(dir string) bool {
	if os.MkdirAll(dir, 0o700) != nil {
		return false
	}
	return syscall.Access(dir, 2 /* W_OK */) == nil
}
