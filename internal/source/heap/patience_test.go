package heap

import "time"

// patience is how long a process may take to stop, and stand still, in tests:
// they share the machine with others.
const patience = time.Minute
