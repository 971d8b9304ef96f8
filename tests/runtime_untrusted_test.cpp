// Safetensors of other programs, good and malicious: loading may fail, and then changes nothing.
#include "runtime_files.h"
#include "runtime_model.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

using namespace tiny;

namespace {

const std::string weight_entry = entry("2.weight", "[2,3]", 0, 24), total_entry = entry("1.total", "[3]", 24, 36);

class RuntimeUntrusted : public testing::Test {
protected:
    Folder folder;
    Program program;
    Model model{program};
    std::string path = folder / "a";

    std::string load(const std::string &bytes) { // "" or the text behind the path
        write_bytes(path, bytes);
        uint64_t before = model.hash();
        cryo_status status = cryo_load(model, path.c_str());
        if (status == CRYO_OK) return "";
        EXPECT_EQ(status, CRYO_BAD_FILE);
        EXPECT_EQ(model.hash(), before);
        EXPECT_EQ(model.error().rfind(path + ": ", 0), 0u) << model.error();
        return model.error().substr(path.size() + 2);
    }
    std::string load_header(const std::string &header, int floats = 9) { return load(safetensors(header, floats)); }
};

} // namespace

TEST_F(RuntimeUntrusted, FilesOfOtherProgramsLoad) {
    Batch batch(4);
    ASSERT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), 4, nullptr), CRYO_OK);
    EXPECT_EQ(load_header("{" + weight_entry + "," + total_entry + "}"), "");
    EXPECT_EQ(model.get("2.weight"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(model.get("1.total"), (std::vector<float>{7, 8, 9}));
    EXPECT_EQ(model.get("optimizer.velocity.2.weight"), std::vector<float>(6, 0)) << "starts anew";
    EXPECT_EQ(cryo_steps(model), 0);
    // Any order, white space, escapes, somebody's metadata, extents of 1.
    EXPECT_EQ(load_header(" {\n\t\"__metadata__\": {\"format\": \"pt\", \"\\u00e9\\ud83d\\ude00\\n\": \"\"}, " +
                          entry("1.\\u0074otal", "[1, 3, 1, 1]", 0, 12) + " , " + entry("2.weight", "[2,3]", 12, 36) +
                          " } "),
              "");
    EXPECT_EQ(model.get("1.total"), (std::vector<float>{1, 2, 3}));
    EXPECT_EQ(model.get("2.weight"), (std::vector<float>{4, 5, 6, 7, 8, 9}));
    // PyTorch's counter beside a batch norm's statistics.
    EXPECT_EQ(load_header("{" + weight_entry + "," + total_entry + "," +
                              entry("1.num_batches_tracked", "[]", 36, 44, "I64") + "}",
                          11),
              "");
}

TEST_F(RuntimeUntrusted, NamesShapesAndTypesAreCompared) {
    EXPECT_EQ(load_header("{" + weight_entry + "," + entry("1.total", "[1,4]", 24, 40) + "}", 10),
              "tensor '1.total': expected shape [3], found [1, 4]");
    EXPECT_EQ(load_header("{" + entry("2.weight", "[3,2]", 0, 24) + "," + total_entry + "}"),
              "tensor '2.weight': expected shape [2, 3], found [3, 2]");
    EXPECT_EQ(load_header("{" + entry("2.weight", "[2,3]", 0, 24, "I32") + "," + total_entry + "}"),
              "tensor '2.weight': expected dtype F32, found I32");
    EXPECT_EQ(load_header("{" + weight_entry + "}", 6), "tensor '1.total' is missing");
    EXPECT_EQ(load_header("{" + weight_entry + "," + total_entry + "," + entry("odd\\u0007", "[1]", 36, 40) + "}", 10),
              "tensor 'odd?' is not of model 'tiny'");
    EXPECT_EQ(load_header("{" + weight_entry + "," + entry("2.weight", "[2,3]", 24, 48) + "}", 12),
              "tensor '2.weight': expected it once, found it twice");
    EXPECT_EQ(load_header("{}", 0), "tensor '2.weight' is missing");
}

TEST_F(RuntimeUntrusted, OffsetsAreChecked) {
    EXPECT_EQ(load_header("{" + weight_entry + "," + entry("1.total", "[3]", 12, 24) + "}", 6),
              "tensor '1.total': expected data that begin at 24, found 12");
    EXPECT_EQ(load_header("{" + weight_entry + "," + entry("1.total", "[3]", 28, 40) + "}", 10),
              "tensor '1.total': expected data that begin at 24, found 28");
    EXPECT_EQ(load_header("{" + weight_entry + "," + total_entry + "}", 10), "expected 36 bytes of data, found 40");
    EXPECT_EQ(load_header("{" + weight_entry + "," + total_entry + "}", 8),
              "tensor '1.total': expected offsets within the 32 bytes of data, found [24, 36]");
    EXPECT_EQ(load_header("{" + weight_entry + "," + entry("1.total", "[3]", 36, 24) + "}"),
              "tensor '1.total': expected offsets within the 36 bytes of data, found [36, 24]");
    EXPECT_EQ(load_header("{" + weight_entry + "," +
                          entry("1.total", "[3]", 9223372036854775795u, 9223372036854775807u) + "}"),
              "tensor '1.total': expected offsets within the 36 bytes of data, found [9223372036854775795, "
              "9223372036854775807]");
    EXPECT_EQ(load_header("{" + weight_entry + "," + entry("1.total", "[3]", 24, 32) + "}", 8),
              "tensor '1.total': expected the bytes of shape [3], found 8");
}

TEST_F(RuntimeUntrusted, ProductsThatOverflowAreSeen) {
    // 4194305 * 4194305 * 211106198978564 wraps to 4, times 4 bytes to 16.
    for (const char *shape : {"[4194305,4194305,211106198978564]", "[4294967296,4294967296]", "[4611686018427387904]",
                              "[9223372036854775807,2]", "[2305843009213693952,2]"})
        for (uint64_t size : {0, 4, 12, 16})
            EXPECT_EQ(
                load_header("{" + weight_entry + "," + entry("1.total", shape, 24, 24 + size) + "}", int(6 + size / 4))
                    .rfind("tensor '1.total': expected the bytes of shape [", 0),
                0u)
                << model.error();
}

TEST_F(RuntimeUntrusted, GrammarIsStrict) {
    const std::string good = "{" + weight_entry + "," + total_entry + "}";
    ASSERT_EQ(load_header(good), "");
    auto replaced = [&](const std::string &from, const std::string &to) {
        std::string header = good;
        EXPECT_NE(header.find(from), std::string::npos) << from;
        return header.replace(header.find(from), from.size(), to);
    };
    for (auto [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"[2,3]", "[2,3,]"},
             {"[2,3]", "[,2,3]"},
             {"[2,3]", "[02,3]"},
             {"[2,3]", "[2.0,3]"},
             {"[2,3]", "[-2,3]"},
             {"[2,3]", "[2e0,3]"},
             {"[2,3]", "[+2,3]"},
             {"[2,3]", "\"[2,3]\""},
             {"[2,3]", "[2 3]"},
             {"[2,3]", "null"},
             {"[2,3]", "[[2,3]]"},
             {"[2,3]", "[2,3"},
             {"[2,3]", "[9223372036854775808,3]"},
             {"[2,3]", "[99999999999999999999999,3]"},
             {"[2,3]", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2,3]"},
             {"[0,24]", "[0,24,24]"},
             {"[0,24]", "[0]"},
             {"\"dtype\":\"F32\",", ""},
             {"\"dtype\":\"F32\",", "\"dtype\":\"F32\",\"dtype\":\"F32\","},
             {"\"shape\"", "\"form\""},
             {"\"F32\"", "F32"},
             {"\"F32\"", "32"},
             {"2.weight\"", "2.weight"},
             {"2.weight", "2.\\xweight"},
             {"2.weight", "2.\\ud800"},
             {"2.weight", "2.\\udc00\\ud800"},
             {"2.weight", "2.\\u12"},
             {"2.weight", "2.\nweight"},
             {"{\"2.", "{,\"2."},
             {"}}", "}"},
             {"}}", "}},"},
             {"}}", "}}}"},
             {"}}", "}} x"},
             {"},", "} "},
             {"{\"2.", "[\"2."},
             {"\"2.", "\"__metadata__\":{\"a\":1},\"2."},
             {"\"2.", "\"__metadata__\":{},\"__metadata__\":{},\"2."},
             {"\"2.", "/**/\"2."},
             {"\"2.", "\"__metadata__\":\"\",\"2."},
             {"\"2.", "\"__metadata__\":{\"a\":{}},\"2."},
             {"\"2.", "\"__metadata__\":{\"cryolite.steps\":\"1\"},\"2."},
             {"\"2.", "\"__metadata__\":{\"cryolite.other\":\"\"},\"2."},
             {"\"2.", "\"__metadata__\":{\"cryolite.checksum\":\"0\",\"cryolite.steps\":\"1\",\"cryolite.fingerprint\":"
                      "\"\"},\"2."}})
        EXPECT_NE(load_header(replaced(from, to)), "") << from << " -> " << to;
    for (size_t size = 0; size < good.size(); size++) EXPECT_NE(load_header(good.substr(0, size)), "") << size;
    EXPECT_NE(load_header(std::string("\0", 1) + good), "");
    EXPECT_NE(load_header("\xef\xbb\xbf" + good), "") << "byte order mark";
}

