// A cached object carries its length and hash in a trailer, so that a damaged file is compiled again.
#include "cache.h"

#include "cryolite.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace cryolite {

namespace fs = std::filesystem;

static uint64_t fnv1a(const char *bytes, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ uint8_t(bytes[i])) * 0x100000001b3u;
    return hash;
}

std::string hash_text(const std::string &text) {
    char digits[17];
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)fnv1a(text.data(), text.size()));
    return digits;
}

std::vector<char> read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw CompileError("'" + path + "' cannot be read");
    std::vector<char> bytes(size_t(file.tellg()));
    file.seekg(0);
    if (!file.read(bytes.data(), std::streamsize(bytes.size()))) throw CompileError("'" + path + "' cannot be read");
    return bytes;
}

void write_file(const std::string &path, const char *bytes, size_t size) {
    std::string temporary = path + "." + std::to_string(getpid()) + ".tmp";
    std::ofstream file(temporary, std::ios::binary);
    file.write(bytes, std::streamsize(size));
    file.close();
    std::error_code error;
    if (file) fs::rename(temporary, path, error);
    if (!file || error) {
        std::error_code ignored;
        fs::remove(temporary, ignored);
        throw CompileError("'" + path + "' cannot be written");
    }
}

TemporaryFile::TemporaryFile(const std::string &suffix) {
    std::string name = (fs::temp_directory_path() / ("cryolite_XXXXXX" + suffix)).string();
    int file = mkstemps(name.data(), int(suffix.size()));
    if (file < 0) throw CompileError("no temporary file '" + name + "' could be made");
    close(file);
    path_ = name;
}

TemporaryFile::~TemporaryFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
}

KernelCache::KernelCache(const std::string &folder) : folder_(folder) {
    if (folder == "off") {
        folder_.clear();
        return;
    }
    if (folder.empty()) {
        if (const char *cache = getenv("XDG_CACHE_HOME"); cache && *cache)
            folder_ = std::string(cache) + "/cryolite";
        else if (const char *home = getenv("HOME"); home && *home)
            folder_ = std::string(home) + "/.cache/cryolite";
        else
            return;
    }
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) folder_.clear();
}

bool KernelCache::load(const std::string &name, std::vector<char> &bytes) const {
    if (folder_.empty()) return false;
    std::ifstream file(folder_ + "/" + name, std::ios::binary);
    if (!file) return false;
    bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    uint64_t hash;
    if (bytes.size() < sizeof hash) return false;
    memcpy(&hash, bytes.data() + bytes.size() - sizeof hash, sizeof hash);
    bytes.resize(bytes.size() - sizeof hash);
    return hash == fnv1a(bytes.data(), bytes.size());
}

void KernelCache::store(const std::string &name, const std::vector<char> &bytes) const {
    if (folder_.empty()) return;
    std::vector<char> file = bytes;
    uint64_t hash = fnv1a(bytes.data(), bytes.size());
    file.insert(file.end(), reinterpret_cast<char *>(&hash), reinterpret_cast<char *>(&hash) + sizeof hash);
    try {
        write_file(folder_ + "/" + name, file.data(), file.size());
    } catch (const CompileError &) {
        // A full or read-only cache folder costs time, not the compilation.
    }
}

} // namespace cryolite
