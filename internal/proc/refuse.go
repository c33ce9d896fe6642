package proc

import "fmt"

// refusal is one sentence for the user that also tells callers, through
// errors.Is, which of the sentinels it is.
type refusal struct {
	text string
	kind error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

// refuse makes a one-line error of kind ErrGone, ErrDenied or ErrUnsupported.
func refuse(kind error, format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), kind}
}
