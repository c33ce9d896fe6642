package symbol

import (
	"regexp"
	"strings"

	"github.com/ianlancetaylor/demangle"
)

const (
	longName    = 200 // a name longer than this is shown without its template arguments
	maxMangled  = 1 << 14
	maxNamePow2 = 14 // what the demangler writes at most, as a power of two
)

// clone matches what compilers append to the symbol of a part or variant of a
// function: GCC's ipa passes, LLVM's promotion.
var clone = regexp.MustCompile(`(\.((part|isra|constprop|lto_priv|clone|llvm|__uniq)\.[0-9]+|(cold|localalias)(\.[0-9]+)?))+$`)

// coroutine matches what they append to the parts of a C++ coroutine.
var coroutine = regexp.MustCompile(`\.(actor|destroy|cleanup|resume)(\.[0-9]+)?$`)

// base removes a version ("memcpy@@GLIBC_2.14"), the mark of glibc's internal
// aliases ("__GI_strlen") and clone suffixes from a symbol.
func base(symbol string) string {
	if s := strings.TrimPrefix(symbol, "__GI_"); s != "" {
		symbol = s
	}
	if i := strings.IndexByte(symbol, '@'); i > 0 {
		symbol = symbol[:i]
	}
	if !strings.Contains(symbol, ".") {
		return symbol
	}
	cut := clone.ReplaceAllString(symbol, "")
	if mangled(symbol) {
		cut = coroutine.ReplaceAllString(cut, "")
	}
	if cut == "" {
		return symbol
	}
	return cut
}

// part reports whether a symbol is of a part or variant of a function.
func part(symbol string) bool { return strings.Contains(symbol, ".") && clone.MatchString(symbol) }

// mangled reports whether a symbol is a mangled C++ or Rust name.
func mangled(symbol string) bool {
	return strings.HasPrefix(symbol, "_Z") || strings.HasPrefix(symbol, "_R") || strings.HasPrefix(symbol, "___Z")
}

// Readable gives the name that frames have of a function with this symbol.
func Readable(symbol string) string { return readable(symbol) }

// readable gives the name of a symbol as its author would say it: demangled,
// without parameters, and without the template arguments that the standard
// library fills in.
func readable(symbol string) string {
	symbol = base(symbol)
	if !mangled(symbol) || len(symbol) > maxMangled {
		return symbol
	}
	opts := []demangle.Option{demangle.NoParams, demangle.NoEnclosingParams, demangle.NoABITags, demangle.MaxLength(maxNamePow2)}
	if ast, err := demangle.ToAST(symbol, append(opts, demangle.NoRust)...); err == nil && !legacyRust(symbol) {
		if s := ast.Copy(shorten, never); s != nil {
			ast = s
		}
		if s := closed(demangle.ASTToString(ast, opts...)); s != "" && len(s) <= longName {
			return s
		}
		if s := closed(demangle.ASTToString(ast, append(opts, demangle.NoTemplateParams)...)); s != "" {
			return s
		}
		return symbol
	}
	s, err := demangle.ToString(symbol, opts...)
	if err != nil {
		return symbol
	}
	if len(s) > longName {
		if short, err := demangle.ToString(symbol, append(opts, demangle.NoTemplateParams)...); err == nil {
			return short
		}
	}
	return s
}

// legacyRust reports whether a symbol has the hash of Rust's first mangling,
// which is otherwise also a C++ name.
func legacyRust(symbol string) bool {
	return strings.HasPrefix(symbol, "_ZN") && strings.HasSuffix(symbol, "E") && len(symbol) > 23 &&
		symbol[len(symbol)-20:len(symbol)-17] == "17h"
}

// closed writes the ends of nested templates as C++11 does.
func closed(s string) string {
	for strings.Contains(s, "> >") {
		s = strings.ReplaceAll(s, "> >", ">>")
	}
	return s
}

func never(demangle.AST) bool { return false }

