package detect

import (
	"strings"

	"stanch/internal/leak"
)

// allocators are functions that never are the place to look at: they are cut
// off the inner end of a stack.
var allocators = words(`
	malloc calloc realloc reallocarray free cfree memalign aligned_alloc posix_memalign valloc pvalloc
	strdup strndup wcsdup asprintf vasprintf
	__libc_malloc __libc_calloc __libc_realloc __libc_memalign __libc_valloc __libc_pvalloc __libc_reallocarray
	__GI___libc_malloc __GI___libc_calloc __GI___libc_realloc __posix_memalign
	__strdup __strndup __GI___strdup __GI___strndup __wcsdup __asprintf __vasprintf __asprintf_chk __vasprintf_chk ___asprintf
	__vasprintf_internal _int_malloc _int_realloc _int_memalign _mid_memalign malloc_hook_ini tcache_init ptmalloc_init
	mallocx rallocx xallocx je_malloc je_calloc je_realloc je_mallocx je_rallocx je_posix_memalign je_aligned_alloc
	je_malloc_default malloc_default imalloc imalloc_body ialloc fallback_impl newImpl
	tc_malloc tc_calloc tc_realloc tc_new tc_newarray tc_memalign mi_malloc mi_calloc mi_realloc mi_new
	__libc_free __GI___libc_free _int_free je_free je_sdallocx je_dallocx tc_free tc_delete tc_deletearray mi_free free_sized
	free_aligned_sized
	mmap mmap64 __mmap __mmap64 __GI___mmap mremap __mremap sbrk __sbrk __default_morecore brk __brk
	pthread_create __pthread_create __pthread_create_2_1 thrd_create
`)

// wrappers are functions whose callers are the place to look at. They stay in
// the stack.
var wrappers = words(`
	xmalloc xcalloc xrealloc xreallocarray xstrdup xstrndup xmemdup xzalloc xnmalloc xnrealloc xmallocarray x2realloc
	xasprintf xvasprintf xalloc_die_malloc xcharalloc ximalloc xizalloc
	safe_malloc safe_calloc safe_realloc safe_strdup checked_malloc checked_realloc emalloc ecalloc erealloc estrdup
	must_malloc must_calloc must_realloc must_strdup zmalloc zcalloc zrealloc zstrdup ztrymalloc ztrycalloc ztryrealloc
	zmalloc_usable zcalloc_usable zrealloc_usable ztrymalloc_usable ztrycalloc_usable ztryrealloc_usable
	ztrymalloc_usable_internal ztrycalloc_usable_internal ztryrealloc_usable_internal
	g_malloc g_malloc0 g_malloc_n g_malloc0_n g_realloc g_realloc_n g_try_malloc g_try_malloc0 g_try_malloc_n
	g_try_malloc0_n g_try_realloc g_try_realloc_n g_new g_new0 g_renew g_strdup g_strndup g_strdup_printf
	g_strdup_vprintf g_strconcat g_strjoin g_memdup g_memdup2 g_slice_alloc g_slice_alloc0 g_slice_copy g_aligned_alloc
	apr_palloc apr_pcalloc apr_pstrdup apr_pstrndup apr_pmemdup apr_allocator_alloc allocator_alloc
	ngx_alloc ngx_calloc ngx_palloc ngx_pnalloc ngx_pcalloc ngx_pmemalign ngx_memalign ngx_palloc_large ngx_palloc_small
	ngx_palloc_block ngx_slab_alloc
	PyMem_Malloc PyMem_Calloc PyMem_Realloc PyMem_RawMalloc PyMem_RawCalloc PyMem_RawRealloc PyObject_Malloc
	PyObject_Calloc PyObject_Realloc _PyMem_RawMalloc _PyMem_RawCalloc _PyMem_RawRealloc _PyObject_Malloc
	_PyObject_Calloc _PyObject_Realloc _PyMem_DebugRawAlloc _PyMem_DebugRawMalloc _PyMem_DebugMalloc
	talloc_named talloc_named_const _talloc _talloc_zero _talloc_array _talloc_zero_array _talloc_realloc
	_talloc_realloc_array _talloc_memdup talloc_strdup talloc_strndup talloc_asprintf talloc_vasprintf talloc_pool
	__talloc __talloc_with_prefix
	CRYPTO_malloc CRYPTO_zalloc CRYPTO_realloc CRYPTO_clear_realloc CRYPTO_strdup CRYPTO_strndup CRYPTO_memdup OPENSSL_malloc
	sqlite3_malloc sqlite3_malloc64 sqlite3_realloc sqlite3_realloc64 sqlite3Malloc sqlite3Realloc sqlite3MemMalloc
	sqlite3MemRealloc sqlite3DbMallocRaw sqlite3DbMallocRawNN sqlite3DbMallocZero sqlite3DbRealloc sqlite3DbStrDup
	uv_malloc uv__malloc uv__calloc uv__realloc uv__strdup event_mm_malloc_ event_mm_calloc_ event_mm_realloc_ event_mm_strdup_
	palloc palloc0 repalloc MemoryContextAlloc MemoryContextAllocZero AllocSetAlloc pg_malloc pg_malloc0 pg_realloc pg_strdup
	smalloc srealloc av_malloc av_mallocz av_calloc av_realloc av_strdup
	lua_newuserdata l_alloc luaM_realloc_ luaM_malloc_ kmalloc kzalloc pmalloc pcalloc
`)

