// What is inside an object file.
#ifndef CRYOLITE_OBJECTS_H
#define CRYOLITE_OBJECTS_H

#include <string>
#include <vector>

namespace cryolite {

// Names of the symbols that an object needs from elsewhere. Throws InternalError when the bytes are no object.
std::vector<std::string> undefined_symbols(const std::vector<char> &object, const std::string &name);

} // namespace cryolite
#endif
