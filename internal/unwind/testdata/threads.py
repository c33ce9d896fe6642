# Run by gdb, attached to a program: writes for each thread its id, its
# registers and the frames that gdb finds to descriptor 3, as stops.py does.
import os

import gdb

REGISTERS = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
answers = os.fdopen(3, "w")


def frames():
    frame = gdb.newest_frame()
    while frame is not None:
        kind = frame.type()
        if kind in (gdb.NORMAL_FRAME, gdb.SIGTRAMP_FRAME):
            yield "%x%s" % (frame.pc(), "!" if kind == gdb.SIGTRAMP_FRAME else "")
        frame = frame.older()


gdb.execute("set backtrace past-main on")
gdb.execute("set backtrace past-entry on")
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame = gdb.newest_frame()
    registers = ["%x" % (int(frame.read_register(name)) & (1 << 64) - 1) for name in REGISTERS]
    print(thread.ptid[1], " ".join(registers), *frames(), file=answers, flush=True)
