// Checkpoints of our own: round trips, damage of any byte, interruption at any moment.
#include "runtime_files.h"
#include "runtime_model.h"

#include <csignal>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>

using namespace tiny;

namespace {

void train(Model &model, int steps) {
    Batch batch(7);
    for (int i = 0; i < steps; i++)
        ASSERT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), 7, nullptr), CRYO_OK);
}

} // namespace

TEST(RuntimeCheckpoint, RoundTripGoesOnBitForBit) {
    Folder folder;
    Program program;
    Model saved(program), loaded(program, 3);
    train(saved, 5);
    ASSERT_EQ(cryo_save(saved, (folder / "a").c_str()), CRYO_OK) << saved.error();
    EXPECT_EQ(folder.files(), 1);
    ASSERT_EQ(cryo_load(loaded, (folder / "a").c_str()), CRYO_OK) << loaded.error();
    EXPECT_EQ(loaded.hash(), saved.hash());
    EXPECT_EQ(cryo_steps(loaded), 5);
    train(saved, 3);
    train(loaded, 3);
    EXPECT_EQ(loaded.hash(), saved.hash());
    EXPECT_EQ(cryo_steps(loaded), 8);
    ASSERT_EQ(cryo_save(saved, (folder / "a").c_str()), CRYO_OK);
    ASSERT_EQ(cryo_save(loaded, (folder / "b").c_str()), CRYO_OK);
    EXPECT_EQ(read_bytes(folder / "a"), read_bytes(folder / "b"));
    ASSERT_EQ(cryo_initialize(loaded, 7), CRYO_OK);
    EXPECT_EQ(cryo_steps(loaded), 0);
}

TEST(RuntimeCheckpoint, TheFileIsSafetensors) {
    Folder folder;
    Program program;
    Model model(program);
    const float six[] = {1, 2, 3, 4, 5, 6};
    ASSERT_EQ(cryo_set_parameter(model, "2.weight", six, 6), CRYO_OK);
    ASSERT_EQ(cryo_save(model, (folder / "a").c_str()), CRYO_OK);
    std::string bytes = read_bytes(folder / "a");
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), 8);
    EXPECT_EQ(size % 8, 0u);
    EXPECT_EQ(bytes.size(), 8 + size + 15 * 4);
    std::string header = bytes.substr(8, size);
    EXPECT_NE(header.find(entry("2.weight", "[2,3]", 0, 24)), std::string::npos) << header;
    EXPECT_NE(header.find(entry("1.total", "[3]", 24, 36)), std::string::npos) << header;
    EXPECT_NE(header.find(entry("optimizer.velocity.2.weight", "[2,3]", 36, 60)), std::string::npos) << header;
    EXPECT_NE(header.find("\"cryolite.fingerprint\":\"tiny-fingerprint\",\"cryolite.steps\":\"0\""), std::string::npos);
    EXPECT_EQ(std::memcmp(bytes.data() + 8 + size, six, sizeof six), 0);
}

TEST(RuntimeCheckpoint, EveryLengthButTheWholeIsRefused) {
    Folder folder;
    Program program;
    Model model(program), other(program);
    train(model, 2);
    ASSERT_EQ(cryo_save(model, (folder / "a").c_str()), CRYO_OK);
    std::string bytes = read_bytes(folder / "a");
    uint64_t before = other.hash();
    for (size_t size = 0; size < bytes.size(); size++) {
        write_bytes(folder / "b", bytes.substr(0, size));
        ASSERT_EQ(cryo_load(other, (folder / "b").c_str()), CRYO_BAD_FILE) << size;
        ASSERT_EQ(other.error().rfind(folder / "b", 0), 0u) << other.error();
    }
    for (size_t more : {1, 4, 100}) {
        write_bytes(folder / "b", bytes + std::string(more, '\0'));
        ASSERT_EQ(cryo_load(other, (folder / "b").c_str()), CRYO_BAD_FILE) << more;
    }
    EXPECT_EQ(other.hash(), before);
    EXPECT_EQ(cryo_steps(other), 0);
}

TEST(RuntimeCheckpoint, EveryChangedByteIsSeen) {
    Folder folder;
    Program program;
    Model model(program), other(program);
    train(model, 2);
    ASSERT_EQ(cryo_save(model, (folder / "a").c_str()), CRYO_OK);
    std::string bytes = read_bytes(folder / "a");
    uint64_t before = other.hash();
    for (size_t i = 0; i < bytes.size(); i++)
        for (int change : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x29, 0xff}) {
            std::string damaged = bytes;
            damaged[i] = char(damaged[i] ^ change);
            write_bytes(folder / "b", damaged);
            ASSERT_EQ(cryo_load(other, (folder / "b").c_str()), CRYO_BAD_FILE) << "byte " << i << " ^ " << change;
        }
    EXPECT_EQ(other.hash(), before);
    write_bytes(folder / "b", bytes);
    EXPECT_EQ(cryo_load(other, (folder / "b").c_str()), CRYO_OK) << other.error();
    EXPECT_EQ(other.hash(), model.hash());
}

