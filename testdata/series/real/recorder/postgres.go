package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Debian keeps what is not for everybody here.
const postgresBin = "/usr/lib/postgresql/15/bin/"

// startPostgres runs PostgreSQL, and pgbench with the script that the mode
// names: one client, whose backend is recorded.
func startPostgres(b *bench, s *subject) error {
	owner, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(owner.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(owner.Gid, 10, 32)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.work, s.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return err
	}
	// What the programs run as: the server refuses to be root.
	as := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PGHOST="+dir, "PGUSER=postgres", "PGDATABASE=postgres")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		return cmd
	}
	run := func(name string, args ...string) error {
		if text, err := as(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, text)
		}
		return nil
	}

	data := filepath.Join(dir, "data")
	if err := run(postgresBin+"initdb", "-D", data, "-A", "trust", "--no-sync"); err != nil {
		return err
	}
	server := as(postgresBin+"postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "shared_buffers=128MB", "-c", "fsync=off")
	if err := b.command(s, server); err != nil {
		return err
	}
	if err := until("postgres answers", func() bool { return run("psql", "-c", "select 1") == nil }); err != nil {
		return err
	}
	if err := run("pgbench", "-i", "-q", "-s", "20"); err != nil {
		return err
	}

	script, err := os.ReadFile(filepath.Join(b.sources, s.mode))
	if err != nil {
		return err
	}
	scriptName := filepath.Join(dir, "script.sql") // where the user postgres can read it
	if err := os.WriteFile(scriptName, script, 0o644); err != nil {
		return err
	}
	s.version = version(postgresBin+"postgres", "--version") + ", the backend of one pgbench client"
	client := as("pgbench", "-n", "-c", "1", "-T", "864000", "-f", scriptName)
	if err := b.command(s, client); err != nil {
		return err
	}
	if err := until("pgbench has a backend", func() bool {
		text, err := as("psql", "-Atc", "select pid from pg_stat_activity where application_name = 'pgbench'").Output()
		if err != nil {
			return false
		}
		s.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	}); err != nil {
		return err
	}
	s.drive = func(ctx context.Context, length time.Duration) { pause(ctx, client.Process, s.shape, length) }
	return nil
}

// pause stops a client while the shape has no work for it. The script sleeps
// between its statements, so nothing is made up for afterwards.
func pause(ctx context.Context, client *os.Process, shape shape, length time.Duration) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	stopped := false
	for start := time.Now(); ; {
		idle := shape.at(float64(time.Since(start))/float64(length)) == 0
		select {
		case <-ctx.Done():
			_ = client.Signal(syscall.SIGCONT) // so that it can end
			return
		case <-tick.C:
		}
		if idle == stopped {
			continue
		}
		signal := syscall.SIGCONT
		if idle {
			signal = syscall.SIGSTOP
		}
		if client.Signal(signal) == nil {
			stopped = idle
		}
	}
}
