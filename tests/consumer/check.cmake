# Builds the consumer project in a folder of its own, runs it, and weighs it.
#   -D SOURCE= -D BINARY= -D MODELS= -D RUNTIME= -D RUNTIME_HEADERS= -D GENERATOR= -D MAKE_PROGRAM= -D COMPILER=
#   -D DEVICE= -D FLAGS=<sanitizers; then nothing is weighed>
set(CMAKE_EXECUTE_PROCESS_COMMAND_ECHO STDOUT)
file(REMOVE_RECURSE "${BINARY}")
execute_process(COMMAND ${CMAKE_COMMAND} -S "${SOURCE}" -B "${BINARY}" -G "${GENERATOR}"
    "-DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}" "-DCMAKE_CXX_COMPILER=${COMPILER}" -DCMAKE_BUILD_TYPE=Release
    "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror ${FLAGS}" "-DMODELS=${MODELS}" "-DRUNTIME=${RUNTIME}"
    "-DRUNTIME_HEADERS=${RUNTIME_HEADERS}" "-DDEVICE=${DEVICE}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build "${BINARY}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${BINARY}/consumer" WORKING_DIRECTORY "${BINARY}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${BINARY}/small" WORKING_DIRECTORY "${BINARY}" COMMAND_ERROR_IS_FATAL ANY)
if(FLAGS)
    return()
endif()
execute_process(COMMAND "${BINARY}/device" WORKING_DIRECTORY "${BINARY}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} -E env "OCL_ICD_VENDORS=${BINARY}/no_vendors" "${BINARY}/device"
    WORKING_DIRECTORY "${BINARY}" COMMAND_ERROR_IS_FATAL ANY)

file(SIZE "${BINARY}/small" bytes)
message(STATUS "stripped program that trains and infers: ${bytes} bytes")
if(bytes GREATER_EQUAL 400000)
    message(FATAL_ERROR "the limit is 400000 bytes")
endif()

execute_process(COMMAND ldd "${BINARY}/small" OUTPUT_VARIABLE libraries COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "\n$" "" libraries "${libraries}")
string(REPLACE "\n" ";" libraries "${libraries}")
foreach(line IN LISTS libraries)
    if(NOT line MATCHES "linux-vdso|ld-linux|libc\\.so|libm\\.so|libstdc\\+\\+\\.so|libgcc_s\\.so|libpthread\\.so")
        message(FATAL_ERROR "the program needs more than the C and C++ libraries: ${line}")
    endif()
endforeach()
