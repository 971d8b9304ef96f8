# A network file becomes a library that a program links.
#
#   add_cryolite_model(lenet FROM lenet.cpp BATCH 256 [TARGETS host] [LANES n] [NO_TRAIN] [CHECKED])
#   target_link_libraries(app PRIVATE lenet)
#
# The network that FROM registers has the name of the model. Made are
#   <name>_compiler    the network file with Cryolite's command line: bin/<name> compile|train|eval|inspect
#   <name>             an interface target: folder <name>/ with <name>.h and lib<name>.a, and the runtime; for opencl, the
#                      part of it for devices too
# BATCH is the largest batch, 256 unless told. Of several TARGETS (names of Halide's) the first is <name>, the others are
# <name>-<target>, in folders of that name. With Ninja and Make the library is made again when the network, its compiler
# or a generator changes.
function(add_cryolite_model name)
    cmake_parse_arguments(arg "NO_TRAIN;CHECKED" "FROM;BATCH;LANES" "TARGETS" ${ARGN})
    if(NOT arg_FROM OR arg_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "add_cryolite_model(${name} FROM <network.cpp> [BATCH n] [TARGETS host ...] [LANES n] "
            "[NO_TRAIN] [CHECKED]): FROM is missing, or not understood: ${arg_UNPARSED_ARGUMENTS}")
    endif()
    set(options --network ${name})
    foreach(option IN ITEMS BATCH LANES)
        if(DEFINED arg_${option})
            string(TOLOWER "--${option}" flag)
            list(APPEND options ${flag} ${arg_${option}})
        endif()
    endforeach()
    if(arg_NO_TRAIN)
        list(APPEND options --no-train)
    endif()
    if(arg_CHECKED)
        list(APPEND options --checked)
    endif()
    if(NOT arg_TARGETS)
        set(arg_TARGETS host)
    endif()

    add_executable(${name}_compiler ${arg_FROM})
    target_link_libraries(${name}_compiler PRIVATE cryolite_main)
    # A folder of its own: beside it lies the folder <name> of the library.
    set_target_properties(${name}_compiler PROPERTIES
        OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/bin")

    set(model ${name})
    foreach(target IN LISTS arg_TARGETS)
        if(TARGET ${model})
            set(model ${name}-${target})
        endif()
        set(folder "${CMAKE_CURRENT_BINARY_DIR}/${model}")
        set(files "${folder}/lib${name}.a" "${folder}/${name}.h")
        add_custom_command(OUTPUT ${files}
            COMMAND ${name}_compiler compile -o "${folder}" --target ${target} ${options}
            DEPENDS ${name}_compiler
            COMMENT "Compiling network ${name} for ${target}" VERBATIM)
        add_custom_target(${model}_files DEPENDS ${files})
        add_library(${model} INTERFACE)
        add_dependencies(${model} ${model}_files)
        target_include_directories(${model} INTERFACE "${folder}")
        target_link_libraries(${model} INTERFACE "${folder}/lib${name}.a")
        if(target MATCHES "opencl")
            target_link_libraries(${model} INTERFACE cryolite_device)
        endif()
        target_link_libraries(${model} INTERFACE cryolite_runtime)
    endforeach()
endfunction()
