package symbol

import (
	"strings"
	"testing"
)

func TestReadable(t *testing.T) {
	for symbol, want := range map[string]string{
		"malloc":                      "malloc",
		"memcpy@@GLIBC_2.14":          "memcpy",
		"memcpy@GLIBC_2.2.5":          "memcpy",
		"foo.part.0":                  "foo",
		"foo.constprop.0.isra.0.cold": "foo",
		"foo.cold":                    "foo",
		"foo.lto_priv.12":             "foo",
		"foo.llvm.1234567":            "foo",
		"__GI__IO_fwrite.cold":        "_IO_fwrite",
		"main._omp_fn.0":              "main._omp_fn.0",
		"_ZN4Conn4pollEv.actor":       "Conn::poll",
		"pool.destroy":                "pool.destroy",
		"foo.part":                    "foo.part",
		"counter.1":                   "counter.1",
		"_Znwm":                       "operator new",
		"_ZnamRKSt9nothrow_t":         "operator new[]",
		"_ZdlPvm":                     "operator delete",
		"_ZN4ConnC2ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE": "Conn::Conn",
		"_ZN4ConnD0Ev":    "Conn::~Conn",
		"_ZN4ConnaSERKS_": "Conn::operator=",
		"_ZTV4Conn":       "vtable for Conn",
		"_ZTI4Conn":       "typeinfo for Conn",
		"_ZTVNSt7__cxx1115basic_stringbufIcSt11char_traitsIcESaIcEEE": "vtable for std::stringbuf",
		"_ZNSt6vectorIiSaIiEE9push_backEOi":                           "std::vector<int>::push_back",
		"_ZNSt6vectorINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESaIS5_EE17_M_realloc_insertIJRKS5_EEEvN9__gnu_cxx17__normal_iteratorIPS5_S7_EEDpOT_": "std::vector<std::string>::_M_realloc_insert<std::string const&>",
		"_ZNSs6appendEPKc": "std::string::append",
		"_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_appendEPKcm": "std::string::_M_append",
		"_ZZ4mainENKUlvE_clEv":    "main::{lambda()#1}::operator()",
		"_ZN12_GLOBAL__N_13fooEv": "(anonymous namespace)::foo",
		"_ZSt4moveIRSt10unique_ptrI4ConnSt14default_deleteIS1_EEEONSt16remove_referenceIT_E4typeEOS6_": "std::move<std::unique_ptr<Conn>&>",
		"_ZThn8_N1D1fEv": "non-virtual thunk to D::f",
		"_ZN4core3ptr13drop_in_place17h0123456789abcdefE": "core::ptr::drop_in_place",
		"_RNvCs1234_7mycrate3foo":                         "mycrate::foo",
		"_Zinvalid":                                       "_Zinvalid",
		"_ZN4Conn4readEPcm.part.0":                        "Conn::read",
		"_ZNK3fmt2v96detail6bufferIcE4sizeB5cxx11Ev":      "fmt::v9::detail::buffer<char>::size",
	} {
		if got := readable(symbol); got != want {
			t.Errorf("readable(%s)\n got %s\nwant %s", symbol, got, want)
		}
	}
}

func TestTidy(t *testing.T) {
	long := "std::__sort<" + strings.Repeat("net::Conn, ", 30) + "int>::operator<"
	for name, want := range map[string]string{
		"foo":           "foo",
		"main.(*T).get": "main.(*T).get",
		"std::map<std::__cxx11::basic_string<char>, std::vector<int> >::at": "std::map<std::string, std::vector<int>>::at",
		long:                "std::__sort::operator<",
		"operator<< <char>": "operator<< <char>",
	} {
		if got := tidy(name); got != want {
			t.Errorf("tidy(%s)\n got %s\nwant %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"a<b<c>>::d<e>": "a::d", "operator->": "operator->", "operator<=><int>": "operator<=>", "x>": "x>"} {
		if got := bare(name); got != want {
			t.Errorf("bare(%s) = %s, want %s", name, got, want)
		}
	}
}