// systemModules are files whose code is never the place to look at, by the
// beginning of their names.
var systemModules = []string{
	"libc.so", "libc-2.", "libc.musl-", "ld-linux", "ld-musl-", "ld-2.", "libpthread", "libstdc++.so", "libc++.so", "libc++abi.so",
	"libsupc++.so", "libgcc_s.so", "libjemalloc.so", "libtcmalloc", "libmimalloc", "libm.so", "libdl.so", "[vdso]",
}

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

// plain cuts a function's name down to what stays the same over compilers:
// no result type, parameters, template arguments, clone suffix, anonymous
// namespace.
// "void std::vector<int>::push_back(int&&)" becomes "std::vector::push_back".
func plain(function string) string {
	var out strings.Builder
	depth := 0
	for i := 0; i < len(function); i++ {
		c := function[i]
		switch {
		case depth == 0 && operatorAt(function, i):
			// What follows is the operator's name, whatever it holds.
			end := i + len("operator")
			for end < len(function) && (function[end] != '(' || strings.HasPrefix(function[end:], "()(")) {
				end++
			}
			out.WriteString(strings.TrimSuffix(function[i:end], " "))
			return lastWord(out.String(), i)
		case c == '<':
			depth++
		case c == '>' && depth > 0:
			depth--
		case depth > 0:
		case c == '(':
			if strings.HasPrefix(function[i:], "(anonymous namespace)::") {
				i += len("(anonymous namespace)::") - 1
				continue
			}
			// The receiver of a Go method: net.(*netFD).accept.
			if end := strings.IndexByte(function[i:], ')'); end > 0 && i > 0 && function[i-1] == '.' && strings.HasPrefix(function[i:], "(*") {
				out.WriteString(function[i : i+end+1])
				i += end
				continue
			}
			return unclone(lastWord(out.String(), -1))
		case c == '[' && strings.HasPrefix(function[i:], "[clone"), c == '@':
			return unclone(lastWord(out.String(), -1))
		default:
			out.WriteByte(c)
		}
	}
	return unclone(lastWord(out.String(), -1))
}

// operatorAt reports whether the word "operator" stands at i.
func operatorAt(s string, i int) bool {
	if !strings.HasPrefix(s[i:], "operator") || i > 0 && (isWord(s[i-1])) {
		return false
	}
	end := i + len("operator")
	return end == len(s) || !isWord(s[end])
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// lastWord drops what stands before the last space, which is the type of the
// result; only the first keep bytes are searched when it is not negative.
func lastWord(s string, keep int) string {
	s = strings.TrimRight(s, " ")
	head := s
	if keep >= 0 {
		head = s[:min(keep, len(s))]
	}
	if i := strings.LastIndexByte(head, ' '); i >= 0 {
		return s[i+1:]
	}
	return s
}

// unclone cuts the suffixes that compilers give to copies: f.part.0, f.isra.1,
// f.constprop.0, f.cold.
func unclone(s string) string {
	for _, suffix := range []string{".part.", ".isra.", ".constprop.", ".cold", ".lto_priv.", ".llvm.", ".localalias"} {
		if i := strings.Index(s, suffix); i > 0 {
			s = s[:i]
		}
	}
	return s
}

// libraryPrefixes are namespaces of the C++ library, whose templates live in
// the program's own file.
var libraryPrefixes = []string{"std::", "__gnu_cxx::", "__cxxabiv1::"}

// library reports whether a function belongs to the C++ library.
func library(plain string) bool {
	for _, p := range libraryPrefixes {
		if strings.HasPrefix(plain, p) {
			return true
		}
	}
	return false
}

// systemCalls are the functions of the C library that make or close descriptors
// and do nothing else.
var systemCalls = words(`
	open open64 openat openat64 openat2 creat creat64 socket socketpair accept accept4 pipe pipe2 dup dup2 dup3 fcntl fcntl64
	epoll_create epoll_create1 eventfd eventfd2 timerfd_create signalfd signalfd4 inotify_init inotify_init1 fanotify_init
	memfd_create pidfd_open pidfd_getfd io_uring_setup perf_event_open close close_range closefrom syscall fcntl64_nocancel
	open64_nocancel open_nocancel openat64_nocancel openat_nocancel close_nocancel libc_open libc_open64 libc_close libc_fcntl64
	GI___open64 GI___close GI___socket libc_accept libc_accept4 GI___pipe GI___pipe2 GI___dup`)

// systemCall reports whether a frame is such a function: the call's name and its
// caller say more.
func systemCall(f *leak.StackFrame) bool {
	return cLibrary(f.Module) && systemCalls[strings.TrimLeft(plain(f.Function), "_")]
}

// allocator reports whether a function does nothing but allocate.
func allocator(plain string) bool {
	if allocators[plain] || strings.HasPrefix(plain, "operator new") || strings.HasPrefix(plain, "operator delete") {
		return true
	}
	if !library(plain) {
		return false
	}
	for _, p := range []string{
		"std::allocator", "std::__new_allocator", "std::__allocate_", "std::__allocator", "std::pmr::",
		"__gnu_cxx::new_allocator", "__gnu_cxx::__alloc_traits", "__gnu_cxx::__pool", "__gnu_cxx::malloc_allocator",
	} {
		if strings.HasPrefix(plain, p) {
			return true
		}
	}
	return strings.HasSuffix(plain, "::_M_allocate") || strings.HasSuffix(plain, "::_M_get_node") ||
		strings.HasSuffix(plain, "::_M_allocate_node") || strings.HasSuffix(plain, "::_M_allocate_map")
}

func systemModule(module string) bool {
	for _, p := range systemModules {
		if strings.HasPrefix(module, p) {
			return true
		}
	}
	return false
}
