# Run by gdb: lets a program go on to random places and, at each stop, writes the
# registers and the frames that gdb finds to descriptor 3. It goes on when it can
# read a line from descriptor 4; meanwhile the test looks at the stopped program
# itself. FROM is where to begin, PLACES names functions that a stop is near.
import os
import random

import gdb

REGISTERS = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
random.seed(1)
answers = os.fdopen(3, "w")
asks = os.fdopen(4)


def frames():
    frame = gdb.newest_frame()
    while frame is not None:
        kind = frame.type()
        if kind in (gdb.NORMAL_FRAME, gdb.SIGTRAMP_FRAME):
            yield "%x%s" % (frame.pc(), "!" if kind == gdb.SIGTRAMP_FRAME else "")
        frame = frame.older()


gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("set backtrace past-main on")
gdb.execute("set backtrace past-entry on")
gdb.execute("break " + os.environ["FROM"], to_string=True)
gdb.execute("run > /dev/null", to_string=True)
gdb.execute("delete")
places = os.environ["PLACES"].split()
for line in asks:
    # A step that meets a signal would run to the end of the handler, which may
    # not come back to the same place.
    gdb.execute("handle SIGUSR1 SIGUSR2 SIGILL %s pass" % ("nostop noprint" if places else "stop"), to_string=True)
    if places:
        place = gdb.Breakpoint(random.choice(places), temporary=True)
        place.ignore_count = random.randint(0, 40)
        gdb.execute("continue", to_string=True)
        gdb.execute("handle SIGUSR1 SIGUSR2 SIGILL stop pass", to_string=True)
    gdb.execute("stepi %d" % random.randint(1, int(line)), to_string=True)
    frame = gdb.newest_frame()
    registers = ["%x" % (int(frame.read_register(name)) & (1 << 64) - 1) for name in REGISTERS]
    print(gdb.selected_inferior().pid, " ".join(registers), *frames(), file=answers, flush=True)
gdb.execute("kill")
