# Fuzz targets. mr_fuzz(NAME LINK mr_engine): fuzz/fuzz_NAME.c on the inputs in fuzz/corpus/NAME, run
# shortly as a test. With -DMR_FUZZ=ON (clang) it is libFuzzer; find more with
#     build/fuzz/fuzz_NAME my-corpus tests/fuzz/corpus/NAME
# With any other compiler fuzz/replay.c runs the corpus and simple mutations of it.
function(mr_fuzz name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name})
  add_executable(fuzz_${name} fuzz/fuzz_${name}.c)
  target_link_libraries(fuzz_${name} PRIVATE mr_build ${ARG_LINK})
  if(MR_FUZZ)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    set(found ${CMAKE_CURRENT_BINARY_DIR}/fuzz-corpus/${name})
    file(MAKE_DIRECTORY ${found})
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} -seed=1 -runs=100000 -max_total_time=20
             ${found} ${corpus})
  else()
    target_sources(fuzz_${name} PRIVATE fuzz/replay.c)
    target_link_libraries(fuzz_${name} PRIVATE mr_core)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} -rounds=1000 ${corpus})
  endif()
  set_tests_properties(fuzz_${name} PROPERTIES LABELS fuzz TIMEOUT 120)
endfunction()

mr_fuzz(safetensors LINK mr_engine)
mr_fuzz(jsonl LINK mr_core)
mr_fuzz(record LINK mr_featurestore)
