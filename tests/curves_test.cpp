// Logs are read strictly; the picture is well-formed and shows what it was given.
#include "compiler/data/idx.h"
#include "compiler/data/whole_file.h"
#include "tests/svg_check.h"
#include "tools/curves.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <regex>

using namespace cryolite;
namespace fs = std::filesystem;

namespace {

constexpr char header[] = "epoch,step,train_loss,train_accuracy,test_loss,test_accuracy,images_per_second,seconds\n";

class Curves : public testing::Test {
protected:
    void SetUp() override {
        path = (fs::temp_directory_path() / ("curves_test_" + std::to_string(getpid()) + ".csv")).string();
    }
    void TearDown() override { fs::remove(path); }
    Curve read(const std::string &text) const {
        write_whole_file(path, text);
        return read_curve("a", path);
    }
    std::string error_of(const std::string &text) const {
        try {
            read(text);
            return {};
        } catch (const DataError &error) { return error.what(); }
    }
    std::string path;
};

TEST_F(Curves, ReadsLogs) {
    Curve curve = read(std::string(header) + "0.5,10,2.0,0.25,,,50000,1\n1,20,1.5,0.5,1.25,0.625,50000,2\n"
                                             "1.25,25,0.75,0.5,,,50000,3\n");
    ASSERT_EQ(curve.train_loss.size(), 3u);
    EXPECT_EQ(curve.train_loss[0].x, 0.5);
    EXPECT_EQ(curve.train_loss[0].y, 2);
    EXPECT_EQ(curve.train_loss[1].y, 1); // 1.5 over the whole epoch, 2 over its first half
    EXPECT_EQ(curve.train_accuracy[1].y, 0.75);
    EXPECT_EQ(curve.train_loss[2].y, 0.75); // a new epoch
    ASSERT_EQ(curve.test_accuracy.size(), 1u);
    EXPECT_EQ(curve.test_accuracy[0].x, 1);
    EXPECT_EQ(curve.test_accuracy[0].y, 0.625);
}

TEST_F(Curves, ALogMayStartWithALaterEpoch) {
    Curve curve = read(std::string(header) + "4.5,10,2.0,0.25,,,50000,1\n5,20,1.5,0.5,1.25,0.625,50000,2\n");
    EXPECT_EQ(curve.train_loss[0].y, 2);
    EXPECT_EQ(curve.train_loss[1].y, 1);
}

TEST_F(Curves, RefusesWhatIsNoLog) {
    std::string head = header;
    EXPECT_NE(error_of(""), "");
    EXPECT_NE(error_of(head).find("no rows"), std::string::npos);
    EXPECT_NE(error_of("epoch,loss\n1,2\n").find("no column"), std::string::npos);
    EXPECT_NE(error_of(head + "1,2,3\n").find("line 2: 3 cells, 8 columns"), std::string::npos);
    EXPECT_NE(error_of(head + "1,20,nan,0.5,1,1,1,1\n").find("'nan' is no number"), std::string::npos);
    EXPECT_NE(error_of(head + "1,20,1x,0.5,1,1,1,1\n").find("line 2"), std::string::npos);
    EXPECT_NE(error_of(head + "1,20,1e999,0.5,1,1,1,1\n"), "");
    EXPECT_THROW(read_curve("a", path + ".none"), DataError);
}

TEST_F(Curves, DrawsEverySeries) {
    Curve a{"a < b & \"c\"", {{0.5, 2}, {1, 1}}, {{0.5, 0.2}, {1, 0.4}}, {{1, 0.5}}};
    Curve b{"second", {{0.5, 2.3}, {1, 2.2}}, {{0.5, 0.1}, {1, 0.1}}, {{1, 0.1}}};
    std::string svg = draw_curves("Title & more", {a, b});
    expect_well_formed_svg(svg);
    EXPECT_NE(svg.find("a &lt; b &amp; &quot;c&quot;"), std::string::npos);
    EXPECT_NE(svg.find("second"), std::string::npos);
    EXPECT_EQ(count(svg, "Title &amp; more"), 2u);
    EXPECT_EQ(count(svg, "<polyline"), 6u); // training loss, training and test accuracy, of two
    EXPECT_EQ(count(svg, "<circle"), 2u);
    EXPECT_NE(svg.find("fill=\"#ffffff\""), std::string::npos); // the background
}

TEST_F(Curves, PointsLieInsideThePicture) {
    Curve a{"a", {}, {}, {}};
    for (int i = 1; i <= 100; i++) {
        a.train_loss.push_back({i / 10.0, 1e6 / i});
        a.train_accuracy.push_back({i / 10.0, i / 100.0});
    }
    std::string svg = draw_curves("t", {a, a, a, a, a});
    expect_well_formed_svg(svg);
    std::smatch size;
    ASSERT_TRUE(std::regex_search(svg, size, std::regex("viewBox=\"0 0 ([0-9]+) ([0-9]+)\"")));
    static const std::regex point("([0-9.-]+),([0-9.-]+)");
    static const std::regex line("points=\"([^\"]*)\"");
    size_t points = 0;
    for (std::sregex_iterator at(svg.begin(), svg.end(), line), end; at != end; ++at) {
        std::string list = (*at)[1];
        for (std::sregex_iterator p(list.begin(), list.end(), point); p != end; ++p, ++points) {
            EXPECT_GE(std::stod((*p)[1]), 0);
            EXPECT_LE(std::stod((*p)[1]), std::stod(size[1]));
            EXPECT_GE(std::stod((*p)[2]), 0);
            EXPECT_LE(std::stod((*p)[2]), std::stod(size[2]));
        }
    }
    EXPECT_EQ(points, 1000u);
}

TEST_F(Curves, FlatAndEmptyCurves) {
    expect_well_formed_svg(draw_curves("t", {{"a", {{1, 0}}, {{1, 1}}, {{1, 1}}}}));
    expect_well_formed_svg(draw_curves("t", {}));
}

} // namespace
