/* The hooks' entries: what a patched function jumps to.
 *
 * A fast path uses rax, rcx, r10, r11 and no stack, and runs straight into the
 * trampoline: room for the displaced instructions of the function and a jump
 * to the rest of it, which stanch fills in. A slow path keeps a struct frame
 * on the stack and gives back every register as the original left it, since
 * compilers know which ones a function of their own file spares.
 *
 * Symbols that stanch looks up, for each function F:
 *   hook.F   where the jump goes
 *   slow.F   where it goes instead when F calls other hooked functions: it
 *            stays around the original and keeps theirs from counting
 *   tramp.F  the trampoline, TRAMPOLINE bytes
 *   ret.F    where the original returns to after slow.F called it
 */
#include "offsets.h"

#define TRAMPOLINE 64
/* 2^64 / golden ratio: spreads thread pointers, which differ in high bits. */
#define HASH 0x9e3779b97f4a7c15

	.text
	.set hooks, 0

/* rcx = this thread's slot, or go to 6. Its place is a hash of fs:0, or the
 * other one of the pair. */
.macro find_slot
	mov	%fs:0, %rax
	movabs	$HASH, %rcx
	imul	%rax, %rcx
	shr	$(64 - 12 - SLOT_SHIFT), %rcx
	and	$-(1 << SLOT_SHIFT), %ecx
	lea	near + NEAR_SLOT(%rip), %r11
	add	%r11, %rcx
	cmp	%rax, SLOT_OWNER(%rcx)
	jne	8f
9:
.endm

/* The other place of the pair; here because it is rarely needed. */
.macro find_slot_else
8:	xor	$(1 << SLOT_SHIFT), %rcx
	cmp	%rax, SLOT_OWNER(%rcx)
	je	9b
.endm

/* Counts a request of \size bytes; goes to 6 when its size is aimed at or
 * large, to 7 when it is to be sampled. One byte is added, so that requests
 * for nothing have a chance too. */
.macro count size
	lea	7(\size), %rax
	shr	$4, %rax
	cmp	$AIM_CLASSES, %rax
	jae	6f
	cmpb	$0, (NEAR_AIM - NEAR_SLOT)(%r11, %rax)
	jne	6f
	mov	\size, %rax
	not	%rax
	add	%rax, SLOT_COUNTER(%rcx)
	js	7f
	incq	SLOT_CALLS(%rcx)
.endm

/* Goes to 6 when the block at rdi may have a record. */
.macro test_filter
	mov	%rdi, %rax
	shr	$4, %rax
	and	near + STATE_FILTER_MASK(%rip), %rax
	lea	near + NEAR_FILTER(%rip), %r11
	cmpb	$0, (%r11, %rax)
	jne	6f
.endm

.macro begin sym
	.p2align 6
	.global	hook.\sym, slow.\sym, tramp.\sym, ret.\sym
	.set	id, hooks
	.set	hooks, hooks + 1
.endm

.macro trampoline sym
tramp.\sym:
	.fill	TRAMPOLINE, 1, 0xcc
.endm

/* The slow paths: 7 has counted, 6 has not, slow.F stays around. */
.macro reasons sym, class
7:	mov	$(id | \class << INFO_CLASS_SHIFT | INFO_COUNTED), %eax
	jmp	5f
slow.\sym:
	mov	$(id | \class << INFO_CLASS_SHIFT | INFO_FRAMED), %eax
	jmp	5f
	find_slot_else
6:	mov	$(id | \class << INFO_CLASS_SHIFT), %eax
5:	cmpl	$0, near + STATE_ON(%rip)
	je	tramp.\sym
	sub	$FRAME_SIZE, %rsp
	call	enter
.endm

.macro around sym
	je	4f
	call	tramp.\sym
ret.\sym:
	call	leave
	add	$FRAME_SIZE, %rsp
	ret
4:	add	$FRAME_SIZE, %rsp
	jmp	tramp.\sym
.endm

.macro hook_ALLOC sym
	begin	\sym
hook.\sym:
	find_slot
	count	%rdi
	trampoline \sym
	reasons	\sym, CLASS_ALLOC
	around	\sym
.endm

.macro hook_CALLOC sym
	begin	\sym
