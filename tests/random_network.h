// Small valid networks at random: a genome is a list of genes, each grows one piece of network. Every sublist of a
// genome is a valid one, too, so a network that fails shrinks gene by gene.
#ifndef CRYOLITE_TESTS_RANDOM_NETWORK_H
#define CRYOLITE_TESTS_RANDOM_NETWORK_H

#include "cryolite.h"

#include <functional>
#include <memory>
#include <vector>

namespace cryolite::test {

struct Gene {
    uint32_t kind, a, b;
};
struct Genome {
    uint32_t input = 0; // chooses the shape of the images
    std::vector<Gene> genes;
};

// The same everywhere for one seed.
Genome random_genome(uint64_t seed);

// The network: input, one piece a gene, flatten, linear, classify.
std::unique_ptr<Network> grow(const Genome &genome);

// Drops genes, and makes the images smaller, as long as it still fails.
Genome shrink(Genome genome, const std::function<bool(const Genome &)> &fails);

} // namespace cryolite::test
#endif
