package app

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/leak"
	"stanch/internal/record"
	"stanch/internal/render"
)

// report shows a saved document again.
func (a *app) report() *cobra.Command {
	var f lookFlags
	cmd := &cobra.Command{
		Use:   "report FILE",
		Short: "Show a recording or a JSON report again, also on another machine (touches nothing)",
		Long: `report reads what 'stanch scan --save' recorded, or a report in JSON, and shows it in any format.
Names are found by build-id: in the programs and debug files of this machine.`,
		Args: one("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.out.check(); err != nil {
				return err
			}
			r, err := a.readReport(args[0], &f)
			return a.finish(r, err, &f.out)
		},
	}
	f.out.flags(cmd)
	f.detectFlags(cmd)
	return cmd
}

func (a *app) readReport(name string, f *lookFlags) (*leak.Report, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, codeError{ExitUsage, err}
	}
	defer file.Close()
	in := bufio.NewReader(file)
	if head, _ := in.Peek(1); bytes.Equal(head, []byte("{")) {
		r, err := render.ReadJSON(in)
		if err != nil {
			return nil, codeError{ExitUsage, fmt.Errorf("%s: %w", name, err)}
		}
		return r, nil
	}
	o := newObservation(newProgress(a.std.Err, true), f)
	h, err := record.Read(in, o.sink)
	switch {
	case errors.Is(err, record.ErrDamaged):
		o.note("%s: %v; the rest of it is reported", name, err)
	case err != nil:
		return nil, codeError{ExitUsage, fmt.Errorf("%s: %w", name, err)}
	}
	o.subject = subject{comm: h.Comm, exe: h.Exe, began: h.Start, uptime: time.Duration(h.UptimeS * float64(time.Second))}
	return o.conclude(f.config()), nil
}
