// Text files that are there whole or not at all: logs, tables, pictures.
#ifndef CRYOLITE_WHOLE_FILE_H
#define CRYOLITE_WHOLE_FILE_H

#include <cstddef>
#include <string>

namespace cryolite {

// Through a temporary file in the same folder and a rename. Throws DataError (idx.h) that names the path.
void write_whole_file(const std::string &path, const std::string &text);
// Throws DataError where the file is missing, a folder, or larger than max_bytes.
std::string read_whole_file(const std::string &path, size_t max_bytes);

// Throws DataError where a file could not be written under this name; changes nothing. For asking before the long work.
void check_writable(const std::string &path);

} // namespace cryolite
#endif