hook.\sym:
	mov	%rdi, %r10
	imul	%rsi, %r10
	jo	tramp.\sym
	find_slot
	count	%r10
	trampoline \sym
	reasons	\sym, CLASS_CALLOC
	around	\sym
.endm

.macro hook_REALLOC sym
	begin	\sym
hook.\sym:
	test	%rdi, %rdi
	je	slow.\sym
	test_filter
	find_slot
	count	%rsi
	trampoline \sym
	reasons	\sym, CLASS_REALLOC
	around	\sym
.endm

/* Rare functions have no fast path. */
.macro hook_slowly sym, class
	begin	\sym
	.set	hook.\sym, slow.\sym
slow.\sym:
	mov	$(id | \class << INFO_CLASS_SHIFT | INFO_FRAMED), %eax
	cmpl	$0, near + STATE_ON(%rip)
	je	tramp.\sym
	sub	$FRAME_SIZE, %rsp
	call	enter
	around	\sym
	trampoline \sym
.endm

.macro hook_ALIGN sym
	hook_slowly \sym, CLASS_ALIGN
.endm

.macro hook_POSIX sym
	hook_slowly \sym, CLASS_POSIX
.endm

.macro hook_REALLOCN sym
	hook_slowly \sym, CLASS_REALLOCN
.endm

.macro hook_MMAP sym
	hook_slowly \sym, CLASS_MMAP
.endm

.macro hook_MUNMAP sym
	hook_slowly \sym, CLASS_MUNMAP
.endm

.macro hook_MREMAP sym
	hook_slowly \sym, CLASS_MREMAP
.endm

.macro hook_BRK sym
	hook_slowly \sym, CLASS_BRK
.endm

.macro hook_SBRK sym
	hook_slowly \sym, CLASS_SBRK
.endm

.macro hook_THREAD sym
	hook_slowly \sym, CLASS_THREAD
.endm

/* Only told of: the original may wait, and be cancelled. */
.macro hook_JOIN sym
	hook_slowly \sym, CLASS_JOIN
.endm

/* A function of whose arguments only some are known: eight words of the caller's
 * stack are there for it again, where INFO_WORDS says that they can be read. */
	.set	pools, 0
.macro hook_POOL sym
	begin	\sym
	.set	hook.\sym, slow.\sym
slow.\sym:
	cmpl	$0, near + STATE_ON(%rip)
	je	tramp.\sym
	sub	$FRAME_SIZE, %rsp
	mov	%rax, FRAME_RAX(%rsp)
	mov	$(id | CLASS_POOL << INFO_CLASS_SHIFT | pools << INFO_POOL_SHIFT), %eax
	.set	pools, pools + 1
	call	enter
	mov	FRAME_RAX(%rsp), %rax
	je	4f
	testl	$INFO_WORDS, FRAME_INFO(%rsp)
	je	3f
	.rept	8
	push	FRAME_SIZE + 64(%rsp)
	.endr
	call	tramp.\sym
words.\sym:
	add	$64, %rsp
	jmp	2f
3:	call	tramp.\sym
ret.\sym:
2:	call	leave
	add	$FRAME_SIZE, %rsp
	ret
4:	add	$FRAME_SIZE, %rsp
	jmp	tramp.\sym
	trampoline \sym
.endm

/* System calls of libc, wherever they stand: stanch writes a stub for each, which
 * calls site, executes what it displaced and jumps back. Nothing stays on the
 * stack while the call waits, and nothing is between it and its function: a
 * thread is cancelled, and its stack unwound, as ever. */
.macro hook_SITE sym
	.p2align 6
	.global	hook.\sym, slow.\sym, tramp.\sym, ret.\sym
	.set	hooks, hooks + 1
	.set	hook.\sym, site
	.set	slow.\sym, site
	.set	ret.\sym, site
tramp.\sym:
	.fill	SITES * STUB, 1, 0xcc
.endm

/* A release is noted before the original runs, and never looked at after. */
.macro hook_FREE sym
	begin	\sym
hook.\sym:
	test_filter
	trampoline \sym
slow.\sym:
6:	cmpl	$0, near + STATE_ON(%rip)
	je	tramp.\sym
	mov	$(id | CLASS_FREE << INFO_CLASS_SHIFT), %eax
	sub	$FRAME_SIZE, %rsp
	call	enter
	add	$FRAME_SIZE, %rsp
	jmp	tramp.\sym
	.set	ret.\sym, tramp.\sym
