// Files that must be there whole or not at all: the cache of compiled kernels, and what the compiler writes.
#ifndef CRYOLITE_CACHE_H
#define CRYOLITE_CACHE_H

#include <string>
#include <vector>

namespace cryolite {

// 64-bit FNV-1a of a text, as 16 hexadecimal digits.
std::string hash_text(const std::string &text);

std::vector<char> read_file(const std::string &path); // throws CompileError that names the path
// Through a temporary file in the same folder and a rename. Throws CompileError that names the path.
void write_file(const std::string &path, const char *bytes, size_t size);

// A name in the system's temporary folder, removed at the end.
class TemporaryFile {
public:
    explicit TemporaryFile(const std::string &suffix);
    ~TemporaryFile();
    TemporaryFile(const TemporaryFile &) = delete;
    TemporaryFile &operator=(const TemporaryFile &) = delete;
    const std::string &path() const { return path_; }

private:
    std::string path_;
};

// A folder of objects by name. A folder that cannot be made or written is no error: then nothing is cached.
class KernelCache {
public:
    explicit KernelCache(const std::string &folder); // as CompileOptions::cache
    bool load(const std::string &name, std::vector<char> &bytes) const;
    void store(const std::string &name, const std::vector<char> &bytes) const;

private:
    std::string folder_; // "": off
};

} // namespace cryolite
#endif
