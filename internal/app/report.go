package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"stanch/internal/leak"
	"stanch/internal/record"
	"stanch/internal/render"
)

// reportFlags are the command line of report.
type reportFlags struct {
	look lookFlags
	show profileFlags
}

// report shows a saved document again.
func (a *app) report() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report FILE",
		Short: "Show a recording or a JSON report again, also on another machine (touches nothing)",
		Long: `report reads what 'stanch scan --save' or 'stanch record -o x.rec' recorded, or a document in JSON, and
shows it in any format: 'stanch report x.rec -o x.pb.gz' makes a pprof profile.
Names come from the recording, or by build-id from the programs and debug files of this machine,
whichever know more.`,
		Args: one("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			r, p, err := a.readDocument(args[0], &f)
			if err != nil {
				return err
			}
			if p != nil {
				return a.writeProfile(p, f.show.top, &f.look.out)
			}
			if f.look.out.wantsProfile() {
				return usagef("%s holds no allocations with their stacks; pprof shows what 'stanch record' recorded", args[0])
			}
			return a.finish(r, nil, &f.look.out)
		},
	}
	f.look.out.flags(cmd)
	f.look.detectFlags(cmd)
	f.show.flags(cmd, "")
	for name, usage := range map[string]string{
		"format": "text or json, or pprof for a recording of allocations; without it, what the extension of -o says, else text",
		"sort":   "of a recording of allocations: order the sites by bytes, count, age or growth; as it was recorded without it",
		"site":   `of a recording of allocations: show only stacks that go through this function (repeatable), "" for all`,
	} {
		cmd.Flags().Lookup(name).Usage = usage
	}
	return cmd
}

func (f *reportFlags) check() error {
	if f.look.out.recording() {
		return usagef("report shows recordings and makes none; give -o another extension")
	}
	if err := f.show.check(); err != nil {
		return err
	}
	if f.look.out.wantsProfile() {
		return f.look.out.checkFile()
	}
	return f.look.out.check()
}

// wantsProfile reports whether the format is one that only a profile has.
func (o *output) wantsProfile() bool {
	f, err := o.profileFormat()
	return err == nil && f.Name == "pprof"
}

// readDocument reads a file: as a report, or as a profile when it is of what
// was allocated and freed.
func (a *app) readDocument(name string, f *reportFlags) (*leak.Report, *leak.Profile, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, codeError{ExitUsage, err}
	}
	var r *leak.Report
	var p *leak.Profile
	if bytes.HasPrefix(data, []byte("{")) {
		r, p, err = readJSON(data, f)
	} else {
		r, p, err = a.replay(name, data, f)
	}
	if err != nil {
		return nil, nil, codeError{ExitUsage, fmt.Errorf("%s: %w", name, err)}
	}
	return r, p, nil
}

func readJSON(data []byte, f *reportFlags) (*leak.Report, *leak.Profile, error) {
	var head struct {
		Schema string `json:"schema"`
	}
	if json.Unmarshal(data, &head) != nil || head.Schema != leak.ProfileSchema {
		r, err := render.ReadJSON(bytes.NewReader(data))
		return r, nil, err
	}
	if f.show.sort != "" || len(f.show.through) > 0 || f.look.out.wantsProfile() {
		return nil, nil, errors.New("a profile in JSON is shown as it is; --sort, --site and pprof need the recording")
	}
	p, err := render.ReadProfile(bytes.NewReader(data))
	return nil, p, err
}

// replayed takes what a recording says beside the observations.
type replayed struct {
	leak.Sink
	plan  *leak.Recorded
	names map[leak.Frame][]leak.StackFrame
	notes []string
}

// Recorded says that it is a recording of allocations.
func (r *replayed) Recorded(p leak.Recorded) { r.plan = &p }

// Name keeps the names of a place.
func (r *replayed) Name(f leak.Frame, names []leak.StackFrame) {
	if r.names == nil {
		r.names = map[leak.Frame][]leak.StackFrame{}
	}
	r.names[f] = names
}

// Note keeps what whoever recorded it had to say.
func (r *replayed) Note(s string) { r.notes = append(r.notes, s) }

// replay says a recording to the books once more.
func (a *app) replay(name string, data []byte, f *reportFlags) (*leak.Report, *leak.Profile, error) {
	o := newObservation(newProgress(a.std.Err, true), &f.look)
	said := &replayed{Sink: o.sink}
	h, err := record.Read(bytes.NewReader(data), said)
	o.notes = append(o.notes, said.notes...)
	switch {
	case errors.Is(err, record.ErrDamaged):
		o.note("%s: %v; the rest of it is reported", name, err)
	case err != nil:
		return nil, nil, err
	}
	o.subject = subject{comm: h.Comm, exe: h.Exe, began: h.Start, uptime: time.Duration(h.UptimeS * float64(time.Second))}
	o.given = said.names
	if said.plan == nil {
		return o.conclude(f.look.config()), nil, nil
	}
	plan := *said.plan
	if f.show.sort != "" {
		plan.Sort = f.show.sort
	}
	if len(f.show.through) > 0 {
		plan.Through = slices.DeleteFunc(f.show.through, func(s string) bool { return s == "" })
	}
	o.removed = plan.Removed
	f.show.wrappers = f.look.wrappers
	return nil, o.profile(&f.show, plan, nil), nil
}