.endm

/* operator new throws, and an exception cannot pass our frame: the slow path
 * calls the form that returns null instead, and leaves a failure to the
 * original. The reference to std::nothrow is not used by it; any address
 * serves, in the register behind size and alignment. */
.macro hook_NEW sym, nothrow
	begin	\sym
hook.\sym:
	find_slot
	count	%rdi
	trampoline \sym
	reasons	\sym, CLASS_NEW
	je	4f
	lea	near(%rip), %rdx
	.ifc	\nothrow, _ZnwmRKSt9nothrow_t
	mov	%rdx, %rsi
	.endif
	.ifc	\nothrow, _ZnamRKSt9nothrow_t
	mov	%rdx, %rsi
	.endif
	call	tramp.\nothrow
ret.\sym:
	call	leave
	test	%rax, %rax
	je	3f
	add	$FRAME_SIZE, %rsp
	ret
3:	mov	FRAME_RDI(%rsp), %rdi
	mov	FRAME_RSI(%rsp), %rsi
	mov	FRAME_RDX(%rsp), %rdx
4:	add	$FRAME_SIZE, %rsp
	jmp	tramp.\sym
.endm

#define HOOK(kind, sym) hook_##kind sym
#define NEW(sym, nothrow) hook_NEW sym, nothrow
#include "hooks.def"

/* eax is info, the struct frame begins above our return address. Returns with
 * ZF set when the original is to be tail-called. */
	.p2align 4
enter:
	mov	%rdi, 8 + FRAME_RDI(%rsp)
	mov	%rsi, 8 + FRAME_RSI(%rsp)
	mov	%rdx, 8 + FRAME_RDX(%rsp)
	mov	%rcx, 8 + FRAME_RCX(%rsp)
	mov	%r8, 8 + FRAME_R8(%rsp)
	mov	%r9, 8 + FRAME_R9(%rsp)
	mov	%r10, 8 + FRAME_R10(%rsp)
	mov	%r11, 8 + FRAME_R11(%rsp)
	mov	%rbp, 8 + FRAME_RBP(%rsp)
	mov	%eax, 8 + FRAME_INFO(%rsp)
	lea	8(%rsp), %rdi
	call	probe_enter
	mov	8 + FRAME_RDI(%rsp), %rdi
	mov	8 + FRAME_RSI(%rsp), %rsi
	mov	8 + FRAME_RDX(%rsp), %rdx
	mov	8 + FRAME_RCX(%rsp), %rcx
	mov	8 + FRAME_R8(%rsp), %r8
	mov	8 + FRAME_R9(%rsp), %r9
	mov	8 + FRAME_R10(%rsp), %r10
	mov	8 + FRAME_R11(%rsp), %r11
	test	%eax, %eax
	ret

/* rax is what the original returned. While it ran, the hooks may have been
 * switched off, and the books be gone: look before touching anything. */
	.p2align 4
leave:
	mov	%rax, 8 + FRAME_RESULT(%rsp)
	cmpl	$0, near + STATE_ON(%rip)
	je	1f
	push	%rdi
	push	%rsi
	push	%rdx
	push	%rcx
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	lea	72(%rsp), %rdi
	call	probe_leave
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rcx
	pop	%rdx
	pop	%rsi
	pop	%rdi
1:	mov	8 + FRAME_RESULT(%rsp), %rax
	ret

/* Above our return address is what the stub pushed. Every register comes back as
 * it was. */
	.p2align 4
site:
	cmpl	$0, near + STATE_ON(%rip)
	je	1f
	testl	$SITE_READ, 8(%rsp)
	je	5f
	test	%rax, %rax
	jle	1f
	push	%r11
	push	%rcx
	push	%rax
	find_slot
	lea	1(%rdi), %eax
	mov	%eax, SLOT_INPUT(%rcx)
	pop	%rax
	pop	%rcx
	pop	%r11
1:	ret
	find_slot_else
	pop	%rax
	pop	%rcx
	pop	%r11
5:	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%rbp
	mov	%rsp, %rdi
	call	probe_site
	pop	%rbp
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	ret

	.section .note.GNU-stack, "", @progbits
