//go:build !faults

package probe

// step marks a point between two effects on the target, at which a test build
// (tag faults) can kill stanch; ptrace has its own.
func step(string) {}
