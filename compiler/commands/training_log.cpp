// Numbers with as many digits as a picture or a comparison needs.
#include "training_log.h"

#include "../data/whole_file.h"

#include <fmt/format.h>

namespace cryolite {

TrainingLog::TrainingLog(std::string path)
    : path_(std::move(path)),
      text_("epoch,step,train_loss,train_accuracy,test_loss,test_accuracy,images_per_second,seconds\n") {}

void TrainingLog::add(const LogRow &row) {
    std::string test = row.test ? fmt::format("{:.6f},{:.6f}", row.test->loss, row.test->accuracy) : ",";
    text_ += fmt::format("{:.4f},{},{:.6f},{:.6f},{},{:.0f},{:.3f}\n", row.epoch, row.step, row.train.loss,
                         row.train.accuracy, test, row.images_per_second, row.seconds);
}

void TrainingLog::write() const {
    if (!path_.empty()) write_whole_file(path_, text_);
}

} // namespace cryolite
