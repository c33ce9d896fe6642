package main

import (
	"os/exec"
	"sync"
	"syscall"
)

// groups are the process groups of the commands that run beside bench: whatever
// a wrapper started with them ends with bench too.
var groups struct {
	sync.Mutex
	live map[int]struct{}
}

// launch starts a command as a group of its own, which ends with b.
func (b *bench) launch(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	groups.Lock()
	defer groups.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	if groups.live == nil {
		groups.live = map[int]struct{}{}
	}
	pid := cmd.Process.Pid
	groups.live[pid] = struct{}{}
	b.Cleanup(func() {
		groups.Lock()
		defer groups.Unlock()
		delete(groups.live, pid)
		if cmd.ProcessState == nil {
			_ = syscall.Kill(-pid, syscall.SIGKILL) // not waited for yet, so the number is its own
			_ = cmd.Wait()
		}
	})
	return nil
}

// endGroups kills all of them, as bench itself ends.
func endGroups() {
	groups.Lock()
	defer groups.Unlock()
	for pid := range groups.live {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}
