// POSIX files, for what the C++ library does not say: why a call failed, and that the bytes are on the disk.
#include "whole_file.h"

#include "idx.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace cryolite {

namespace {

[[noreturn]] void fail(const std::string &path, const char *what) {
    throw DataError("'" + path + "' " + what + ": " + std::strerror(errno));
}

// A new file beside the target, gone again unless renamed.
class Temporary {
public:
    explicit Temporary(const std::string &path) : target_(path), name_(path + ".XXXXXX") {
        struct stat status; // a rename over a device would replace it
        if (path.empty() || path.back() == '/' || (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)))
            throw DataError("'" + path + "' cannot be written: no regular file");
        descriptor_ = mkstemp(name_.data());
        if (descriptor_ < 0) fail(path, "cannot be written");
        mode_t mask = umask(0);
        umask(mask);
        fchmod(descriptor_, 0666 & ~mask); // mkstemp's is 0600
    }
    ~Temporary() {
        if (descriptor_ >= 0) close(descriptor_);
        if (!renamed_) unlink(name_.c_str());
    }
    Temporary(const Temporary &) = delete;
    Temporary &operator=(const Temporary &) = delete;

    void write(const std::string &text) {
        for (size_t done = 0; done < text.size();) {
            ssize_t wrote = ::write(descriptor_, text.data() + done, text.size() - done);
            if (wrote < 0 && errno == EINTR) continue;
            if (wrote < 0) fail(target_, "cannot be written");
            done += size_t(wrote);
        }
    }
    void rename() {
        int synced = fsync(descriptor_), closed = close(descriptor_);
        descriptor_ = -1;
        if (synced || closed || std::rename(name_.c_str(), target_.c_str())) fail(target_, "cannot be written");
        renamed_ = true;
    }

private:
    std::string target_, name_;
    int descriptor_ = -1;
    bool renamed_ = false;
};

} // namespace

void write_whole_file(const std::string &path, const std::string &text) {
    Temporary file(path);
    file.write(text);
    file.rename();
}

void check_writable(const std::string &path) { Temporary file(path); }

std::string read_whole_file(const std::string &path, size_t max_bytes) {
    FILE *file = std::fopen(path.c_str(), "rb");
    if (!file) fail(path, "cannot be read");
    std::string text;
    char bytes[1 << 16];
    size_t got;
    while (text.size() <= max_bytes && (got = std::fread(bytes, 1, sizeof bytes, file)) > 0) text.append(bytes, got);
    bool failed = std::ferror(file);
    int reason = errno;
    std::fclose(file);
    errno = reason;
    if (failed) fail(path, "cannot be read");
    if (text.size() > max_bytes)
        throw DataError("'" + path + "' is larger than " + std::to_string(max_bytes) + " bytes");
    return text;
}

} // namespace cryolite
