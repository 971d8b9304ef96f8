// Learning curves of several trainings as one SVG: training loss on the left, accuracy on the right.
#ifndef CRYOLITE_CURVES_H
#define CRYOLITE_CURVES_H

#include <string>
#include <vector>

namespace cryolite {

struct Point {
    double x, y;
};
struct Curve {
    std::string label;
    std::vector<Point> train_loss, train_accuracy, test_accuracy; // against epochs
};

// Reads what `train --log` wrote. Its training loss and accuracy are means over the epoch so far; the curve has the
// means between two rows, so that it runs on smoothly where an epoch begins. The columns may stand in any order, others
// are passed over. Throws DataError (compiler/data/idx.h) that names path and line where a number is none or not
// finite, a column is missing or there is no row.
Curve read_curve(const std::string &label, const std::string &path);

// The whole file. Colours go by the order of the curves: dark blue, dark orange, light blue, light orange, and again.
std::string draw_curves(const std::string &title, const std::vector<Curve> &curves);

} // namespace cryolite
#endif
