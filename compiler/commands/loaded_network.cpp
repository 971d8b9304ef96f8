// From the network to an open model; from a folder to a set of samples that fits.
#include "loaded_network.h"

#include "../../runtime/plan_format.h"
#include "../device_functions.h"
#include "../frontend.h"
#include "../op.h"

#include <algorithm>

namespace cryolite {

LoadedNetwork::LoadedNetwork(const Network &network, const CompileOptions &options, int threads)
    : compiled_(compile_with_progress(network, options)), loaded_(compiled_, device_functions()) {
    cryo_options open = {};
    open.threads = threads;
    if (cryo_open(loaded_.program(), &open, &model_) != CRYO_OK) throw Failure(cryo_open_error());
}

int64_t LoadedNetwork::min_train_batch() const { return loaded_.program()->train->min_batch; }

void LoadedNetwork::check(cryo_status status) const {
    if (status == CRYO_OK) return;
    std::string text = cryo_error(model_);
    throw Failure(text.empty() ? cryo_status_text(status) : text);
}

void LoadedNetwork::load(const std::string &path) const { check(cryo_load(model_, path.c_str())); }
void LoadedNetwork::save(const std::string &path) const { check(cryo_save(model_, path.c_str())); }

cryo_result LoadedNetwork::train_step(const float *images, const int32_t *labels, int64_t batch) const {
    cryo_result result = {};
    check(cryo_train_step(model_, images, labels, batch, &result));
    return result;
}

Score LoadedNetwork::evaluate(const Dataset &data) const {
    Tally tally;
    for (int64_t first = 0; first < data.count; first += max_batch()) {
        int64_t batch = std::min(max_batch(), data.count - first);
        cryo_result result = {};
        check(cryo_evaluate(model_, data.sample(first), &data.labels[size_t(first)], batch, &result));
        tally.add(result, batch);
    }
    return tally.score();
}

Dataset load_fitting_dataset(const Network &network, const std::string &folder, const std::string &split) {
    check_complete(network, false);
    Shape input, output;
    for (const Node &node : network.graph().nodes) {
        std::string op = node.op->name;
        if (op == "input") input = network.graph().shape(node.outputs[0]);
        if (op == "output" && node.attrs.string("name") == "output") output = network.graph().shape(node.inputs[0]);
    }
    Dataset data = load_dataset(folder, split, output[1]);
    Shape images{Shape::batch, data.channels, data.height, data.width};
    // A network over [n, c] takes the pixels of an image as they lie.
    bool fits = input.rank() == 4 ? input == images : input.elements() == images.elements();
    if (!fits)
        throw DataError("'" + folder + "': " + split + " images are " + images.text() + ", network '" + network.name() +
                        "' takes " + input.text());
    return data;
}

} // namespace cryolite
