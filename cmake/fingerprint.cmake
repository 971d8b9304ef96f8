# Writes a header with the hash of some files, as a script:
#   cmake -DFILES=a;b -DNAME=generators_fingerprint -DOUTPUT=generators_fingerprint.h -P fingerprint.cmake
set(hashes "")
foreach(file IN LISTS FILES)
    file(SHA256 "${file}" hash)
    string(APPEND hashes "${hash}")
endforeach()
string(SHA256 hash "${hashes}")
file(WRITE "${OUTPUT}" "// Made by the build: the hash of what makes kernels what they are.
namespace cryolite {
inline constexpr char ${NAME}[] = \"${hash}\";
}
")
