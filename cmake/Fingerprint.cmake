# Writes a header with one hash of all generator sources: what cached kernels were made from; and one for each
# *_generator.cpp, over itself and what it includes, comments and spaces aside: what tuned schedules were made for.
#   cmake -D OUTPUT=<header> -D SOURCES=<a,b,...> -P Fingerprint.cmake
cmake_minimum_required(VERSION 3.28)
string(REPLACE "," ";" sources "${SOURCES}")
set(all "")
set(table "")
foreach(source IN LISTS sources)
    file(SHA256 "${source}" hash)
    string(APPEND all "${hash}")
endforeach()
string(SHA256 hash "${all}")

# The file and the local headers that it includes, with what implements those.
function(collect file)
    if(file IN_LIST collected OR NOT EXISTS "${file}")
        return()
    endif()
    list(APPEND collected "${file}")
    get_filename_component(folder "${file}" DIRECTORY)
    file(STRINGS "${file}" includes REGEX "^#include \"")
    foreach(line IN LISTS includes)
        string(REGEX REPLACE "^#include \"(.*)\".*" "\\1" name "${line}")
        collect("${folder}/${name}")
        string(REGEX REPLACE "\\.h$" ".cpp" name "${name}")
        collect("${folder}/${name}")
    endforeach()
    set(collected "${collected}" PARENT_SCOPE)
endfunction()

foreach(source IN LISTS sources)
    if(NOT source MATCHES "_generator\\.cpp$")
        continue()
    endif()
    set(collected "")
    collect("${source}")
    list(SORT collected)
    set(text "")
    foreach(file IN LISTS collected)
        file(READ "${file}" code)
        string(REGEX REPLACE "//[^\n]*" "" code "${code}")
        string(REGEX REPLACE "[ \t\r\n]+" "" code "${code}")
        string(APPEND text "${code}")
    endforeach()
    string(SHA256 own "${text}")
    string(SUBSTRING "${own}" 0 16 own)
    get_filename_component(name "${source}" NAME)
    string(APPEND table "    {\"${name}\", \"${own}\"},\n")
endforeach()
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "// Made by the build: a hash of all generator sources, and one of each generator's own.
#ifndef CRYOLITE_GENERATORS_FINGERPRINT_H
#define CRYOLITE_GENERATORS_FINGERPRINT_H

namespace cryolite {
inline constexpr char generators_fingerprint[] = \"${hash}\";
inline constexpr struct {
    const char *file, *hash;
} generator_sources[] = {
${table}};
}
#endif
")