// shorten rewrites one node: std::__cxx11 and std::__1 become std, and
// template arguments equal to the standard library's defaults go away.
func shorten(a demangle.AST) demangle.AST {
	switch n := a.(type) {
	case *demangle.Qualified:
		if inner, ok := n.Scope.(*demangle.Qualified); ok && isName(inner.Scope, "std") &&
			(isName(inner.Name, "__cxx11") || isName(inner.Name, "__1")) {
			return &demangle.Qualified{Scope: inner.Scope, Name: n.Name, LocalName: n.LocalName}
		}
	case *demangle.Template:
		return shortenTemplate(n)
	case *demangle.Special: // a thunk: its function has parameters, whatever the options say
		if t, ok := n.Val.(*demangle.Typed); ok {
			return &demangle.Special{Prefix: n.Prefix, Val: t.Name}
		}
	}
	return nil
}

func shortenTemplate(t *demangle.Template) demangle.AST {
	q, ok := t.Name.(*demangle.Qualified)
	if !ok || !isName(q.Scope, "std") {
		return nil
	}
	args := t.Args
	for len(args) > 1 && isDefault(args[len(args)-1]) {
		args = args[:len(args)-1]
	}
	if name, ok := q.Name.(*demangle.Name); ok && len(args) == 1 {
		if to := alias(name.Name, args[0]); to != "" {
			return &demangle.Qualified{Scope: q.Scope, Name: &demangle.Name{Name: to}}
		}
	}
	if len(args) == len(t.Args) {
		return nil
	}
	return &demangle.Template{Name: t.Name, Args: args}
}

// isDefault reports whether a template argument is one that containers,
// strings, streams and smart pointers have by default. Whether it really is
// the default of this parameter is not looked at: nobody reads names for that.
func isDefault(a demangle.AST) bool {
	t, ok := a.(*demangle.Template)
	if !ok {
		return false
	}
	q, ok := t.Name.(*demangle.Qualified)
	if !ok || !isName(q.Scope, "std") {
		return false
	}
	name, ok := q.Name.(*demangle.Name)
	if !ok {
		return false
	}
	switch name.Name {
	case "allocator", "char_traits", "less", "equal_to", "hash", "default_delete":
		return true
	}
	return false
}

// alias gives the typedef that the standard has for a class of characters.
func alias(class string, arg demangle.AST) string {
	b, ok := arg.(*demangle.BuiltinType)
	if !ok {
		return ""
	}
	prefix := map[string]string{"char": "", "wchar_t": "w"}
	p, ok := prefix[b.Name]
	if !ok {
		return ""
	}
	switch class {
	case "basic_string", "basic_ostream", "basic_istream", "basic_iostream", "basic_stringstream", "basic_ostringstream",
		"basic_istringstream", "basic_ios", "basic_streambuf", "basic_stringbuf", "basic_filebuf", "basic_ifstream",
		"basic_ofstream", "basic_fstream", "basic_string_view":
		return p + strings.TrimPrefix(class, "basic_")
	}
	return ""
}

func isName(a demangle.AST, name string) bool {
	n, ok := a.(*demangle.Name)
	return ok && n.Name == name
}

// tidy shortens a name as compilers write it into DWARF, where there is no
// mangled one: functions that other files cannot see, among them all that
// have a lambda among their template arguments.
func tidy(name string) string {
	name = closed(strings.ReplaceAll(name, "std::__cxx11::", "std::"))
	for _, class := range []string{"string", "string_view", "ostream", "istream"} {
		name = strings.ReplaceAll(name, "std::basic_"+class+"<char>", "std::"+class)
	}
	if len(name) > longName {
		return bare(name)
	}
	return name
}

// bare cuts the template arguments out of a name.
func bare(name string) string {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(name); i++ {
		if depth == 0 && strings.HasPrefix(name[i:], "operator") {
			n := len("operator")
			for _, op := range []string{"<=>", "<<=", ">>=", "->", "<<", ">>", "<=", ">=", "<", ">"} {
				if strings.HasPrefix(name[i+n:], op) {
					n += len(op)
					break
				}
			}
			b.WriteString(name[i : i+n])
			i += n - 1
			continue
		}
		switch c := name[i]; {
		case c == '<':
			depth++
		case c == '>' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}
