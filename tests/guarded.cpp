#include "guarded.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <new>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace cryolite::test {

namespace {

constexpr unsigned char pattern = 0xa5;

size_t page_size() {
    static const size_t size = size_t(sysconf(_SC_PAGESIZE));
    return size;
}

// Read by the handler alone.
char watched[4096];
struct sigaction before;

void say(const char *text) {
    if (write(2, text, strlen(text)) < 0) _exit(1);
}
void on_violation(int) {
    say(watched);
    say(" reaches outside of its arguments\n");
    _exit(1);
}

} // namespace

Guarded::Guarded(size_t words) : words_(words) {
    size_t page = page_size(), inner = (words * sizeof(uint32_t) + page - 1) / page * page;
    bytes_ = inner + 2 * page;
    void *pages = mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<unsigned char *>(pages);
    if (inner && mprotect(pages_ + page, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    data_ = reinterpret_cast<uint32_t *>(pages_ + page + inner) - words;
#ifdef __SANITIZE_ADDRESS__
    ASAN_POISON_MEMORY_REGION(pages_ + page, reinterpret_cast<unsigned char *>(data_) - (pages_ + page));
#else
    std::fill(pages_ + page, reinterpret_cast<unsigned char *>(data_), pattern);
#endif
}

Guarded::~Guarded() {
    if (!pages_) return;
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(pages_ + page_size(), bytes_ - 2 * page_size()); // others will be given these pages
#endif
    munmap(pages_, bytes_);
}

Guarded::Guarded(Guarded &&other) noexcept { *this = std::move(other); }

Guarded &Guarded::operator=(Guarded &&other) noexcept {
    std::swap(pages_, other.pages_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    std::swap(words_, other.words_);
    return *this;
}

uint32_t &Guarded::at(size_t i) const {
    if (i >= words_) throw std::out_of_range("Guarded::at");
    return data_[i];
}

bool Guarded::slack_is_whole() const {
#ifdef __SANITIZE_ADDRESS__
    return true; // poisoned
#endif
    if (!pages_) return true;
    return std::all_of(pages_ + page_size(), reinterpret_cast<unsigned char *>(data_),
                       [](unsigned char byte) { return byte == pattern; });
}

GuardWatch::GuardWatch(const std::string &what) {
    watched[what.copy(watched, sizeof watched - 1)] = 0;
    struct sigaction action = {};
    action.sa_handler = on_violation;
    sigaction(SIGSEGV, &action, &before);
}

GuardWatch::~GuardWatch() { sigaction(SIGSEGV, &before, nullptr); }

} // namespace cryolite::test
