package leak

// GapKilled is what a run says, as a Gap, of a process that SIGKILL ended:
// there was no moment to look.
const GapKilled = "killed by SIGKILL, which leaves no moment to look at its memory: what it held is known as far as it was recorded, not whether it was lost"