TEST(RuntimeCheckpoint, SwappedTensorsOfTwoFilesAreSeen) {
    Folder folder;
    Program program;
    Model model(program);
    ASSERT_EQ(cryo_save(model, (folder / "a").c_str()), CRYO_OK);
    std::string bytes = read_bytes(folder / "a");
    size_t data = bytes.size() - 60;
    std::string swapped =
        bytes.substr(0, data) + bytes.substr(data + 36, 24) + bytes.substr(data + 24, 12) + bytes.substr(data, 24);
    write_bytes(folder / "b", swapped);
    EXPECT_EQ(cryo_load(model, (folder / "b").c_str()), CRYO_BAD_FILE);
    EXPECT_NE(model.error().find("damaged: the checksum"), std::string::npos) << model.error();
}

TEST(RuntimeCheckpoint, AnotherModelsIsRefusedByItsFingerprint) {
    Folder folder;
    Program program, changed;
    changed.program.fingerprint = "another";
    Model model(program), other(changed);
    ASSERT_EQ(cryo_save(model, (folder / "a").c_str()), CRYO_OK);
    EXPECT_EQ(cryo_load(other, (folder / "a").c_str()), CRYO_BAD_FILE);
    EXPECT_EQ(other.error(),
              (folder / "a") + ": of another model: expected fingerprint another, found tiny-fingerprint");
}

TEST(RuntimeCheckpoint, PlacesThatCannotBeWritten) {
    Folder folder;
    Program program;
    Model model(program);
    write_bytes(folder / "file", "x");
    std::filesystem::create_directory(folder / "taken");
    for (const char *name : {"missing/a", "file/a", "taken", ""}) {
        std::string path = *name ? folder / name : std::string();
        EXPECT_EQ(cryo_save(model, path.c_str()), CRYO_IO_ERROR) << path;
        EXPECT_EQ(model.error().rfind(path + ": ", 0), 0u) << model.error();
    }
    EXPECT_EQ(folder.files(), 2) << "a temporary file was left";
    for (const char *name : {"missing", "file/a"})
        EXPECT_EQ(cryo_load(model, (folder / name).c_str()), CRYO_IO_ERROR) << name;
    EXPECT_EQ(model.error(), (folder / "file/a") + ": open: Not a directory");
    EXPECT_EQ(cryo_load(model, (folder / "taken").c_str()), CRYO_BAD_FILE);
    EXPECT_EQ(cryo_load(model, "/dev/zero"), CRYO_BAD_FILE);
    EXPECT_EQ(cryo_save(model, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(cryo_load(model, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(cryo_save(nullptr, "x"), CRYO_BAD_ARGUMENT);
}

TEST(RuntimeCheckpoint, AFullDiskLeavesTheOldFile) {
    Folder folder;
    Program program;
    Model model(program);
    ASSERT_EQ(cryo_save(model, (folder / "a").c_str()), CRYO_OK);
    std::string before = read_bytes(folder / "a");
    train(model, 1);
    // A limit on file sizes stands in for the full disk.
    rlimit limit, small = {100, RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &limit);
    small.rlim_max = limit.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    cryo_status status = cryo_save(model, (folder / "a").c_str());
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_EQ(status, CRYO_IO_ERROR);
    EXPECT_EQ(model.error(), (folder / "a") + ": write: File too large");
    EXPECT_EQ(read_bytes(folder / "a"), before);
    EXPECT_EQ(folder.files(), 1) << "the temporary file was left";
}

TEST(RuntimeCheckpoint, KilledAtAnyMomentLeavesAWholeFile) {
    Folder folder;
    Program program;
    Model reader(program);
    std::string path = folder / "a";
    {
        Model model(program);
        ASSERT_EQ(cryo_save(model, path.c_str()), CRYO_OK);
    }
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            Model writer(program);
            for (;;) {
                train(writer, 1);
                if (cryo_save(writer, path.c_str()) != CRYO_OK) _exit(1);
            }
        }
        std::this_thread::sleep_for(std::chrono::microseconds(3000 + 700 * round));
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed";
        ASSERT_EQ(cryo_load(reader, path.c_str()), CRYO_OK) << reader.error();
    }
    EXPECT_GT(cryo_steps(reader), 0) << "no writer came to saving";
}
