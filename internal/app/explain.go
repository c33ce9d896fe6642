package app

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"stanch/internal/detect"
	"stanch/internal/render"
)

// explain says what a number may mean.
func (a *app) explain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain NUMBER",
		Short: "Say what a suspicious number means (touches nothing)",
		Long: `explain says what a number may be when it is not what it claims: text read as a length, a time, an
address, a pattern that debuggers and allocators write. 1213486160 is "HTTP" read as a big-endian
number. Hexadecimal (0x...), octal (0...) and negative numbers are understood.`,
		// -1 is a number here and no flag.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && args[0] == "--" {
				args = args[1:]
			}
			if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
				return cmd.Help()
			}
			if err := one("NUMBER")(cmd, args); err != nil {
				return err
			}
			n, err := parseNumber(args[0])
			if err != nil {
				return err
			}
			return render.Explain(a.std.Out, n, detect.Explain(n))
		},
	}
}

// parseNumber reads a number of up to 64 bits; a negative one becomes its
// two's complement.
func parseNumber(s string) (uint64, error) {
	s = strings.NewReplacer(",", "", "_", "").Replace(s)
	if strings.HasPrefix(s, "-") {
		n, err := strconv.ParseInt(s, 0, 64)
		if err == nil {
			return uint64(n), nil
		}
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, usagef("%q is not a number of 64 bits; try 1213486160 or 0x48545450", s)
	}
	return n, nil
}