TEST_F(RuntimeUntrusted, HugeHeaders) {
    for (uint64_t size : {uint64_t(100'000'001), uint64_t(1) << 40, UINT64_MAX, UINT64_MAX - 7, uint64_t(1) << 63}) {
        std::string bytes(reinterpret_cast<const char *>(&size), 8);
        EXPECT_EQ(load(bytes + "{}").rfind("expected a header of ", 0), 0u) << model.error();
    }
    // A file too large for this model is not even read. It has no blocks on the disk.
    write_bytes(path, "");
    ASSERT_EQ(truncate(path.c_str(), off_t(1) << 40), 0);
    EXPECT_EQ(cryo_load(model, path.c_str()), CRYO_BAD_FILE);
    EXPECT_NE(model.error().find("1099511627776 bytes, a checkpoint of this model has at most"), std::string::npos);
}

TEST_F(RuntimeUntrusted, NestingAndCounts) {
    for (const char *open : {"[", "{", "{\"a\":", "{\"__metadata__\":", "{\"a\":{\"shape\":["}) {
        std::string deep;
        while (deep.size() < 1'000'000) deep += open;
        EXPECT_NE(load_header(deep), "") << open;
    }
    std::string many = "{";
    for (int i = 0; i < 100'000; i++) many += entry("t" + std::to_string(i), "[0]", 0, 0) + ",";
    many += entry("last", "[0]", 0, 0) + "}";
    EXPECT_EQ(load_header(many).rfind("more than the 6 tensors that the model could have", 0), 0u) << model.error();
    EXPECT_EQ(load_header("{\"" + std::string(1'000'000, 'n') + "\":{}}").rfind("expected a name", 0), 0u);
}

TEST_F(RuntimeUntrusted, PipesDoNotBlock) {
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_EQ(cryo_load(model, path.c_str()), CRYO_BAD_FILE);
    EXPECT_EQ(model.error(), path + ": not a regular file");
}
