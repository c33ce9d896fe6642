package term

import (
	"math"

	"stanch/internal/ui/chart"
)

// glyphs are the characters that charts are made of.
type glyphs struct {
	dotsX, dotsY int // dots in a character, each way
	dots         func(bits uint8) rune
	wall, tick   rune // the axis of values, and where a number stands
	corner       rune
	floor, notch rune // the axis of times, and where a time stands
	limit        rune
	restart, gap rune
}

// brailleDots are the bits of the dots of a braille character, from the top
// left (Unicode 16, 2800-28FF).
var brailleDots = [2][4]uint8{{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}

var unicodeGlyphs = glyphs{
	dotsX: 2, dotsY: 4, dots: func(bits uint8) rune { return 0x2800 + rune(bits) },
	wall: '│', tick: '┤', corner: '└', floor: '─', notch: '┬', limit: '╌', restart: '┊', gap: '░',
}

var asciiGlyphs = glyphs{
	dotsX: 1, dotsY: 1, dots: func(uint8) rune { return '*' },
	wall: '|', tick: '+', corner: '+', floor: '-', notch: '+', limit: '=', restart: ':', gap: '.',
}

func (g *glyphs) axis(number bool) string {
	if number {
		return string(g.tick)
	}
	return string(g.wall)
}

// cell is a character of a plot.
type cell struct {
	r     rune
	style style
}

// canvas is a plot: dots for the lines, above characters for all else. It is
// our own: the libraries at hand draw a line, but neither gaps nor limits nor
// times below an axis that several plots share.
type canvas struct {
	width, height int // characters
	g             *glyphs
	dots          []uint8
	back          []cell
}

func newCanvas(width, height int, g *glyphs) *canvas {
	return &canvas{width: width, height: height, g: g, dots: make([]uint8, width*height), back: make([]cell, width*height)}
}

// put writes a character behind the dots.
func (c *canvas) put(x, row int, r rune, st style) {
	if x >= 0 && x < c.width && row >= 0 && row < c.height {
		c.back[row*c.width+x] = cell{r, st}
	}
}

// dotY is the dot of a value, counted from the top.
func (c *canvas) dotY(a chart.Axis, v float64) int {
	n := c.height*c.g.dotsY - 1
	y := n - int(math.Round((v-a.Low)/(a.High-a.Low)*float64(n)))
	return max(0, min(y, n))
}

// row is the line of a value, counted from the top.
func (c *canvas) row(a chart.Axis, v float64) int { return c.dotY(a, v) / c.g.dotsY }

func (c *canvas) dot(x, y int) {
	bits := uint8(1)
	if c.g.dotsY == 4 {
		bits = brailleDots[x%2][y%4]
	}
	c.dots[y/c.g.dotsY*c.width+x/c.g.dotsX] |= bits
}

// line draws from one dot to another (Bresenham).
func (c *canvas) line(x0, y0, x1, y1 int) {
	dx, dy := abs(x1-x0), -abs(y1-y0)
	sx, sy := sign(x1-x0), sign(y1-y0)
	for e := dx + dy; ; {
		c.dot(x0, y0)
		if x0 == x1 && y0 == y1 {
			return
		}
		twice := 2 * e
		if twice >= dy {
			e += dy
			x0 += sx
		}
		if twice <= dx {
			e += dx
			y0 += sy
		}
	}
}

func abs(n int) int { return max(n, -n) }

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// rows gives the characters, line by line.
func (c *canvas) rows() [][]cell {
	out := make([][]cell, c.height)
	for row := range out {
		cells := c.back[row*c.width : (row+1)*c.width]
		for x := range cells {
			switch bits := c.dots[row*c.width+x]; {
			case bits != 0:
				cells[x] = cell{c.g.dots(bits), lineStyle}
			case cells[x].r == 0:
				cells[x].r = ' '
			}
		}
		out[row] = cells
	}
	return out
}
