# Fuzz targets. mr_fuzz(NAME LINK mr_engine): fuzz/fuzz_NAME.c on the inputs in fuzz/corpus/NAME, run
# shortly as a test. With -DMR_FUZZ=ON (clang) it is libFuzzer; find more with
#     TMPDIR=/dev/shm build/fuzz/fuzz_NAME my-corpus tests/fuzz/corpus/NAME
# With any other compiler fuzz/replay.c runs the corpus and simple mutations of it: ROUNDS of each
# input, fewer where an input makes files or runs a model.
function(mr_fuzz name)
  cmake_parse_arguments(ARG "" "ROUNDS" "SOURCES;LINK" ${ARGN})
  if(NOT ARG_ROUNDS)
    set(ARG_ROUNDS 1000)
  endif()
  set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name})
  add_executable(fuzz_${name} fuzz/fuzz_${name}.c ${ARG_SOURCES})
  target_compile_definitions(fuzz_${name} PRIVATE TESTS_FOLDER="${CMAKE_CURRENT_SOURCE_DIR}")
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
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} -rounds=${ARG_ROUNDS} ${corpus})
  endif()
  set_tests_properties(fuzz_${name} PROPERTIES LABELS fuzz TIMEOUT 120)
  # In memory: a disk that flushes each of a few thousand small files takes many times as long.
  if(IS_DIRECTORY /dev/shm)
    set_tests_properties(fuzz_${name} PROPERTIES ENVIRONMENT TMPDIR=/dev/shm)
  endif()
endfunction()

mr_fuzz(safetensors LINK mr_engine)
mr_fuzz(tokenizer LINK mr_engine)
mr_fuzz(jsonl LINK mr_core)
mr_fuzz(record LINK mr_featurestore)
mr_fuzz(record_file LINK mr_featurestore)
mr_fuzz(refresh LINK mr_refresh)
mr_fuzz(config ROUNDS 300 LINK mr_engine test_support)
mr_fuzz(template ROUNDS 5000 LINK mr_encoders)
mr_fuzz(image ROUNDS 300 LINK mr_encoders)
mr_fuzz(bundle ROUNDS 100 LINK mr_model test_support)
mr_fuzz(catalogue ROUNDS 300 SOURCES ${PROJECT_SOURCE_DIR}/ranker/cli/catalogue.c
        LINK mr_featurestore test_support)
mr_fuzz(recipe ROUNDS 2000 LINK mr_training)
mr_fuzz(rpc_wire ROUNDS 2000 LINK mr_rpc)
mr_fuzz(rpc_connection ROUNDS 500 LINK mr_rpc)
