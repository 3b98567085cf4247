# What every file of ours is compiled with. -ffp-contract=off: the kernels say where a fused
# multiply-add happens, so that the same source gives the same bits at any optimisation level.
# Never -ffast-math (it deletes NaN checks) and never -march=native (one binary, chosen at run time).
add_library(mr_build INTERFACE)
target_include_directories(mr_build INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
target_compile_definitions(mr_build INTERFACE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE)
target_compile_options(mr_build INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes
  -Wmissing-prototypes -Wwrite-strings -Wvla -Wdouble-promotion -Wpointer-arith
  -ffp-contract=off -fno-math-errno
  -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/= # errors say core/json.c, wherever it was built
  -include ${PROJECT_SOURCE_DIR}/core/banned.h
  $<$<BOOL:${MR_WERROR}>:-Werror>)
if(MR_SANITIZE)
  target_compile_options(mr_build INTERFACE -fsanitize=${MR_SANITIZE} -fno-sanitize-recover=all
                         -fno-omit-frame-pointer)
  target_link_options(mr_build INTERFACE -fsanitize=${MR_SANITIZE})
endif()
if(MR_FUZZ)
  target_compile_options(mr_build INTERFACE -fsanitize=fuzzer-no-link)
endif()

# One library per layer: mr_layer(core SOURCES ... LINK ...). LINK names lower layers and packages.
function(mr_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(mr_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(mr_${name} PUBLIC ${ARG_LINK} PRIVATE mr_build ${ARG_PRIVATE_LINK})
  set_property(GLOBAL APPEND PROPERTY MR_LAYERS mr_${name})
endfunction()

# A file that needs instruction-set flags of its own, beside a definition that it was built.
function(mr_kernel_file target file flags definition)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_sources(${target} PRIVATE ${file})
    set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${flags}")
    target_compile_definitions(${target} PRIVATE ${definition})
  endif()
endfunction()
