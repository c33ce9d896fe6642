package symbol

import "testing"

// TestAliases takes the name that a reader expects.
func TestAliases(t *testing.T) {
	for _, flags := range [][]string{{"-O1"}, {"-O1", "-g"}} {
		exe := compile(t, []string{"aliases.c"}, flags...)
		f := elfFile(t, exe)
		syms, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		s := symbolizer(t, Options{})
		want := map[string]string{
			"__lib_get": "get", "get": "get", "get_here": "get", "real_name": "real_name", "a": "real_name",
			"chosen": "chosen", "picked": "picked", "bare_label": "bare_label", "sized": "sized", "inner": "sized", "_init": "_init",
		}
		for _, sym := range syms {
			name, ok := want[sym.Name]
			if !ok {
				continue
			}
			delete(want, sym.Name)
			m, place := mapping(t, exe, f, sym.Value+1)
			if got := s.Frames(m, place); got[0].Function != name {
				t.Errorf("%v: %s is named %s", flags, sym.Name, show(got))
			}
		}
		if len(want) > 0 {
			t.Errorf("the program has no %v", want)
		}
	}
}
