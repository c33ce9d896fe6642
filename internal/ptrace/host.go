package ptrace

import (
	"errors"
	"fmt"

	"stanch/internal/proc"
)

// host chooses the thread that makes a system call for us: one that can be
// moved without being noticed, and whose filters surely allow all calls of
// the stub. It returns the stub as well, assembled for that thread.
func (s *Stop) host(in *injection, more ...Syscall) (*thread, *program, error) {
	if s.stub == nil {
		at, err := choose(s.maps, s.mem, stubRoom)
		if err != nil {
			return nil, nil, err
		}
		s.stub = at
	}
	var refusal error
	for _, inside := range []bool{false, true} {
		for _, th := range s.threads {
			if th.state != stopped || th.busy || th.InSyscall != inside || s.prefer != 0 && s.prefer != th.TID {
				continue
			}
			prog, err := s.prepare(th, in, more)
			if err == nil {
				return th, prog, nil
			}
			if refusal == nil {
				refusal = err
			}
		}
	}
	if refusal == nil {
		refusal = fmt.Errorf("pid %d has no thread left: %w", s.target.ID.PID, proc.ErrGone)
	}
	return nil, nil, refusal
}

// prepare assembles the stub for th and checks that th can run it.
func (s *Stop) prepare(th *thread, in *injection, more []Syscall) (*program, error) {
	if err := s.movable(th); err != nil {
		return nil, err
	}
	mask, err := getMask(th.TID)
	if err != nil {
		return nil, s.lost(th, err)
	}
	th.mask = mask
	in.regs, in.mask, in.caught, in.pending = &th.restore, mask, s.outlook.status.SigCaught, true
	prog, err := in.assemble()
	if err != nil {
		return nil, err
	}
	if prog.sigs != 0 && s.allows(th, in.calls(prog, s.stub.entry(), sigpendingCalls)) != nil {
		in.pending = false
		if prog, err = in.assemble(); err != nil {
			return nil, err
		}
	}
	calls := in.calls(prog, s.stub.entry(), neededCalls)
	for i := range more {
		calls = append(calls, stubCall{more[i], uint64(s.stub.entry()) + uint64(prog.call)})
	}
	return prog, s.allows(th, calls)
}

// errUnmovable: a thread cannot run a stub at this moment. Another stop may
// find it elsewhere.
var errUnmovable = errors.New("no thread can make a system call for stanch just now")

// movable refuses a thread inside a restartable sequence, which the kernel
// would abort when the instruction pointer leaves it; one that entered the
// kernel by another way than the syscall instruction, since going back two
// bytes would be wrong; and one whose system calls are redirected.
//
// A thread in user code is preferred by host: a signal can find it anywhere,
// while one in a system call can tell whether the signal broke it off.
func (s *Stop) movable(th *thread) error {
	if redirectsSyscalls(th.TID) {
		return fmt.Errorf("thread %d redirects its system calls (as under Wine): %w: %w", th.TID, errUnmovable, proc.ErrUnsupported)
	}
	if th.InSyscall {
		return nil
	}
	if fromKernel(&th.Regs) {
		return fmt.Errorf("thread %d is at the start of a signal handler or made a system call in another way: %w", th.TID, errUnmovable)
	}
	// struct rseq: rseq_cs is at +8, zero outside of a critical section. Where
	// the kernel does not tell, any user code may be one.
	rseq, err := rseqOf(th.TID)
	if err == nil && rseq != 0 {
		var cs uint64
		if cs, err = word(s.mem, rseq+8); err == nil && cs != 0 {
			err = errUnmovable
		}
	}
	if err != nil {
		return fmt.Errorf("thread %d may be in a restartable sequence (%w): %w", th.TID, err, errUnmovable)
	}
	return nil
}

// place writes a stub into the target. The header, which says how to undo it,
// comes first.
func (s *Stop) place(p *program) error {
	if len(p.code) > stubRoom {
		return fmt.Errorf("stub of %d bytes is too long: %w", len(p.code), proc.ErrUnsupported)
	}
	if !s.placed {
		s.placed = true
		if err := s.write(s.stub.head(), s.stub.Start); err != nil {
			return fmt.Errorf("write a stub into %s: %w", s.stub.where, err)
		}
	}
	if err := s.write(p.code, s.stub.entry()); err != nil {
		return fmt.Errorf("write a stub into %s: %w", s.stub.where, err)
	}
	return nil
}

// stubRoom is the room for the code and data of any stub.
const stubRoom = 720

// removeStub puts back what was in the stub's place, the header last. While a
// thread is still in it, it stays: Clean removes it later.
func (s *Stop) removeStub() error {
	if !s.placed {
		return nil
	}
	if s.stranded {
		return nil
	}
	s.placed = false
	return s.erase(s.stub)
}

func (s *Stop) erase(at *site) error {
	if s.target.Check() != nil {
		return nil // nothing is left to restore
	}
	if err := s.write(at.filled(at.size-headerSize), at.entry()); err != nil {
		return fmt.Errorf("restore the padding of %s: %w", at.where, err)
	}
	if err := s.write(at.filled(headerSize), at.Start); err != nil {
		return fmt.Errorf("restore the padding of %s: %w", at.where, err)
	}
	return nil
}
