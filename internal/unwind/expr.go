package unwind

import "errors"

// Operations of DWARF expressions, DWARF 5 section 7.7.1: those that assembler
// code is known to describe its frames with, and their plain neighbours.
const (
	opDeref      = 0x06
	opConst1U    = 0x08
	opConst1S    = 0x09
	opConst2U    = 0x0a
	opConst2S    = 0x0b
	opConst4U    = 0x0c
	opConst4S    = 0x0d
	opConst8U    = 0x0e
	opConst8S    = 0x0f
	opConstU     = 0x10
	opConstS     = 0x11
	opDup        = 0x12
	opDrop       = 0x13
	opOver       = 0x14
	opSwap       = 0x16
	opAnd        = 0x1a
	opMinus      = 0x1c
	opMul        = 0x1e
	opNeg        = 0x1f
	opNot        = 0x20
	opOr         = 0x21
	opPlus       = 0x22
	opPlusUConst = 0x23
	opShl        = 0x24
	opShr        = 0x25
	opShra       = 0x26
	opXor        = 0x27
	opEQ         = 0x29
	opGE         = 0x2a
	opGT         = 0x2b
	opLE         = 0x2c
	opLT         = 0x2d
	opNE         = 0x2e
	opLit0       = 0x30
	opBReg0      = 0x70
	opBRegX      = 0x92
	opNop        = 0x96
)

// exprDepth bounds the stack of an expression; real ones need three.
const exprDepth = 64

var errExpression = errors.New("expression cannot be evaluated")

// evaluate computes an expression over the registers and memory of a frame.
// There are no loops in it: branches are not among the operations.
func evaluate(expr string, regs *set, w *window, stack []uint64) (uint64, error) {
	c := cursor{b: []byte(expr)}
	for c.at < len(c.b) {
		if len(stack) == exprDepth {
			return 0, errExpression
		}
		op := c.u8()
		if v, ok := literal(&c, op, regs); ok {
			stack = append(stack, v)
			continue
		}
		n := len(stack)
		switch {
		case c.bad || n < 1:
			return 0, errExpression
		case unary(&c, op, &stack[n-1], w):
		case op == opNop:
		case op == opDup:
			stack = append(stack, stack[n-1])
		case op == opDrop:
			stack = stack[:n-1]
		case n < 2:
			return 0, errExpression
		case op == opOver:
			stack = append(stack, stack[n-2])
		case op == opSwap:
			stack[n-1], stack[n-2] = stack[n-2], stack[n-1]
		default:
			v, ok := binary2(op, stack[n-2], stack[n-1])
			if !ok {
				return 0, errExpression
			}
			stack = append(stack[:n-2], v)
		}
	}
	if c.bad || len(stack) == 0 {
		return 0, errExpression
	}
	return stack[len(stack)-1], nil
}

// literal gives what an operation without operands on the stack pushes.
func literal(c *cursor, op uint8, regs *set) (uint64, bool) {
	switch {
	case op >= opLit0 && op < opLit0+32:
		return uint64(op - opLit0), true
	case op >= opBReg0 && op < opBReg0+32:
		return register(c, uint64(op-opBReg0), regs)
	case op == opBRegX:
		return register(c, c.uleb(), regs)
	}
	switch op {
	case opConst1U:
		return uint64(c.u8()), true
	case opConst1S:
		return uint64(int8(c.u8())), true
	case opConst2U:
		return uint64(c.u16()), true
	case opConst2S:
		return uint64(int16(c.u16())), true
	case opConst4U:
		return uint64(c.u32()), true
	case opConst4S:
		return uint64(int32(c.u32())), true
	case opConst8U, opConst8S:
		return c.u64(), true
	case opConstU:
		return c.uleb(), true
	case opConstS:
		return uint64(c.sleb()), true
	}
	return 0, false
}

func register(c *cursor, reg uint64, regs *set) (uint64, bool) {
	off := c.sleb()
	if reg >= regCount || !regs.has(uint8(reg)) {
		c.bad = true
		return 0, false
	}
	return regs.r[reg] + uint64(off), true
}

// unary executes an operation on the top of the stack.
func unary(c *cursor, op uint8, top *uint64, w *window) bool {
	switch op {
	case opDeref:
		v, ok := w.word(*top)
		if !ok {
			c.bad = true
		}
		*top = v
	case opPlusUConst:
		*top += c.uleb()
	case opNeg:
		*top = -*top
	case opNot:
		*top = ^*top
	default:
		return false
	}
	return true
}

func binary2(op uint8, a, b uint64) (uint64, bool) {
	truth := func(t bool) (uint64, bool) {
		if t {
			return 1, true
		}
		return 0, true
	}
	switch op {
	case opAnd:
		return a & b, true
	case opMinus:
		return a - b, true
	case opMul:
		return a * b, true
	case opOr:
		return a | b, true
	case opPlus:
		return a + b, true
	case opShl:
		return a << b, true
	case opShr:
		return a >> b, true
	case opShra:
		return uint64(int64(a) >> b), true
	case opXor:
		return a ^ b, true
	case opEQ:
		return truth(a == b)
	case opGE:
		return truth(int64(a) >= int64(b))
	case opGT:
		return truth(int64(a) > int64(b))
	case opLE:
		return truth(int64(a) <= int64(b))
	case opLT:
		return truth(int64(a) < int64(b))
	case opNE:
		return truth(a != b)
	}
	return 0, false
}
