// Package stanch_test holds the arrows between the packages: what is not in
// the table fails, so that a new arrow is a decision and not an accident.
package stanch_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows lists, for each package below internal, what it may import of this
// module. The table in docs/ARCHITECTURE.md is the same one.
var arrows = map[string][]string{
	"leak":               {},
	"proc":               {"leak"},
	"record":             {"leak"},
	"ledger":             {"leak"},
	"render":             {"leak"},
	"series":             {},
	"series/tsdb":        {"series"},
	"ui/chart":           {"leak"},
	"ui/example":         {"leak"},
	"ui/term":            {"leak", "render", "ui/chart"},
	"ui/web":             {"leak", "render", "ui/chart"},
	"trend":              {"leak", "series"},
	"trend/corpus":       {"series"},
	"trend/accuracy":     {"leak", "series", "trend", "trend/corpus"},
	"metrics":            {"leak", "series"},
	"logs":               {"leak", "series"},
	"suppress":           {"leak"},
	"unwind":             {"leak"},
	"ptrace":             {"leak", "proc"},
	"symbol":             {"leak", "proc"},
	"source/descriptors": {"leak", "proc"},
	"source/fdcalls":     {"leak", "proc", "ptrace", "unwind"},
	"source/fdtrace":     {"leak", "proc", "unwind"},
	"source/heap":        {"leak", "proc", "ptrace", "unwind"},
	"source/logfile":     {},
	"source/probe":       {"leak", "proc", "ptrace", "unwind"},
	"source/sampler":     {"leak", "proc", "series"},
	"detect":             {"leak", "ledger"},
	"fixture":            {},
	"app":                {"leak", "proc", "ptrace", "record", "ledger", "render", "suppress", "detect", "symbol", "unwind", "source/descriptors", "source/fdcalls", "source/fdtrace", "source/heap", "source/logfile", "source/probe", "source/sampler", "series", "series/tsdb", "logs", "metrics", "trend", "ui/term", "ui/web"},
}

// libraries lists who may import a third-party module.
var libraries = map[string][]string{
	"github.com/spf13/cobra":                  {"app"},
	"golang.org/x/sys/unix":                   {"proc", "ptrace", "source/descriptors", "source/fdtrace", "source/heap", "source/logfile", "source/probe", "source/sampler"},
	"github.com/cilium/ebpf":                  {"source/fdtrace"},
	"github.com/mdlayher/netlink":             {"source/descriptors"},
	"golang.org/x/arch":                       {"source/probe"},
	"github.com/ianlancetaylor/demangle":      {"symbol"},
	"github.com/ulikunitz/xz":                 {"symbol"},
	"github.com/klauspost/compress":           {"symbol", "record", "series/tsdb"},
	"github.com/prometheus/prometheus":        {"series/tsdb"},
	"github.com/oklog/ulid":                   {"series/tsdb"},
	"github.com/prometheus/client_golang":     {"metrics"},
	"github.com/prometheus/common/model":      {"app", "metrics"},
	"github.com/prometheus/exporter-toolkit":  {"metrics"},
	"gopkg.in/yaml.v3":                        {"metrics"},
	"golang.org/x/net/netutil":                {"metrics"},
	"github.com/coreos/go-systemd/v22/daemon": {"app"},
	"gonum.org/v1/gonum/stat":                 {"trend", "trend/accuracy"},
	"github.com/google/pprof/profile":         {"render"},
}

// TestArrows parses every file that is not a test and holds its imports
// against the tables.
func TestArrows(t *testing.T) {
	const module = "stanch/internal/"
	fset := token.NewFileSet()
	err := filepath.WalkDir("internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/testdata/") {
			return err
		}
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "internal/")
		allowed, known := arrows[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the table of arrows", path, pkg)
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			switch first, _, _ := strings.Cut(name, "/"); {
			case strings.HasPrefix(name, module):
				if !slices.Contains(allowed, strings.TrimPrefix(name, module)) {
					t.Errorf("%s imports %s: %s may import %v only", path, name, pkg, allowed)
				}
			case strings.Contains(first, "."):
				if !mayUse(pkg, name) {
					t.Errorf("%s imports %s, which the table of libraries does not allow in %s", path, name, pkg)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mayUse(pkg, name string) bool {
	for lib, users := range libraries {
		if name == lib || strings.HasPrefix(name, lib+"/") {
			return slices.Contains(users, pkg)
		}
	}
	return false
}

// TestArrowsAreUsed fails on a row that stands for no package, so that the
// table stays true.
func TestArrowsAreUsed(t *testing.T) {
	for pkg := range arrows {
		if files, _ := filepath.Glob(filepath.Join("internal", pkg, "*.go")); len(files) == 0 {
			t.Errorf("the table of arrows names %s, which does not exist", pkg)
		}
	}
}
