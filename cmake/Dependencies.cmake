# What the project builds on: Halide from the virtual environment, everything else from Debian.
# Defines Halide::*, LLVM::shared and LLVM_INCLUDE, and the usual targets of the small libraries.

# The wheel puts Halide's CMake files below site-packages.
file(GLOB halide_folder "${CRYOLITE_VENV}/lib/python3.*/site-packages/halide/lib64/cmake")
if(NOT halide_folder AND NOT Halide_DIR)
    message(FATAL_ERROR "no Halide in ${CRYOLITE_VENV}: run scripts/setup, or set CRYOLITE_VENV or Halide_DIR")
endif()
if(NOT Halide_DIR)
    set(Halide_DIR "${halide_folder}/Halide" CACHE PATH "")
    set(HalideHelpers_DIR "${halide_folder}/HalideHelpers" CACHE PATH "")
endif()
find_package(Threads REQUIRED)
find_package(Halide 21 REQUIRED COMPONENTS shared)

# LLVM's shared library, next to the one that Halide carries hidden inside. Its exported CMake targets ask for the
# development files of everything that LLVM was built with; llvm-config does not.
find_program(LLVM_CONFIG NAMES llvm-config-19 REQUIRED)
execute_process(COMMAND ${LLVM_CONFIG} --includedir OUTPUT_VARIABLE LLVM_INCLUDE OUTPUT_STRIP_TRAILING_WHITESPACE
    COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${LLVM_CONFIG} --libdir OUTPUT_VARIABLE LLVM_LIBRARY_FOLDER OUTPUT_STRIP_TRAILING_WHITESPACE
    COMMAND_ERROR_IS_FATAL ANY)
add_library(LLVM::shared SHARED IMPORTED)
set_target_properties(LLVM::shared PROPERTIES IMPORTED_LOCATION "${LLVM_LIBRARY_FOLDER}/libLLVM-19.so")

find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(ZLIB REQUIRED)
