// Folders and files of the checkpoint tests, and safetensors written by hand.
#ifndef CRYOLITE_TESTS_RUNTIME_FILES_H
#define CRYOLITE_TESTS_RUNTIME_FILES_H

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <unistd.h>

namespace tiny {

// An empty folder in the temporary one, gone at the end.
struct Folder {
    std::filesystem::path path;
    Folder() {
        static int count = 0;
        path = std::filesystem::temp_directory_path() /
               ("cryolite-" + std::to_string(getpid()) + "-" + std::to_string(count++));
        std::filesystem::remove_all(path);
        std::filesystem::create_directories(path);
    }
    ~Folder() { std::filesystem::remove_all(path); }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
    std::string operator/(const char *name) const { return (path / name).string(); }
    int files() const {
        return int(std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator()));
    }
};

inline std::string read_bytes(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
inline void write_bytes(const std::string &path, const std::string &bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

// The size of the header, the header, and `floats` values 1, 2, ...
inline std::string safetensors(const std::string &header, int floats = 9) {
    uint64_t size = header.size();
    std::string bytes(reinterpret_cast<const char *>(&size), sizeof size);
    bytes += header;
    for (int i = 1; i <= floats; i++) {
        float value = float(i);
        bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
    }
    return bytes;
}

// A tensor's entry of a header.
inline std::string entry(const std::string &name, const std::string &shape, uint64_t begin, uint64_t end,
                         const std::string &dtype = "F32") {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
}

} // namespace tiny
#endif
