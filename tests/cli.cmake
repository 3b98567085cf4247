# Tests of cli: shell scripts in cli/ that run the program as its users do, with small programs to
# look at what it wrote; see cli/lib.sh.
foreach(tool IN ITEMS jsoncheck tensors maxrss)
  add_executable(${tool} cli/${tool}.c)
  target_link_libraries(${tool} PRIVATE mr_build mr_engine PkgConfig::JANSSON)
endforeach()

function(mr_cli_test name)
  add_test(NAME cli_${name} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cli/${name}.sh)
  set_tests_properties(cli_${name} PROPERTIES LABELS integration TIMEOUT 300 SKIP_RETURN_CODE 77
    ENVIRONMENT "MIXRANK=$<TARGET_FILE:mixrank>;JSONCHECK=$<TARGET_FILE:jsoncheck>;TENSORS=$<TARGET_FILE:tensors>;MAXRSS=$<TARGET_FILE:maxrss>;DATA=${CMAKE_CURRENT_SOURCE_DIR}/data;SANITIZE=${MR_SANITIZE}")
endfunction()

mr_cli_test(usage)
mr_cli_test(tokenize)
mr_cli_test(forward)
mr_cli_test(encode)
mr_cli_test(evaluate)
mr_cli_test(rank)
mr_cli_test(bundle)
mr_cli_test(images)
mr_cli_test(store)
mr_cli_test(store_redis)
mr_cli_test(users)
mr_cli_test(refresh)
mr_cli_test(caption)
mr_cli_test(train)
mr_cli_test(rss)

add_executable(kafkamock cli/kafkamock.c)
target_link_libraries(kafkamock PRIVATE mr_build PkgConfig::JANSSON PkgConfig::RDKAFKA)
set_property(TEST cli_refresh APPEND PROPERTY ENVIRONMENT "KAFKAMOCK=$<TARGET_FILE:kafkamock>")

# The same program against others on the same input; python.sh says why where it is skipped.
add_test(NAME interop_forward
  COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/interop/python.sh "torch transformers safetensors"
    ${CMAKE_CURRENT_SOURCE_DIR}/interop/compare_forward.py $<TARGET_FILE:mixrank>
    ${CMAKE_CURRENT_SOURCE_DIR}/data)
set_tests_properties(interop_forward PROPERTIES LABELS interop TIMEOUT 300 SKIP_RETURN_CODE 77)
