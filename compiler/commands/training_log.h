// The curve of a training as CSV: ten rows an epoch.
#ifndef CRYOLITE_TRAINING_LOG_H
#define CRYOLITE_TRAINING_LOG_H

#include "loaded_network.h"

#include <optional>
#include <string>

namespace cryolite {

struct LogRow {
    double epoch; // passes over the training set so far, 0.1 to the number of epochs; over the model's life
    int64_t step; // train steps over the model's life
    Score train;  // mean over the current epoch so far, of each batch before its step
    std::optional<Score> test; // at the end of an epoch
    double images_per_second;  // of training alone, in the current epoch so far
    double seconds;            // since the training began, tests included
};

// epoch,step,train_loss,train_accuracy,test_loss,test_accuracy,images_per_second,seconds
// Rows within an epoch leave the test columns empty. The file is written anew at the end of every epoch, whole.
class TrainingLog {
public:
    explicit TrainingLog(std::string path); // "": none
    void add(const LogRow &row);
    void write() const;

private:
    std::string path_, text_;
};

} // namespace cryolite
#endif
