package leak

// Ignore is a Sink that takes everything and keeps nothing. Embed it in a sink
// that wants a few kinds of events only.
type Ignore struct{}

// Map does nothing.
func (Ignore) Map(Mapping) {}

// Stack does nothing.
func (Ignore) Stack(StackID, []Frame) {}

// Acquire does nothing.
func (Ignore) Acquire(Acquire) {}

// Release does nothing.
func (Ignore) Release(Release) {}

// Invalid does nothing.
func (Ignore) Invalid(Invalid) {}

// Tally does nothing.
func (Ignore) Tally(Tally) {}

// Gauge does nothing.
func (Ignore) Gauge(Gauge) {}

// Look does nothing.
func (Ignore) Look(Look) {}

// Verdicts does nothing.
func (Ignore) Verdicts([]Verdict) {}

// Held does nothing.
func (Ignore) Held([]Held) {}

// Listing does nothing.
func (Ignore) Listing(Listing) {}

// Ownerless does nothing.
func (Ignore) Ownerless(Ownerless) {}

// Usage does nothing.
func (Ignore) Usage(Usage) {}

// Failure does nothing.
func (Ignore) Failure(Failure) {}

// Use does nothing.
func (Ignore) Use(Use) {}

// Input does nothing.
func (Ignore) Input(Input) {}

// Gap does nothing.
func (Ignore) Gap(Gap) {}
