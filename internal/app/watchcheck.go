package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
// making the directories of the history and of the socket.
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

// may says whether something works without which a watch runs, and sees less.
func (c *watchCheck) may(what, works string, err error) {
	if err != nil {
		c.line("note", what, err.Error()+"; the watch runs without it")
		return
	}
	c.line("ok", what, works)
}

// store looks at the history as a reader: to open it for writing would repair
// and compact it, and leave files of root's in the directory of another user.
func (c *watchCheck) store(f *watchFlags) {
	held, newest, err := checkHistory(f.data)
	text := fmt.Sprintf("%s holds %s of at most %s", f.data, leak.FormatBytes(float64(held)), leak.FormatBytes(float64(f.maxSize)))
	if newest != 0 {
		text += ", until " + time.UnixMilli(newest).Format("2006-01-02 15:04:05")
	}
	c.must("history", text, err)
	var st syscall.Statfs_t
	if syscall.Statfs(f.data, &st) != nil {
		return
	}
	free := leak.FormatBytes(float64(st.Bavail) * float64(st.Bsize))
	if left := int64(f.maxSize) - held; int64(st.Bavail)*st.Bsize < left {
		c.line("note", "disk", fmt.Sprintf("%s free, and the history may grow by %s (--max-size); what does not fit is not written, and said", free, leak.FormatBytes(float64(left))))
		return
	}
	c.line("ok", "disk", free+" free")
}

// checkHistory says why a watch could not keep its history in a directory, or
// what is there already.
func checkHistory(dir string) (held, newest int64, err error) {
	socket := filepath.Join(dir, socketName)
	if err := fits(socket); err != nil {
		return 0, 0, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, 0, err
	}
	if answers(socket) {
		return 0, 0, fmt.Errorf("another stanch watch writes to %s", dir)
	}
	file, err := os.CreateTemp(dir, ".check-")
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
		return 0, 0, err
	}
	store, err := tsdb.OpenReadOnly(dir)
	if err != nil {
		return 0, 0, err
	}
	return store.Stats().Bytes, store.Newest(), store.Close()
}

func (c *watchCheck) listen(f *watchFlags) {
	if f.listen != "" {
		l, err := metrics.Listen(f.listen, f.webConfig)
		if err == nil {
			err = l.Close()
		}
		c.must("listen", "/metrics is to be at "+f.listen, err)
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

// logs looks whether the logs can be read. A watch runs without them.
func (c *watchCheck) logs(f *watchFlags) {
	for _, path := range f.logs {
		file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would hold it up
		switch {
		case errors.Is(err, os.ErrNotExist):
			c.line("note", "log", path+" is not there yet; it is followed from when it is")
			continue
		case err == nil:
			var info os.FileInfo
			if info, err = file.Stat(); err == nil && info.IsDir() {
				err = fmt.Errorf("%s is a directory", path)
			}
			err = errors.Join(err, file.Close())
		}
		c.may("log", path, err)
	}
	for _, unit := range f.journals {
		out, err := exec.Command("journalctl", "--quiet", "--lines=1", "--output=cat", "--unit="+unit).Output()
		if err == nil && len(out) == 0 {
			err = fmt.Errorf("the journal has nothing of %s that may be read here", unit)
		}
		c.may("journal", "that of "+unit+" can be read", err)
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
	switch socket := filepath.Join(runDir(), socketName); {
	case answers(socket):
		c.line("note", "suspects", fmt.Sprintf("another stanch watch has %s: 'stanch suspects' needs --data for this one", socket))
	case c.reachable(runDir()):
		c.line("ok", "suspects", "'stanch suspects' finds the watch by "+socket)
	default:
		c.line("note", "suspects", fmt.Sprintf("%s can not be written: 'stanch suspects' needs --data", runDir()))
	}
}

// reachable reports whether a socket can be made in a directory.
func (c *watchCheck) reachable(dir string) bool {
	if os.MkdirAll(dir, 0o700) != nil {
		return false
	}
	return syscall.Access(dir, 2 /* W_OK */) == nil
}
