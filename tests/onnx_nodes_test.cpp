// ONNX's own node tests of the ops that we have (fixtures/make_onnx_nodes.py): the float64 reference and the kernels of
// every target give ONNX's numbers, to 1e-5 where ONNX asks for 1e-3. What is skipped is printed with its reason.
#include "graph_fixture.h"
#include "run_kernels.h"

#include <cmath>
#include <cstdio>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;
using Json = nlohmann::json;

namespace {

constexpr double usual = 1e-5, absolute = 1e-7;
const char *const reference = "float64";

// The first element that is wrong; empty: none.
std::string compare(const std::vector<double> &ours, const std::vector<double> &expected, double relative) {
    if (ours.size() != expected.size())
        return std::to_string(ours.size()) + " elements, not " + std::to_string(expected.size());
    for (size_t i = 0; i < ours.size(); i++) {
        if (std::isnan(ours[i]) && std::isnan(expected[i])) continue;
        if (ours[i] == expected[i] || std::fabs(ours[i] - expected[i]) <= absolute + relative * std::fabs(expected[i]))
            continue;
        return "[" + std::to_string(i) + "] is " + std::to_string(ours[i]) + ", not " + std::to_string(expected[i]);
    }
    return {};
}

class OnnxNodes : public testing::TestWithParam<std::string> {
protected:
    void check(const Json &c) {
        GraphFixture fixture(c);
        Interpreted result = GetParam() == reference
                                 ? interpret(fixture.graph, fixture.inputs)
                                 : KernelGraph(fixture.graph, {.target = GetParam()}).run(fixture.inputs);
        std::vector<std::vector<double>> ours = fixture.results(result);
        for (size_t i = 0; i < ours.size(); i++)
            EXPECT_EQ(compare(ours[i], read_numbers(c.at("expected").at(i)), c.value("relative", usual)), "")
                << "output " << i;
    }
};

struct Row {
    int cases = 0, passed = 0;
    std::map<std::string, int> skips, notes;
};

TEST_P(OnnxNodes, GiveOnnxsNumbers) {
    const Json nodes = load_json("onnx_nodes.json.gz");
    std::map<std::string, Row> rows;
    int cases = 0, passed = 0;
    for (const Json &c : nodes.at("cases")) {
        Row &row = rows[c.at("op")];
        row.cases++;
        cases++;
        if (c.contains("skip")) {
            row.skips[c.at("skip")]++;
            continue;
        }
        SCOPED_TRACE(c.at("name").get<std::string>());
        int failures = testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
        EXPECT_NO_THROW(check(c));
        if (testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() > failures) continue;
        if (c.contains("note")) row.notes[c.at("note")]++;
        row.passed++;
        passed++;
    }
    std::printf("ONNX %s, %s\n%-26s %s\n", nodes.at("onnx").get<std::string>().c_str(), GetParam().c_str(), "op",
                "passed");
    for (const auto &[op, row] : rows) {
        std::string rest;
        for (const auto &[note, count] : row.notes) rest += "; " + std::to_string(count) + " " + note;
        for (const auto &[reason, count] : row.skips) rest += "; skipped " + std::to_string(count) + ": " + reason;
        std::printf("%-26s %3d of %3d%s\n", op.c_str(), row.passed, row.cases, rest.c_str());
    }
    std::printf("%-26s %3d of %3d\n", "all", passed, cases);
    std::printf("not here: %d cases of %d other ops, %d cases written out in other ops\n",
                nodes.at("other_cases").get<int>(), nodes.at("other_ops").get<int>(), nodes.at("expanded").get<int>());
    EXPECT_GT(passed, 200);
}

// By the attribute alone, not by the number of outputs.
TEST(BatchNormTraps, T11_OnnxsTrainingModeIsHonoured) {
    std::map<std::string, int> modes;
    const Json nodes = load_json("onnx_nodes.json.gz");
    for (Json c : nodes.at("cases")) {
        if (c.at("op") != "BatchNormalization" || c.contains("skip")) continue;
        SCOPED_TRACE(c.at("name").get<std::string>());
        modes[c.at("mode")]++;
        auto first_output = [&] {
            GraphFixture fixture(c);
            return compare(fixture.results(interpret(fixture.graph, fixture.inputs)).at(0),
                           read_numbers(c.at("expected").at(0)), c.value("relative", usual));
        };
        EXPECT_EQ(first_output(), "");
        if (c.at("mode") == "train") continue;
        c["mode"] = "train";
        EXPECT_NE(first_output(), "") << "the mode changes nothing";
    }
    EXPECT_EQ(modes, (std::map<std::string, int>{{"evaluate", 2}, {"train", 2}}));
}

std::vector<std::string> programs() {
    std::vector<std::string> names = kernel_targets();
    names.insert(names.begin(), reference);
    return names;
}
INSTANTIATE_TEST_SUITE_P(Programs, OnnxNodes, testing::ValuesIn(programs()), [](const auto &info) {
    return info.param == reference ? "reference" : short_target(info.param);
});

} // namespace
