package leak

// Range is a half-open interval of a target's addresses.
type Range struct{ Start, End Addr }

// Contains reports whether a lies in the range.
func (r Range) Contains(a Addr) bool { return a >= r.Start && a < r.End }
