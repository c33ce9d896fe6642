package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// dataDir is where a watch keeps its history unless told otherwise: what
// systemd gives its service, /var/lib/stanch for root, else the user's own
// place for state.
func dataDir() string {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/stanch"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "stanch")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local/state/stanch")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("stanch-%d", os.Geteuid()))
}

// runDir is where a running watch can be found, without its data directory
// being known.
func runDir() string {
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/run/stanch"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "stanch")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("stanch-%d", os.Geteuid()))
}

// socketName is the socket of a watch, in its data directory and in runDir.
const socketName = "watch.sock"
