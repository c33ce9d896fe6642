package accuracy

import (
	"gonum.org/v1/gonum/stat/distuv"

	"stanch/internal/series"
)

// predictMore is how much more than now predict_linear must foretell for an
// alarm. Rules in the field ask whether a limit will be passed; traces have no
// limit, so a fifth more after one more window stands for it.
const predictMore = 0.2

// predictLinear is predict_linear(x[window], window) > 1.2 * x: the least
// squares line through all points, one window further.
func predictLinear(ps []series.Point) bool {
	x, y := values(ps)
	if len(x) < 3 {
		return false
	}
	l := series.LeastSquares(x, y)
	end := x[len(x)-1]
	return l.Intercept+l.Slope*2*end > (1+predictMore)*y[len(y)-1]
}

// regression is a least squares line whose slope is above zero with p < 0.01,
// as if the points were independent.
func regression(ps []series.Point) bool {
	x, y := values(ps)
	if len(x) < 4 {
		return false
	}
	l := series.LeastSquares(x, y)
	if l.Slope <= 0 {
		return false
	}
	return l.Error == 0 || distuv.StudentsT{Sigma: 1, Nu: float64(len(x) - 2)}.Survival(l.Slope/l.Error) < 0.005
}
