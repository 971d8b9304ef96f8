# Writes a header with one hash of all generator sources: what cached kernels were made from.
#   cmake -D OUTPUT=<header> -D SOURCES=<a,b,...> -P Fingerprint.cmake
string(REPLACE "," ";" sources "${SOURCES}")
set(all "")
foreach(source IN LISTS sources)
    file(SHA256 "${source}" hash)
    string(APPEND all "${hash}")
endforeach()
string(SHA256 hash "${all}")
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "// Made by the build: a hash of all generator sources.
#ifndef CRYOLITE_GENERATORS_FINGERPRINT_H
#define CRYOLITE_GENERATORS_FINGERPRINT_H

namespace cryolite {
inline constexpr char generators_fingerprint[] = \"${hash}\";
}
#endif
")
