//go:build !faults

package ptrace

// step marks a point between two effects on the target, at which a test build
// (tag faults) can kill stanch.
func step(string) {}
