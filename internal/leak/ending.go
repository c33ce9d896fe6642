package leak

// What a run says, as a Gap, of a process that it could not look at, or not
// wholly. Each is a sentence about that process.
const (
	// GapKilled is a process that SIGKILL ended: there was no moment to look.
	GapKilled = "killed by SIGKILL, which leaves no moment to look at its memory: what it held is known as far as it was recorded, not whether it was lost"
	// GapPrivileged is a program that gains rights when it is executed.
	GapPrivileged = "not followed: it is set-user-ID, set-group-ID or has file capabilities, and would lose them under a tracer"
	// GapTraced is a process that another tracer holds, or one that traces
	// itself.
	GapTraced = "not followed: it traces itself, or another tracer has it, and a process has one tracer at most"
	// GapForeign is a program of another architecture.
	GapForeign = "not followed: it is no 64-bit x86 program"
)
