// Whole files: read with a cap, replaced atomically.
#include "file.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace cryolite::runtime {

namespace {

class Descriptor {
public:
    explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
    ~Descriptor() { close(); }
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    int get() const { return descriptor_; }
    bool close() {
        int descriptor = descriptor_;
        descriptor_ = -1;
        return descriptor < 0 || ::close(descriptor) == 0;
    }

private:
    int descriptor_;
};

cryo_status io_error(Text &error, const char *path, const char *what) {
    return error.fail(CRYO_IO_ERROR, "%s: %s: %s", path, what, strerror(errno));
}

bool write_all(int descriptor, const void *bytes, size_t size) {
    const char *next = static_cast<const char *>(bytes);
    while (size > 0) {
        ssize_t done = write(descriptor, next, size < (size_t(1) << 30) ? size : size_t(1) << 30);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return false;
        next += done;
        size -= size_t(done);
    }
    return true;
}

// A name beside path that no other writer has: of this process, by the counter; of others, by O_EXCL.
int open_beside(const char *path, std::string &name) {
    static std::atomic<unsigned> counter{0};
    for (int attempt = 0; attempt < 100; attempt++) {
        name = path + (".tmp-" + std::to_string(getpid())) + "-" + std::to_string(counter++);
        int descriptor = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST) return descriptor;
    }
    return -1;
}

// The rename itself is on the disk once the folder is. File systems that cannot flush folders say EINVAL.
bool sync_folder(const char *path) {
    std::string folder = path;
    size_t slash = folder.rfind('/');
    folder = slash == std::string::npos ? "." : folder.substr(0, slash + 1);
    Descriptor descriptor(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return descriptor.get() >= 0 && (fsync(descriptor.get()) == 0 || errno == EINVAL);
}

} // namespace

cryo_status read_file(const char *path, size_t most, Memory &bytes, size_t &size, Text &error) {
    // Not blocking: a pipe would wait for a writer.
    Descriptor descriptor(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat facts;
    if (descriptor.get() < 0 || fstat(descriptor.get(), &facts) != 0) return io_error(error, path, "open");
    if (!S_ISREG(facts.st_mode)) return error.fail(CRYO_BAD_FILE, "%s: not a regular file", path);
    size = size_t(facts.st_size);
    if (size > most)
        return error.fail(CRYO_BAD_FILE, "%s: %zu bytes, a checkpoint of this model has at most %zu", path, size, most);
    bytes = allocate_memory(size);
    if (!bytes) return error.fail(CRYO_OUT_OF_MEMORY, "%s: no memory for %zu bytes", path, size);
    for (size_t done = 0; done < size;) {
        ssize_t got = read(descriptor.get(), bytes.get() + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return io_error(error, path, "read");
        if (got == 0) return error.fail(CRYO_BAD_FILE, "%s: became shorter while it was read", path);
        done += size_t(got);
    }
    return CRYO_OK;
}

cryo_status replace_file(const char *path, const Piece *pieces, size_t count, Text &error) {
    std::string name;
    Descriptor descriptor(open_beside(path, name));
    if (descriptor.get() < 0) return io_error(error, path, "create");
    const char *failed = nullptr;
    for (size_t i = 0; !failed && i < count; i++)
        if (!write_all(descriptor.get(), pieces[i].bytes, pieces[i].size)) failed = "write";
    if (!failed && fsync(descriptor.get()) != 0) failed = "fsync";
    if (!descriptor.close() && !failed) failed = "close";
    if (!failed && rename(name.c_str(), path) != 0) failed = "rename";
    if (failed) {
        cryo_status status = io_error(error, path, failed);
        unlink(name.c_str());
        return status;
    }
    return sync_folder(path) ? CRYO_OK : io_error(error, path, "fsync of the folder");
}

} // namespace cryolite::runtime
