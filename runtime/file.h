// Whole files: read with a cap, replaced atomically.
#ifndef CRYOLITE_RUNTIME_FILE_H
#define CRYOLITE_RUNTIME_FILE_H

#include "model.h"
#include "text.h"

namespace cryolite::runtime {

// Reads a regular file of at most `most` bytes; a larger one is CRYO_BAD_FILE.
cryo_status read_file(const char *path, size_t most, Memory &bytes, size_t &size, Text &error);

struct Piece {
    const void *bytes;
    size_t size;
};

// Writes the pieces to a new file beside path, flushes it to the disk and renames it to path: at any moment path is the
// old file or the new one, whole. Nothing is left behind on failure.
cryo_status replace_file(const char *path, const Piece *pieces, size_t count, Text &error);

} // namespace cryolite::runtime
#endif
