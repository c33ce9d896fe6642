package leak

// ReportDescriptors are the descriptors of a process as they stood at the end
// of the observation.
type ReportDescriptors struct {
	Open   uint64                  `json:"open"`
	Groups []ReportDescriptorGroup `json:"groups"` // what is alike, the largest group first
	// Libraries are whose code opened those with a known opener, most first.
	Libraries []ReportLibrary `json:"libraries"`
	// List has each descriptor, when that was asked for.
	List []ReportDescriptor `json:"list"`
	// Ownerless are the sockets of the network namespace that belong to no
	// process any more.
	Ownerless []ReportOwnerless `json:"ownerless"`
	// Limits are what can run out, what runs out first before the others.
	Limits []ReportLimit `json:"limits"`
	// Failures are the system calls that failed because something had run out.
	Failures []ReportFailure `json:"failures"`
}

// ReportDescriptorGroup is a number of descriptors that are alike: what they
// are, their state and peer.
type ReportDescriptorGroup struct {
	What        string         `json:"what"`     // "TCP CLOSE_WAIT to 10.0.0.5:5432", "/var/log/*.log (deleted)", "eventfd"
	Kind        string         `json:"kind"`     // as in Descriptor
	Protocol    string         `json:"protocol"` // of sockets, else ""
	State       string         `json:"state"`
	Peer        string         `json:"peer"`
	Count       uint64         `json:"count"`
	Numbers     []int          `json:"numbers"`       // the first 16 of them
	Bytes       uint64         `json:"bytes"`         // sizes of memfds and deleted files; bytes queued in sockets and pipes
	IdleLowS    *float64       `json:"idle_low_s"`    // the shortest and the longest time without data
	IdleHighS   *float64       `json:"idle_high_s"`   //
	CloseOnExec uint64         `json:"close_on_exec"` // how many have it
	Module      string         `json:"module"`        // the library that opened most of those with a known opener, "" when none is known
	Openers     []ReportOpener `json:"openers"`       // most first
}

// ReportLibrary is a program or library and how many descriptors it opened: its
// frame is the first outside the C library.
type ReportLibrary struct {
	Module string `json:"module"` // base name of the file
	Count  uint64 `json:"count"`
}

// ReportOpener is a place that opened descriptors.
type ReportOpener struct {
	Count     uint64       `json:"count"`     // how many of the group
	Certainty Certainty    `json:"certainty"` // proved: seen; likely: the same kind was seen to be opened there
	Call      string       `json:"call"`
	Stack     []StackFrame `json:"stack"`
	Site      int          `json:"site"`
}

// ReportDescriptor is one descriptor.
type ReportDescriptor struct {
	Num         int           `json:"num"`
	Kind        string        `json:"kind"`
	What        string        `json:"what"` // in words
	CloseOnExec bool          `json:"close_on_exec"`
	Access      string        `json:"access"` // "r", "w", "rw", ""
	Bytes       uint64        `json:"bytes"`
	Deleted     bool          `json:"deleted"`
	Socket      *ReportSocket `json:"socket"`
	AgeS        *float64      `json:"age_s"` // since it was opened, when that was seen
	Opener      *ReportOpener `json:"opener"`
	LastCall    string        `json:"last_call"`   // on it, "read (EAGAIN)"; "" when none was seen
	LastCallS   *float64      `json:"last_call_s"` // how long ago
}

// ReportSocket is what is known of a socket. Times are null when not known.
type ReportSocket struct {
	Protocol      string   `json:"protocol"`
	State         string   `json:"state"`
	Local         string   `json:"local"`
	Peer          string   `json:"peer"`
	ReceiveQueue  uint64   `json:"receive_queue"`
	SendQueue     uint64   `json:"send_queue"`
	LastReceivedS *float64 `json:"last_received_s"`
	LastSentS     *float64 `json:"last_sent_s"`
}

// ReportOwnerless counts sockets without an owner.
type ReportOwnerless struct {
	State string `json:"state"`
	Local string `json:"local"`
	Count uint64 `json:"count"`
}

// ReportLimit is a limited resource.
type ReportLimit struct {
	Name        string   `json:"name"`
	Scope       string   `json:"scope"`
	Limit       string   `json:"limit"` // what sets it
	Used        uint64   `json:"used"`
	Max         *uint64  `json:"max"`  // null when there is none
	Hard        *uint64  `json:"hard"` // of an rlimit
	Bytes       bool     `json:"bytes"`
	RatePerHour *float64 `json:"rate_per_hour"` // null when it was read once only
	InS         *float64 `json:"in_s"`          // until it is used up at that rate; null when it does not grow
}

// ReportFailure counts failed system calls of one place.
type ReportFailure struct {
	Call  string       `json:"call"`
	Errno string       `json:"errno"`
	Count uint64       `json:"count"`
	Stack []StackFrame `json:"stack"`
	Site  int          `json:"site"`
}

func (d *ReportDescriptors) normalize() {
	if d == nil {
		return
	}
	d.Groups, d.List, d.Ownerless = nonNil(d.Groups), nonNil(d.List), nonNil(d.Ownerless)
	d.Limits, d.Failures = nonNil(d.Limits), nonNil(d.Failures)
	d.Libraries = nonNil(d.Libraries)
	for i := range d.Groups {
		g := &d.Groups[i]
		g.Numbers, g.Openers = nonNil(g.Numbers), nonNil(g.Openers)
		for j := range g.Openers {
			g.Openers[j].Stack = nonNil(g.Openers[j].Stack)
		}
	}
	for i := range d.List {
		if o := d.List[i].Opener; o != nil {
			o.Stack = nonNil(o.Stack)
		}
	}
	for i := range d.Failures {
		d.Failures[i].Stack = nonNil(d.Failures[i].Stack)
	}
}
