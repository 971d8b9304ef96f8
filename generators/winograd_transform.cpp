// One-dimensional transforms that share what they can (winograd_transform.h).
#include "winograd_transform.h"

#include <cmath>

namespace cryolite {
using Halide::Expr;

namespace {

Expr scaled(double factor, const Expr &x) { return factor == 1 ? x : factor == -1 ? -x : Expr(float(factor)) * x; }

// The dot product of coefficients and values; zeros cost nothing.
Expr dot(const std::vector<double> &row, const Exprs &in) {
    Expr sum;
    for (size_t i = 0; i < in.size(); i++) {
        if (row[i] == 0) continue;
        if (!sum.defined())
            sum = scaled(row[i], in[i]);
        else
            sum = row[i] == -1 ? sum - in[i] : sum + scaled(row[i], in[i]);
    }
    return sum.defined() ? sum : Expr(0.f);
}

// Rows a and b that differ in signs alone, as those of the points p and -p do.
bool mirrored(const std::vector<double> &a, const std::vector<double> &b) {
    bool equal = false, opposite = false;
    for (size_t i = 0; i < a.size(); i++) {
        if (std::fabs(a[i]) != std::fabs(b[i])) return false;
        (a[i] == b[i] ? equal : opposite) |= a[i] != 0;
    }
    return equal && opposite;
}

// matrix * in. Mirrored rows share their two halves.
Exprs transform_rows(const Matrix &matrix, const Exprs &in) {
    Exprs out;
    for (size_t i = 0; i < matrix.size(); i++) {
        if (i + 1 == matrix.size() || !mirrored(matrix[i], matrix[i + 1])) {
            out.push_back(dot(matrix[i], in));
            continue;
        }
        std::vector<double> same(in.size(), 0), turned(in.size(), 0);
        for (size_t j = 0; j < in.size(); j++) (matrix[i][j] == matrix[i + 1][j] ? same : turned)[j] = matrix[i][j];
        Expr a = dot(same, in), b = dot(turned, in);
        out.push_back(a + b);
        out.push_back(a - b);
        i++;
    }
    return out;
}

} // namespace

// Mirrored columns are added and subtracted first.
Exprs transform(Matrix matrix, Exprs in) {
    auto column = [&](size_t j) {
        std::vector<double> result;
        for (auto &row : matrix) result.push_back(row[j]);
        return result;
    };
    for (size_t j = 0; j + 1 < in.size(); j++) {
        if (matrix.size() > in.size() || !mirrored(column(j), column(j + 1))) continue;
        Expr sum = in[j] + in[j + 1], difference = in[j] - in[j + 1];
        in[j] = sum;
        in[j + 1] = difference;
        for (auto &row : matrix) {
            const double factor = row[j];
            const bool same = factor == row[j + 1];
            row[j] = same ? factor : 0;
            row[j + 1] = same ? 0 : factor;
        }
        j++;
    }
    return transform_rows(matrix, in);
}

} // namespace cryolite
