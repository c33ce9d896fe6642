package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"stanch/internal/proc"
	"stanch/internal/ptrace"
	"stanch/internal/source/probe"
)

// detach removes what a killed stanch left in a process.
func (a *app) detach() *cobra.Command {
	return &cobra.Command{
		Use:   "detach TARGET",
		Short: "Remove whatever an interrupted stanch left behind (a short pause)",
		Long: `detach looks for what a killed stanch left in a process - a probe, a finished snapshot that nobody
reaped, bytes in unused room behind the code - and removes it. The process ran on meanwhile: the
probe of a killed stanch goes quiet by itself within 5 s.`,
		Args: one("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.resolve(args[0])
			if err != nil {
				return err
			}
			release, err := lock(t)
			if err != nil {
				return err
			}
			defer release()
			cleaned, err := clean(cmd.Context(), t)
			if err != nil {
				return err
			}
			if len(cleaned) == 0 {
				fmt.Fprintf(a.std.Out, "%s: nothing was left behind\n", nameOf(t))
				return nil
			}
			fmt.Fprintf(a.std.Out, "%s: removed %s\n", nameOf(t), strings.Join(cleaned, ", "))
			return nil
		},
	}
}

// clean removes what a killed stanch left in t and says what that was. A probe
// that stayed would also hide losses: its books hold the addresses of the blocks
// it recorded.
func clean(ctx context.Context, t *proc.Target) (cleaned []string, err error) {
	err = patiently(ctx, func() error {
		more, err := ptrace.Clean(ctx, t)
		cleaned = append(cleaned, more...)
		return err
	})
	probed := false
	perr := patiently(ctx, func() error {
		found, err := probe.Detach(ctx, t, probe.Options{Clock: proc.NewClock()})
		probed = probed || found
		return err
	})
	if probed && perr == nil {
		cleaned = append(cleaned, "a probe")
	}
	return cleaned, errors.Join(err, perr)
}
