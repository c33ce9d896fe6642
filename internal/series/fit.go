package series

import "math"

// Fit is a least squares fit of values by a sum of columns.
type Fit struct {
	Coefficients []float64
	Errors       []float64 // standard errors, for independent noise
	Residuals    []float64
	Squares      float64 // sum of the squared residuals
}

// FitColumns fits y by columns, each as long as y. ok is false when there are
// too few values, or when a column can be made of the others.
func FitColumns(y []float64, columns ...[]float64) (f Fit, ok bool) {
	n, k := len(y), len(columns)
	if n <= k {
		return Fit{}, false
	}
	// Columns are brought to one size, so that what is nearly zero is known.
	scale := make([]float64, k)
	for a, c := range columns {
		for _, v := range c {
			scale[a] += v * v
		}
		if scale[a] = math.Sqrt(scale[a]); scale[a] == 0 {
			return Fit{}, false
		}
	}
	m := make([][]float64, k)
	for a := range m {
		m[a] = make([]float64, 2*k+1) // the matrix, the right side, the unit matrix
		for b := range columns {
			for i := range y {
				m[a][b] += columns[a][i] / scale[a] * columns[b][i] / scale[b]
			}
		}
		for i := range y {
			m[a][k] += columns[a][i] / scale[a] * y[i]
		}
		m[a][k+1+a] = 1
	}
	if !eliminate(m) {
		return Fit{}, false
	}
	f = Fit{Coefficients: make([]float64, k), Errors: make([]float64, k), Residuals: make([]float64, n)}
	for a := range m {
		f.Coefficients[a] = m[a][k] / scale[a]
	}
	for i := range y {
		f.Residuals[i] = y[i]
		for a := range columns {
			f.Residuals[i] -= f.Coefficients[a] * columns[a][i]
		}
		f.Squares += f.Residuals[i] * f.Residuals[i]
	}
	variance := f.Squares / float64(n-k)
	for a := range m {
		f.Errors[a] = math.Sqrt(max(0, variance*m[a][k+1+a])) / scale[a]
	}
	return f, true
}

// eliminate makes the left part of m the unit matrix, by Gauss and Jordan.
func eliminate(m [][]float64) bool {
	for a := range m {
		pivot := a
		for b := a + 1; b < len(m); b++ {
			if math.Abs(m[b][a]) > math.Abs(m[pivot][a]) {
				pivot = b
			}
		}
		if math.Abs(m[pivot][a]) < 1e-10 {
			return false
		}
		m[a], m[pivot] = m[pivot], m[a]
		lead := m[a][a]
		for c := range m[a] {
			m[a][c] /= lead
		}
		for b := range m {
			if b == a || m[b][a] == 0 {
				continue
			}
			f := m[b][a]
			for c := range m[b] {
				m[b][c] -= f * m[a][c]
			}
		}
	}
	return true
}
