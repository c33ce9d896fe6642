package ptrace

import (
	"fmt"

	"stanch/internal/proc"
)

// CallIn is Call in one certain thread, for calls that say something of the
// thread that makes them. It is refused when that thread cannot be moved.
func (s *Stop) CallIn(tid int, nr uint64, args ...uint64) (uint64, error) {
	var ret uint64
	if forbidden[nr] {
		return 0, fmt.Errorf("system call %d cannot be made for another: %w", nr, proc.ErrUnsupported)
	}
	err := s.held(func() error {
		if s.left() <= 0 {
			return ErrPause
		}
		defer func(was int) { s.prefer = was }(s.prefer)
		s.prefer = tid
		in := injection{nr: nr}
		copy(in.args[:], args)
		var err error
		ret, err = s.inject(&in)
		return err
	})
	return ret, err
}
