# Writes a header that holds text files, one after another, as one constant.
#   cmake -D OUTPUT=<header> -D NAME=<constant> -D SOURCES=<a,b,...> -P EmbedText.cmake
cmake_minimum_required(VERSION 3.28)
string(REPLACE "," ";" sources "${SOURCES}")
set(literals "")
foreach(source IN LISTS sources)
    file(READ "${source}" text)
    # In raw literals of a length that every compiler takes.
    string(LENGTH "${text}" length)
    set(at 0)
    while(at LESS length)
        string(SUBSTRING "${text}" ${at} 8000 piece)
        string(APPEND literals "R\"text(${piece})text\"\n")
        math(EXPR at "${at} + 8000")
    endwhile()
endforeach()
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "// Made by the build.
#pragma once

namespace cryolite {
inline constexpr char ${NAME}[] =
\"\"
@literals@;
}
" @ONLY)
